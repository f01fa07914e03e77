"""One threshold and one temperature a head, so that 0.5 parts the classes and probabilities mean what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLDEST, HOTTEST = 0.1, 10.0
"""The temperatures that are considered; perfectly told data would ask for 0."""


def find_threshold(logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """The logit that parts the two classes with the highest balanced accuracy (Youden 1950).

    It lies in the middle between two neighbouring logits; of equally good places, where the gap is widest.

    Args:
        logits: [N].
        truth: bool [N]; both classes must occur.

    Returns:
        From this logit on a face is of the worse class; 0 where no place is better than chance.
    """
    values = np.unique(logits)  # ascending
    positives, negatives = np.sort(logits[truth]), np.sort(logits[~truth])
    missed = np.searchsorted(positives, values[1:])  # when the threshold lies below each of these
    passed = np.searchsorted(negatives, values[1:])
    # Balanced accuracy, less 1/2, in whole numbers, so that equal ones are equal.
    gain = passed * len(positives) - missed * len(negatives)
    if not len(gain) or gain.max() <= 0:
        return 0.0
    best = np.flatnonzero(gain == gain.max())
    place = best[np.argmax(np.diff(values)[best])]
    return float((values[place] + values[place + 1]) / 2.0)


def fit_temperature(logits: NDArray[np.float64], truth: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    """The temperature with the smallest weighted negative log-likelihood (Guo et al. 2017, section 4.2).

    It moves no face across 0.5 and changes no order.

    Args:
        logits: [N], less the threshold.
        truth: bool [N].
        weights: [N], as in training: the same classes must weigh the same.
    """
    signed = np.where(truth, logits, -logits)

    def cost(logarithm: float) -> float:
        return float(np.average(np.logaddexp(0.0, -signed / np.exp(logarithm)), weights=weights))

    found = minimize_scalar(cost, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))
