"""Areas under error-reject curves of pairs that count more than once or not at all, without sorting them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from labelers.runtime.compilation import compile_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.evaluation.pairs.kept_order import Floats


class Ranking(NamedTuple):
    """Genuine pairs by ascending quality.

    order: places of the pairs [G].
    levels: how many thresholds each pair of this order fails [G].
    bounds: where each distinct quality begins, and the end [K + 1].
    """

    order: NDArray[np.uint32]
    levels: NDArray[np.uint8]
    bounds: NDArray[np.intp]


def rank(quality: Floats, levels: NDArray[np.uint8]) -> Ranking:
    """Sort pairs [G] by quality; `levels` is of `count_failures`."""
    order = np.argsort(quality)
    ordered = quality[order]
    bounds = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
    return Ranking(order=order.astype(np.uint32), levels=levels[order], bounds=bounds)


def count_failures(similarity: Floats, thresholds: NDArray[np.float64]) -> NDArray[np.uint8]:
    """How many of the thresholds [T], at most 255 of them, each pair [G] is below."""
    below = np.searchsorted(np.sort(thresholds), similarity, side="right")
    return (len(thresholds) - below).astype(np.uint8)


def measure(
    counts: NDArray[np.uint16], ranking: Ranking, thresholds: NDArray[np.float64], limits: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Normalised step areas [T, L] of protocol `fixed`, as `error_reject.area` of pairs repeated `counts` times.

    Args:
        counts: how often each pair is there [G], at least one of them.
        ranking: the pairs by quality, with levels for these thresholds.
        thresholds: similarities below which a pair is not matched [T].
        limits: ascending shares rejected [L], over 0 and at most 1.

    Returns:
        Areas [T, L]; NaN at a threshold without errors.
    """
    found = _measure_levels(counts, ranking, len(thresholds), limits)  # [L + 1, T + 1]
    # A pair fails the largest threshold first: errors at the i-th smallest have level T - i or more.
    ascending = found[:, :0:-1].cumsum(axis=1)  # [L + 1, T]
    errors = np.where(ascending[-1] > 0, ascending[-1], np.nan)
    areas = np.empty((len(thresholds), len(limits)))
    areas[np.argsort(thresholds)] = (ascending[:-1] / errors * counts.sum(dtype=np.int64) / limits[:, None]).T
    return areas


@compile_kernel
def _measure_levels(
    counts: NDArray[np.uint16], ranking: Ranking, thresholds: int, limits: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Raw areas up to each limit, and as a last row the errors, by the pairs of each level [L + 1, T + 1].

    With W_i the pairs of the i-th distinct quality or better, an error of the k-th adds 1 / W_i to the curve over the
    steps i up to k. The sum of step widths over W_i, `height`, grows along the order and is the same for all
    thresholds; so an error adds its `height` to the area, or, when it lies beyond a limit, the `height` at the limit.
    """
    order, levels, bounds = ranking
    kept = 0
    for pair in range(len(counts)):
        kept += counts[pair]
    total = float(kept)
    sums, errors = np.zeros(thresholds + 1), np.zeros(thresholds + 1, np.int64)
    areas, heights = np.empty((len(limits) + 1, thresholds + 1)), np.empty(len(limits))
    height, reached, begin = 0.0, 0, 0
    for end in bounds[1:]:
        size = 0
        for place in range(begin, end):
            size += counts[order[place]]
        while reached < len(limits) and kept - size <= total * (1 - limits[reached]):
            heights[reached] = height + (limits[reached] - (total - kept) / total) / kept
            areas[reached] = sums - errors * heights[reached]
            reached += 1
        # No branch for a quality that was not drawn: a third of them, at random, costs more than the division.
        height += size / (total * max(kept, 1))
        for place in range(begin, end):
            sums[levels[place]] += counts[order[place]] * height
            errors[levels[place]] += counts[order[place]]
        kept -= size
        begin = end
    for limit in range(len(limits)):
        areas[limit] += errors * heights[limit]
    areas[len(limits)] = errors
    return areas
