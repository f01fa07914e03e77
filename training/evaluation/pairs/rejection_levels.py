"""At which rejection rates a pair of an identity set is still there, for all pairs at once and without listing them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Images of equal quality among whose pairs one or more rates begin.

    Attributes:
        start: position of its first image.
        stop: position after its last one.
        codes: of the first pair that each of these rates keeps, ascending [K].
    """

    start: int
    stop: int
    codes: NDArray[np.int64]


class Band:
    """Rows of the triangle of pairs that are treated alike: all of one level, or all of one group."""

    def __init__(self, rows: slice, level: int, group: Group | None, order: NDArray[np.intp]) -> None:
        self.rows = rows
        self.level = level
        self.split = group is not None
        self._group = group
        self._order = order

    def levels(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.intp]:
        """The level of pairs of positions, which are broadcast."""
        if self._group is None:
            return np.full(np.broadcast_shapes(rows.shape, columns.shape), self.level)
        codes = _codes(self._order[rows], self._order[columns], len(self._order))
        return self.level + np.searchsorted(self._group.codes, codes, side="right")


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionLevels:
    """Images by quality, and the level of their pairs: a pair of level n is kept at the rates 0 to n and at no other.

    The pairs are those of `np.triu_indices(N, 1)`, in that order. They are sorted by quality, the smaller of the two
    images', stably, and rate i drops the first `starts[i]`. Where the images stand in order of quality, the first image
    of a pair decides its quality, so that a whole row of the triangle has one level; only of rows in whose midst a rate
    begins have the pairs to be looked at one by one.

    Attributes:
        order: the image at each position [N], by quality, of equals the earlier first.
        level: of the pairs whose first image is at each position, before what its group adds [N].
        groups: in order of position.
        count: number of levels.
    """

    order: NDArray[np.intp]
    level: NDArray[np.intp]
    groups: tuple[Group, ...]
    count: int

    @classmethod
    def single(cls, images: int) -> RejectionLevels:
        """One level for all pairs, images as they are."""
        return cls(order=np.arange(images), level=np.zeros(images, np.intp), groups=(), count=1)

    @classmethod
    def build(cls, quality: NDArray[np.floating[Any]], rates: NDArray[np.float64]) -> RejectionLevels:
        """Order images by quality [N], for rejection rates that ascend from 0 and stay below 1."""
        order = np.argsort(quality, kind="stable")
        ordered = quality[order]
        pairs = np.append(0, np.arange(len(order) - 1, -1, -1).cumsum())  # [N + 1] in the rows before each position
        starts = (rates * int(pairs[-1])).astype(np.int64)
        opening = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))[: len(order)]
        closing = np.append(opening[1:], len(order))
        before = np.searchsorted(starts, pairs[opening], side="right") - 1
        after = np.searchsorted(starts, pairs[closing], side="left") - 1
        groups = tuple(
            Group(
                start=int(opening[g]),
                stop=int(closing[g]),
                codes=_cut_codes(
                    order, slice(opening[g], closing[g]), starts[before[g] + 1 : after[g] + 1] - pairs[opening[g]]
                ),
            )
            for g in np.flatnonzero(after > before)
        )
        return cls(order=order, level=np.repeat(before, closing - opening), groups=groups, count=len(rates))

    def bands(self, rows: int) -> Iterator[Band]:
        """The triangle's rows, at most so many at a time."""
        images = len(self.order)
        groups = {group.start: group for group in self.groups}
        ends = {group.stop for group in self.groups}
        changes = np.flatnonzero(np.diff(self.level)) + 1
        bounds = sorted({0, images, *changes.tolist(), *groups, *ends})
        for start, stop in pairwise(bounds):
            for first in range(start, stop, rows):
                part = slice(first, min(first + rows, stop))
                yield Band(part, int(self.level[start]), groups.get(start), self.order)

    def of_pairs(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.intp]:
        """The level of pairs of images [P], in any order."""
        position = np.empty_like(self.order)
        position[self.order] = np.arange(len(self.order))
        rows = np.minimum(position[first], position[second])
        level = self.level[rows]
        for group in self.groups:
            inside = np.flatnonzero((rows >= group.start) & (rows < group.stop))
            codes = _codes(first[inside], second[inside], len(self.order))
            level[inside] += np.searchsorted(group.codes, codes, side="right")
        return level


def _codes(first: NDArray[np.intp], second: NDArray[np.intp], images: int) -> NDArray[np.int64]:
    """A number for pairs of images that ascends in the order of `np.triu_indices`."""
    return np.minimum(first, second).astype(np.int64) * images + np.maximum(first, second)


def _cut_codes(order: NDArray[np.intp], tied: slice, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """The codes of the pairs of some ranks [K] among those whose worse image is one of several of equal quality.

    Args:
        order: images by quality.
        tied: where those of that quality stand.
        ranks: counted from 0, ascending.
    """
    images = np.sort(order[tied.start :])  # of this quality or better
    worst = np.isin(images, order[tied])
    partners = np.where(worst, np.arange(len(images))[::-1], worst[::-1].cumsum()[::-1])  # later ones of each
    ends = partners.cumsum()
    found = np.searchsorted(ends, ranks, side="right")
    codes = np.empty(len(ranks), np.int64)
    for place, (image, rank) in enumerate(zip(found, ranks, strict=True)):
        later = images[image + 1 :]
        later = later if worst[image] else later[worst[image + 1 :]]
        second = later[rank - (ends[image] - partners[image])]
        codes[place] = int(images[image]) * len(order) + int(second)
    return codes
