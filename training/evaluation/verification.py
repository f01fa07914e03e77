"""Accuracy of telling pairs of one person from pairs of two, by cross-validation over folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDS = 10
"""Folds of the LFW protocol."""

THRESHOLDS = np.arange(0, 4, 0.01)
"""Squared Euclidean distances that are tried: float64 [400] (InsightFace's evaluation)."""


class VerificationPairsError(ValueError):
    """No accuracy can be measured on these pairs; says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How often pairs that had no part in choosing the threshold are told right.

    Attributes:
        mean: mean share over the folds.
        std: standard deviation over the folds, divided by their number and not by one less, as InsightFace prints it.
        folds: share of each fold, float64 [F].
        squared_distances: the threshold chosen for each fold, float64 [F].
    """

    mean: float
    std: float
    folds: NDArray[np.float64]
    squared_distances: NDArray[np.float64]

    @property
    def threshold(self) -> float:
        """The mean threshold over the folds, as a cosine similarity."""
        return 1.0 - float(self.squared_distances.mean()) / 2.0


def measure_accuracy(
    similarity: NDArray[np.floating[Any]], same: NDArray[np.bool_], folds: NDArray[np.integer[Any]] | None = None
) -> Accuracy:
    """Choose a threshold on all folds but one, and measure the accuracy on that one, for every fold.

    A pair is taken for one person where the squared Euclidean distance of its unit embeddings, 2 - 2 s, is below the
    threshold. Of thresholds that are equally good on the other folds the smallest is taken (InsightFace's evaluation).

    Args:
        similarity: cosine similarity of the pairs [P].
        same: whether a pair shows one person [P].
        folds: number of each pair's fold [P]; without it ten contiguous folds of nearly equal size, of which the first
            P mod 10 have one pair more (scikit-learn's `KFold` without shuffling).

    Raises:
        VerificationPairsError: wrong shapes, a similarity that is NaN, or fewer than two folds.
    """
    numbers = split_evenly(len(similarity)) if folds is None else folds
    _check(similarity, same, numbers)
    _, place, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    distance = 2.0 - 2.0 * similarity.astype(np.float64)
    first = np.searchsorted(THRESHOLDS, distance, side="right")  # the first threshold that is over the distance
    changes = np.zeros((len(sizes), len(THRESHOLDS) + 1), np.int64)
    np.add.at(changes, (place, first), np.where(same, 1, -1))  # from there on a genuine pair is right, an impostor not
    impostors = np.bincount(place[~same], minlength=len(sizes))
    right = (impostors[:, None] + changes.cumsum(axis=1))[:, :-1]  # [F, 400] pairs told right at each threshold
    best = (right.sum(axis=0) - right).argmax(axis=1)
    accuracy = right[np.arange(len(sizes)), best] / sizes
    return Accuracy(
        mean=float(accuracy.mean()), std=float(accuracy.std()), folds=accuracy, squared_distances=THRESHOLDS[best]
    )


def split_evenly(pairs: int, folds: int = FOLDS) -> NDArray[np.intp]:
    """The fold of each pair [P]: contiguous, the first P mod F of them one pair longer."""
    sizes = np.full(folds, pairs // folds)
    sizes[: pairs % folds] += 1
    return np.repeat(np.arange(folds), sizes)


def _check(similarity: NDArray[np.floating[Any]], same: NDArray[np.bool_], folds: NDArray[np.integer[Any]]) -> None:
    if similarity.ndim != 1 or same.shape != similarity.shape or folds.shape != similarity.shape:
        raise VerificationPairsError(
            f"similarity {list(similarity.shape)}, same {list(same.shape)} and folds {list(folds.shape)} have to be [P]"
        )
    if same.dtype != np.bool_:
        raise VerificationPairsError(f"same is {same.dtype}, and has to be bool")
    lost = np.flatnonzero(np.isnan(similarity))
    if len(lost):
        raise VerificationPairsError(
            f"the similarity of {len(lost)} pairs is NaN, the first is pair {lost[0]}: leave them out, and say so"
        )
    if len(np.unique(folds)) < 2:
        raise VerificationPairsError(
            f"{len(similarity)} pairs in {len(np.unique(folds))} folds: a threshold has to be chosen on other pairs"
            " than it is tried on"
        )
