"""Exact thresholds among the impostor pairs that a rejection rate keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.pairs.histogram import WIDTH
from training.evaluation.pairs.impostor_threshold import choose_threshold, find_window, product_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.evaluation.pairs.impostor_threshold import Window
    from training.evaluation.pairs.impostors import Impostors, SimilarityCounts


class ProductError(RuntimeError):
    """The machine's matrix products are not what they have to be."""


class ThresholdSearch:
    """Counts the impostor pairs, then answers for any rates with one more pass over them.

    Attributes:
        counts: impostor pairs that each rate keeps in each bin, int64 [rates, 65,536].
    """

    def __init__(self, impostors: Impostors) -> None:
        self._impostors = impostors
        self._error = product_error(impostors.dimension)
        self.counts = impostors.count()[::-1].cumsum(axis=0)[::-1]  # [rates, 65,536] pairs that a rate keeps

    def thresholds(self, asked: Sequence[tuple[int, float]], genuine: Sequence[NDArray[np.float32]]) -> list[float]:
        """Thresholds for (rate, FMR), NaN where the rate keeps no impostor pairs; `genuine` similarities by rate."""
        windows: dict[tuple[int, float], Window] = {}
        wanted = np.zeros(self.counts.shape, np.bool_)
        for rate, fmr in asked:
            if self.counts[rate].any():
                window = find_window(self.counts[rate], fmr, self._error)
                windows[rate, fmr] = window
                wanted[rate:, window.low : window.high + 1] = True
        counted = self._impostors.collect(wanted)
        self._check_products(counted)
        return [
            self._choose(counted, windows[rate, fmr], rate, genuine[rate]) if (rate, fmr) in windows else np.nan
            for rate, fmr in asked
        ]

    def _choose(self, counted: SimilarityCounts, window: Window, rate: int, genuine: NDArray[np.float32]) -> float:
        """The threshold of one rate."""
        own = (counted.level >= rate) & (counted.bin >= window.low) & (counted.bin <= window.high)
        if counted.count[own].sum() != self.counts[rate, window.low : window.high + 1].sum():
            raise ProductError(
                "the same products came out differently when they were computed again: run with one thread"
                " (OMP_NUM_THREADS=1), or on another device"
            )
        return choose_threshold(window, counted.similarity[own], counted.count[own], genuine)

    def _check_products(self, counted: SimilarityCounts) -> None:
        """Hold the products that were found against the exact similarities."""
        low = -1.0 + WIDTH * counted.bin
        off = np.maximum(low - counted.similarity, counted.similarity - (low + WIDTH)).max(initial=0.0)
        if off > self._error:
            raise ProductError(
                f"float32 products are off by {off:.2g} where at most {self._error:.2g} is possible: something makes"
                " the matrix product use a shorter format (TF32, bfloat16); turn that off, or use another device"
            )
