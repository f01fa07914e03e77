"""How well probabilities tell two classes: balanced accuracy, area under the ROC curve, reliability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from numpy.typing import NDArray

THRESHOLD = 0.5
"""From this probability on the worse class is named (CLIB-FIQA's two classes a factor; the labels' default)."""

BINS = 10
"""Bins of a reliability table, of equal width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """The faces whose probability lies in [lower, upper), the last bin with its upper end.

    Attributes:
        lower: smallest probability.
        upper: largest probability.
        faces: how many.
        mean_probability: what the network says; None where there is no face.
        positive_share: what is so.
        balanced_share: what would be so if both classes were equally common.
    """

    lower: float
    upper: float
    faces: int
    mean_probability: float | None
    positive_share: float | None
    balanced_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadMetrics:
    """How well one head does.

    Attributes:
        faces: how many were judged.
        positives: how many of them belong to the worse class.
        balanced_accuracy: mean of sensitivity and specificity at `THRESHOLD`.
        sensitivity: share of the worse class that is named so.
        specificity: share of the better class that is named so.
        auc: area under the ROC curve.
        expected_calibration_error: see `calibration_error`, with every face weighing the same.
        balanced_calibration_error: with both classes weighing the same.
        reliability: the table behind the two.
    """

    faces: int
    positives: int
    balanced_accuracy: float
    sensitivity: float
    specificity: float
    auc: float
    expected_calibration_error: float
    balanced_calibration_error: float
    reliability: tuple[ReliabilityBin, ...]


def measure_head(probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> HeadMetrics:
    """All metrics of one head.

    Args:
        probability: [N], of the worse class.
        truth: bool [N]; both classes must occur.

    Raises:
        ValueError: if one class is missing, or a probability is none.
    """
    if len(probability) != len(truth) or not np.all((probability >= 0) & (probability <= 1)):
        raise ValueError("as many probabilities from 0 to 1 as faces are needed")
    if truth.all() or not truth.any():
        raise ValueError(f"both classes are needed, but {int(truth.sum())} of {len(truth)} faces are positive")
    sensitivity = float((probability[truth] >= THRESHOLD).mean())
    specificity = float((probability[~truth] < THRESHOLD).mean())
    return HeadMetrics(
        faces=len(truth),
        positives=int(truth.sum()),
        balanced_accuracy=(sensitivity + specificity) / 2.0,
        sensitivity=sensitivity,
        specificity=specificity,
        auc=area_under_roc(probability, truth),
        expected_calibration_error=calibration_error(probability, truth, np.ones(len(truth))),
        balanced_calibration_error=calibration_error(probability, truth, balancing_weights(truth)),
        reliability=reliability(probability, truth),
    )


def area_under_roc(probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """The chance that a positive scores higher than a negative, equal scores counting half (Mann and Whitney)."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    ranks: NDArray[np.float64] = rankdata(probability)
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def balancing_weights(truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A weight a face, [N], by which both classes weigh the same."""
    share = float(truth.mean())
    return np.asarray(np.where(truth, 0.5 / share, 0.5 / (1.0 - share)), np.float64)


def calibration_error(
    probability: NDArray[np.float64], truth: NDArray[np.bool_], weights: NDArray[np.float64]
) -> float:
    """Expected calibration error: the bins' mean |probability - share of positives|, weighted.

    Source: Guo et al. 2017, Eq. 3, for the probability of the worse class, over `BINS` bins.
    """
    bins = _bin_of(probability)
    gaps = np.bincount(bins, weights * (probability - truth), BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def reliability(probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    """What is said beside what is so, in bins of the probability."""
    bins, weights = _bin_of(probability), balancing_weights(truth)
    rows = []
    for number in range(BINS):
        inside = bins == number
        some = bool(inside.any())
        rows.append(
            ReliabilityBin(
                lower=number / BINS,
                upper=(number + 1) / BINS,
                faces=int(inside.sum()),
                mean_probability=float(probability[inside].mean()) if some else None,
                positive_share=float(truth[inside].mean()) if some else None,
                balanced_share=float(np.average(truth[inside], weights=weights[inside])) if some else None,
            )
        )
    return tuple(rows)


def _bin_of(probability: NDArray[np.float64]) -> NDArray[np.intp]:
    """The bin of every probability, 0 to BINS - 1."""
    edges = np.arange(1, BINS) / BINS
    return np.searchsorted(edges, probability, side="right")
