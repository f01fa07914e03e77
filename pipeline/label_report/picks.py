"""Which images a page shows: a bounded number, chosen by rule, so that the same labels show the same faces."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from pipeline.pages.people import A_ROW, NEAR, first_of_people

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pipeline.label_report.ranked import Ranked
    from pipeline.label_report.scores import Split

    Rows = NDArray[np.int64]

POOL = 60
"""Faces along a score."""
STRIP = 36
"""Faces from worst to best quality."""

_DRAWN = 8
"""Times as many images as are wanted are drawn, so that enough people are among them."""


class Kind(StrEnum):
    """How faces of a class are chosen."""

    ALL = "all of them"
    RANDOM = "at random"
    BORDER = "at the border"
    EXTREME = "at the end"
    MIDDLE = "in the middle"


def draw(rows: Rows, people: NDArray[np.int32]) -> Rows:
    """A row of faces at random, the same ones each time, in their order.

    Args:
        rows: places of the images to choose from.
        people: whom every image shows, [N]; negative where nobody knows.
    """
    if rows.size <= A_ROW:
        return rows
    places = np.random.default_rng(rows.size).choice(rows.size, min(rows.size, _DRAWN * A_ROW), replace=False)
    return np.sort(first_of_people(rows[places], people))


def pick_pool(ranked: Ranked, axis: tuple[float, float]) -> Rows:
    """Faces evenly along a score, in its order."""
    return ranked.nearest(np.linspace(*axis, POOL).tolist())


def pick_class(  # noqa: PLR0913 - a class, the score that splits it, and whom the images show
    split: Split,
    place: int,
    *,
    ranked: Ranked,
    codes: NDArray[np.int8],
    people: NDArray[np.int32],
    thresholds: Mapping[str, float],
) -> dict[Kind, Rows]:
    """The faces of one class.

    Args:
        split: of the factor.
        place: the class's index.
        ranked: the score that is split.
        codes: the classes of all images, int8 [N].
        people: whom they show, [N].
        thresholds: those of the labels.

    Returns:
        All of them where a row holds them. Otherwise at random; nearest to a threshold, the nearest first; and at the
        class's end, or for one between two thresholds in its middle.
    """
    every = np.flatnonzero(codes == place)
    own = ranked.ranks[codes[ranked.ranks] == place]  # in the order of the score
    if every.size <= A_ROW:
        return {Kind.ALL: own if own.size == every.size else every}
    if own.size == 0:
        return {Kind.RANDOM: draw(every, people)}
    sides = [thresholds[name] for name in split.thresholds]
    if split.best is not None and place == 1:
        # The closest to either threshold in turn; one may be close to both.
        both = [
            row for pair in zip(*(_closest(own, ranked, people, edge) for edge in sides), strict=False) for row in pair
        ]
        border = first_of_people(np.array(list(dict.fromkeys(both))), people)
        middle = _closest(own, ranked, people, sum(sides) / 2)
        return {
            Kind.RANDOM: draw(every, people),
            Kind.BORDER: own[np.isin(own, border)],
            Kind.MIDDLE: own[np.isin(own, middle)],
        }
    up, down = own, own[::-1]
    from_border, from_end = (down, up) if place == split.along[0] else (up, down)
    return {
        Kind.RANDOM: draw(every, people),
        Kind.BORDER: first_of_people(from_border, people),
        Kind.EXTREME: first_of_people(from_end, people),
    }


def _closest(rows: Rows, ranked: Ranked, people: NDArray[np.int32], target: float) -> Rows:
    """The rows, in the order of their values, whose values lie closest to a target, the closest first."""
    values = ranked.values[rows]
    at = int(np.searchsorted(values, np.float32(target)))
    near = slice(max(0, at - NEAR * A_ROW), at + NEAR * A_ROW)
    order = np.argsort(np.abs(values[near].astype(np.float64) - target), kind="stable")
    return first_of_people(rows[near][order], people)
