"""The threshold at a false match rate from a histogram and the exact similarities of a few impostor pairs.

The histogram holds similarities that are off by at most a known error. Order statistics are then off by no more than
that error either, so the histogram tells in which bins to look; the threshold itself is chosen among exact values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.pairs.histogram import BINS, WIDTH

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Bins in which the threshold of a false match rate and the impostor similarities next to it on both sides lie.

    Attributes:
        fmr: the rate.
        total: impostor pairs.
        low: first bin.
        high: last bin.
        above: impostor pairs in higher bins.
        least: a similarity over which all impostor pairs are in these bins or in higher ones.
        most: a similarity below which all impostor pairs are in these bins or in lower ones.
    """

    fmr: float
    total: int
    low: int
    high: int
    above: int
    least: float
    most: float


def product_error(dimension: int) -> float:
    """By how much a float32 product of two unit vectors may be off, in whatever order it is summed.

    n roundings of 2^-24 each on a sum of magnitudes that is at most 1 (Higham, "Accuracy and Stability of Numerical
    Algorithms", section 3.1); eight more for the lengths, the bin and the exact value's own rounding.
    """
    return float((dimension + 8) * 2.0**-24)


def find_window(counts: NDArray[np.int64], fmr: float, error: float) -> Window:
    """Where the threshold lies.

    Args:
        counts: impostor pairs in each bin [65,536], at least one in all.
        fmr: false match rate.
        error: largest error of a counted similarity.
    """
    at_least = counts[::-1].cumsum()[::-1]  # pairs in this bin or a higher one
    total = int(at_least[0])
    wanted = int(fmr * total)
    top, bottom = (_bin_of_rank(at_least, rank) for rank in (max(wanted - 1, 1), min(wanted + 2, total)))
    # Two pairs whose bins are so far apart differ in their exact similarities too, in the same direction.
    margin = int(np.ceil(2 * error / WIDTH)) + 1
    higher = np.flatnonzero(counts[top + margin + 1 :])
    lower = np.flatnonzero(counts[: max(bottom - margin, 0)])
    high = min(top + margin + 1 + int(higher[0]) + margin, BINS - 1) if len(higher) else BINS - 1
    low = max(int(lower[-1]) - margin, 0) if len(lower) else 0
    above = total - int(counts[: high + 1].sum())
    return Window(
        fmr=fmr,
        total=total,
        low=low,
        high=high,
        above=above,
        least=-1.0 + WIDTH * low + error if counts[:low].any() else -np.inf,
        most=-1.0 + WIDTH * (high + 1) - error if above else np.inf,
    )


def choose_threshold(
    window: Window,
    similarity: NDArray[np.float32],
    count: NDArray[np.int64],
    genuine: NDArray[np.float32],
) -> float:
    """The similarity whose false match rate is nearest to the one wanted.

    The rule of `error_reject.threshold`: candidates are the similarities of all pairs, FMR(t) is the share of impostor
    pairs of t or more, and of candidates equally near the smallest similarity is taken.

    Args:
        window: where to look.
        similarity: exact ones of the impostor pairs in the window's bins [K], in any order.
        count: how many pairs each of them stands for [K].
        genuine: similarities of the genuine pairs, ascending [G].
    """
    values, accepted = _accepted(window, similarity, count)
    if not window.above and len(genuine) and genuine[-1] > values[0]:
        values, accepted = np.append(np.float32(np.inf), values), np.append(0, accepted)
    gaps = np.abs(accepted / window.total - window.fmr)
    best = int(np.flatnonzero(gaps == gaps.min())[-1])  # of equals the one that accepts more
    # Genuine pairs between this impostor similarity and the next lower one accept the same impostor pairs.
    assert best + 1 < len(values) or window.least == -np.inf
    lower = values[best + 1] if best + 1 < len(values) else np.float32(-np.inf)
    place = int(np.searchsorted(genuine, lower, side="right"))
    return float(min(values[best], genuine[place]) if place < len(genuine) else values[best])


def _accepted(
    window: Window, similarity: NDArray[np.float32], count: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Distinct similarities in the window, falling, and how many impostor pairs are as similar or more."""
    values, places = np.unique(similarity, return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, places, count)
    accepted = window.above + counts[::-1].cumsum()
    values = values[::-1]
    certain = (values > window.least) & (values < window.most)
    return values[certain], accepted[certain]


def _bin_of_rank(at_least: NDArray[np.int64], rank: int) -> int:
    """The bin of the pair that is the rank-th most similar, counted from 1."""
    return int(np.searchsorted(-at_least, -rank, side="right")) - 1
