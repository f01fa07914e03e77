"""Counts of similarities in 65,536 equal bins over [-1, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labelers.compilation import compile_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 1 << 16
WIDTH = 2.0 / BINS
HIDDEN = np.float32(-2.0)
"""Stands in place of a similarity that is not to be counted."""
VISIBLE = np.float32(-1.5)
"""Below every similarity, above `HIDDEN`."""

_ONE = np.float32(1.0)
_SCALE = np.float32(BINS / 2)
_LAST = BINS - 1


def bin_edges() -> NDArray[np.float64]:
    """The edges of the bins, float64 [65,537], from -1 to 1. A bin holds its lower edge; the last one also 1."""
    return np.asarray(-1.0 + WIDTH * np.arange(BINS + 1), np.float64)


def bins_of(similarity: NDArray[np.float32]) -> NDArray[np.int32]:
    """The bin of each similarity; what lies outside [-1, 1] belongs to the first or the last."""
    return np.clip(((similarity + _ONE) * _SCALE).astype(np.int32), 0, _LAST)


@compile_kernel
def count_bins(similarity: NDArray[np.float32], counts: NDArray[np.int64]) -> None:
    """Add similarities to their bins, those that are hidden left out.

    Args:
        similarity: float32 [K].
        counts: int64 [65,536], which is added to.
    """
    for index in range(similarity.size):
        value = similarity[index]
        if value > VISIBLE:
            place = int((value + _ONE) * _SCALE)
            counts[min(max(place, 0), _LAST)] += 1
