"""Class centres: sums of unit embeddings, the same to the last bit in whatever order and pieces they are summed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_SCALE = 2.0**40
"""Sums are kept in whole multiples of 2^-40: adding integers knows no rounding, so no order. Values of a float32 unit
vector above 2^-17 are held exactly, and 2^22 images of one person fit into 64 bits."""

_ROWS = 4096
"""Rows summed at a time: 16 MB for embeddings of 512 values."""


class IdentityError(ValueError):
    """An identity has no class centre."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Centres:
    """One centre a person.

    Attributes:
        identities: int32 [C], ascending.
        counts: int32 [C], how many embeddings stand in a sum; all 0 where the centres are the columns of a
            recogniser's last layer.
        sums: float32 [C, D]; the direction of a sum is that of the mean.
        lengths: float64 [C], the lengths of the sums.
    """

    identities: NDArray[np.int32]
    counts: NDArray[np.int32]
    sums: NDArray[np.float32]
    lengths: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        count = len(self.identities)
        if self.sums.ndim != 2 or len(self.sums) != count or len(self.counts) != count:
            raise ValueError(f"{count} identities, {len(self.counts)} counts and sums {list(self.sums.shape)}")
        if (np.diff(self.identities) <= 0).any():
            raise ValueError("the identities of class centres must ascend, each once")
        if count and (self.counts == 0).any() and self.counts.any():
            raise ValueError("class centres are sums of embeddings or columns of a head, not some of each")
        object.__setattr__(self, "lengths", row_lengths(self.sums))
        if not np.isfinite(self.lengths).all():
            lost = self.identities[~np.isfinite(self.lengths)][0]
            raise ValueError(f"the class centre of identity {lost} is not finite: sum or load the centres again")

    def __len__(self) -> int:
        return len(self.identities)

    @property
    def from_head(self) -> bool:
        """Whether the centres are learnt weights rather than sums of embeddings."""
        return len(self) > 0 and not self.counts.any()

    def rows_of(self, identities: NDArray[np.integer]) -> NDArray[np.intp]:
        """The row of every identity's centre, [N].

        Raises:
            IdentityError: if one has none; names it.
        """
        if not len(identities):
            return np.zeros(0, np.intp)
        if not len(self):
            raise IdentityError(f"there are no class centres, so none of identity {identities[0]}")
        rows = np.minimum(np.searchsorted(self.identities, identities), len(self) - 1)
        unknown = identities[self.identities[rows] != identities]
        if len(unknown):
            raise IdentityError(
                f"identity {unknown[0]} has no class centre; there are {len(self)}, from {self.identities[0]} to"
                f" {self.identities[-1]}: were the centres made from this data set?"
            )
        return rows


def head_centres(head: NDArray[np.float32], identities: NDArray[np.int32] | None = None) -> Centres:
    """The weights of a recogniser's last layer as centres.

    Args:
        head: [C, D].
        identities: int32 [C], whose centre each row is, ascending; None: of the identities 0 to C - 1.

    Raises:
        ValueError: if there are not as many identities as rows.
    """
    people = np.arange(len(head), dtype=np.int32) if identities is None else identities
    if len(people) != len(head):
        raise ValueError(f"{len(head)} class centres of {len(people)} people: the head's file is not whole")
    return Centres(identities=people, counts=np.zeros(len(head), np.int32), sums=np.asarray(head, np.float32))


class CentreSums:
    """Running sums of unit embeddings by identity."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}
        self._counts = np.zeros(0, np.int64)
        self._sums = np.zeros((0, 0), np.int64)  # [capacity, D]

    def add(self, embeddings: NDArray[np.floating], identities: NDArray[np.integer]) -> Self:
        """Add embeddings [N, D] of identities [N]; each is brought to unit length.

        Left out are rows without direction (zero or not finite) and identities below zero, which name nobody.

        Raises:
            ValueError: if the shapes do not fit each other or what was added before.
        """
        if embeddings.ndim != 2 or len(embeddings) != len(identities):
            raise ValueError(f"{len(identities)} identities do not fit embeddings {list(embeddings.shape)}")
        for start in range(0, len(embeddings), _ROWS):
            units = unit_rows(embeddings[start : start + _ROWS])
            block = identities[start : start + _ROWS]
            used = np.flatnonzero(np.isfinite(units[:, 0]) & (block >= 0))
            used = used[np.argsort(block[used], kind="stable")]
            people, first, counts = np.unique(block[used], return_index=True, return_counts=True)
            if len(people):
                whole = np.rint(units[used].astype(np.float64) * _SCALE).astype(np.int64)
                self._add_sums(people, counts, np.add.reduceat(whole, first, axis=0))
        return self

    def merge(self, other: CentreSums) -> Self:
        """Add what another one holds, such as another part of the data set."""
        if other._rows:
            people, rows = np.array(list(other._rows)), np.array(list(other._rows.values()))
            self._add_sums(people, other._counts[rows], other._sums[rows])
        return self

    def to_centres(self) -> Centres:
        """The centres of all identities with at least one embedding."""
        identities = np.array(sorted(self._rows), np.int32)
        rows = np.array([self._rows[int(identity)] for identity in identities], np.intp)
        sums = np.empty((len(rows), self._sums.shape[1]), np.float32)
        for start in range(0, len(rows), _ROWS):
            sums[start : start + _ROWS] = self._sums[rows[start : start + _ROWS]] / _SCALE
        return Centres(identities=identities, counts=self._counts[rows].astype(np.int32), sums=sums)

    def _add_sums(self, people: NDArray[np.integer], counts: NDArray[np.int64], sums: NDArray[np.int64]) -> None:
        """Add sums [K, D] of distinct people [K]."""
        if self._rows and sums.shape[1] != self._sums.shape[1]:
            raise ValueError(f"embeddings of {sums.shape[1]} values after some of {self._sums.shape[1]}")
        rows = np.array([self._rows.setdefault(int(person), len(self._rows)) for person in people], np.intp)
        if len(self._rows) > len(self._sums):
            self._grow(sums.shape[1])
        self._counts[rows] += counts
        self._sums[rows] += sums

    def _grow(self, dimension: int) -> None:
        """Make room for half as many people again."""
        capacity = max(64, len(self._rows) * 3 // 2)
        counts, grown = np.zeros(capacity, np.int64), np.zeros((capacity, dimension), np.int64)
        counts[: len(self._counts)] = self._counts
        grown[: len(self._sums), : self._sums.shape[1]] = self._sums
        self._counts, self._sums = counts, grown


def accumulate(blocks: Iterable[tuple[NDArray[np.floating], NDArray[np.integer]]]) -> Centres:
    """Class centres from blocks of embeddings [N, D] and identities [N], in any order and of any size."""
    sums = CentreSums()
    for embeddings, identities in blocks:
        sums.add(embeddings, identities)
    return sums.to_centres()


def unit_rows(embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows [N, D] brought to unit length in float32; a row that has no direction (zero or not finite) becomes NaN."""
    lengths = row_lengths(embeddings)
    lengths[~(np.isfinite(lengths) & (lengths > 0.0))] = np.nan
    return (embeddings / lengths[:, None]).astype(np.float32)


def have_direction(embeddings: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which rows of [N, D] are finite and not zero, [N]."""
    lengths = row_lengths(embeddings)
    return np.isfinite(lengths) & (lengths > 0.0)


def row_lengths(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Euclidean length of every row [N, D], summed in float64."""
    lengths = np.empty(len(rows), np.float64)
    for start in range(0, len(rows), _ROWS):
        wide = rows[start : start + _ROWS].astype(np.float64)
        lengths[start : start + _ROWS] = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    return lengths
