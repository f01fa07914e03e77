"""Counts of similarities in 65,536 equal bins over [-1, 1].

They are counted in twice as many, over [-2, 2]: so what is hidden and what is off by rounding need no other treatment
than the rest, which is done for every pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labelers.runtime.compilation import compile_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 1 << 16
WIDTH = 2.0 / BINS
HIDDEN = np.float32(-2.0)
"""Stands in place of a similarity that is not to be counted."""
VISIBLE = np.float32(-1.5)
"""Below every similarity, above `HIDDEN`."""

PLACES = 2 * BINS
"""Where similarities are counted."""
HALF = BINS // 2
"""The place of the first bin, and the bins in a unit of similarity."""

_ONE = np.float32(1.0)
_SCALE = np.float32(HALF)
_LAST = BINS - 1
_MASK = PLACES - 1


def bin_edges() -> NDArray[np.float64]:
    """The edges of the bins, float64 [65,537], from -1 to 1. A bin holds its lower edge; the last one also 1."""
    return np.asarray(-1.0 + WIDTH * np.arange(BINS + 1), np.float64)


def bins_of(similarity: NDArray[np.float32]) -> NDArray[np.int32]:
    """The bin of each similarity; what lies outside [-1, 1] belongs to the first or the last."""
    return np.clip(((similarity + _ONE) * _SCALE).astype(np.int32), 0, _LAST)


@compile_kernel
def count_bins(similarity: NDArray[np.float32], counts: NDArray[np.int64]) -> None:
    """Add similarities, hidden ones too, to their places.

    Args:
        similarity: float32 [K], within [-2, 2).
        counts: int64 [131,072], which is added to.
    """
    for index in range(similarity.size):
        place = int((similarity[index] + _ONE) * _SCALE) + HALF
        counts[place & _MASK] += 1


def read_bins(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """What stands in the bins of `bins_of` [65,536], of counts by place [131,072]; hidden similarities are left out."""
    below, bins, above = np.split(counts, [HALF, HALF + BINS])
    bins = bins.copy()
    bins[0] += below[1:].sum()  # hidden ones stand in the first place
    bins[-1] += above.sum()
    return bins
