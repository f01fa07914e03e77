"""One temperature a head, so that probabilities mean what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLDEST, HOTTEST = 0.1, 10.0
"""The temperatures that are considered; perfectly told data would ask for 0."""


def fit_temperature(logits: NDArray[np.float64], truth: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    """The temperature with the smallest weighted negative log-likelihood (Guo et al. 2017, section 4.2).

    It moves no face across 0.5 and changes no order.

    Args:
        logits: [N].
        truth: bool [N].
        weights: [N], as in training: the same classes must weigh the same.
    """
    signed = np.where(truth, logits, -logits)

    def cost(logarithm: float) -> float:
        return float(np.average(np.logaddexp(0.0, -signed / np.exp(logarithm)), weights=weights))

    found = minimize_scalar(cost, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))
