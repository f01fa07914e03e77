"""Which images a page shows: a bounded number, chosen by rule, so that the same labels show the same faces."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pipeline.label_report.ranked import Ranked
    from pipeline.label_report.scores import Split

    Rows = NDArray[np.int64]

A_ROW = 12
"""Faces that stand beside each other on a wide page."""
POOL = 60
"""Faces along a score."""
STRIP = 36
"""Faces from worst to best quality."""


class Kind(StrEnum):
    """How faces of a class are chosen."""

    RANDOM = "at random"
    BORDER = "at the border"
    EXTREME = "at the end"
    MIDDLE = "in the middle"


def draw(rows: Rows, count: int = A_ROW) -> Rows:
    """Some of the rows at random, the same ones each time, in their order."""
    if rows.size <= count:
        return rows
    places = np.random.default_rng(rows.size).choice(rows.size, count, replace=False)
    return rows[np.sort(places)]


def pick_pool(ranked: Ranked, axis: tuple[float, float]) -> Rows:
    """Faces evenly along a score, in its order."""
    return ranked.nearest(np.linspace(*axis, POOL).tolist())


def pick_class(
    split: Split, place: int, ranked: Ranked, codes: NDArray[np.int8], thresholds: Mapping[str, float]
) -> dict[Kind, Rows]:
    """The faces of one class.

    Args:
        split: of the factor.
        place: the class's index.
        ranked: the score that is split.
        codes: the classes of all images, int8 [N].
        thresholds: those of the labels.

    Returns:
        At random; nearest to a threshold, the nearest first; and at the class's end, or for one between two
        thresholds in its middle.
    """
    own = ranked.ranks[codes[ranked.ranks] == place]  # in the order of the score
    if own.size == 0:
        return {Kind.RANDOM: draw(np.flatnonzero(codes == place))}
    values = ranked.values[own]
    sides = [thresholds[name] for name in split.thresholds]
    between = split.best is not None and place == 1
    if between:
        border = np.concatenate([_closest(own, values, edge, A_ROW // 2) for edge in sides])
        middle = _closest(own, values, sum(sides) / 2, A_ROW)
        return {
            Kind.RANDOM: draw(np.flatnonzero(codes == place)),
            Kind.BORDER: own[np.isin(own, border)],
            Kind.MIDDLE: own[np.isin(own, middle)],
        }
    low_end = place == split.along[0]
    return {
        Kind.RANDOM: draw(np.flatnonzero(codes == place)),
        Kind.BORDER: own[-A_ROW:][::-1] if low_end else own[:A_ROW],
        Kind.EXTREME: own[:A_ROW] if low_end else own[-A_ROW:][::-1],
    }


def _closest(rows: Rows, values: NDArray[np.float32], target: float, count: int) -> Rows:
    """The rows whose ordered values lie closest to a target, the closest first."""
    at = int(np.searchsorted(values, np.float32(target)))
    near = np.arange(max(0, at - count), min(rows.size, at + count))
    best = near[np.argsort(np.abs(values[near].astype(np.float64) - target), kind="stable")[:count]]
    return rows[best]
