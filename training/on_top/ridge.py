"""Ridge regression in closed form from sums of products, which are added up over as many rows as there are.

The sums of N rows of P features and a target are one matrix, float64 [P + 2, P + 2]: the products of every two of the
features, 1 and the target. Whatever a linear function of the features does to these rows follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 4096
"""Rows that are multiplied at a time."""

PENALTIES = tuple(10.0 ** (power / 2) for power in range(-12, 5))
"""What is tried: 1e-6 to 1e2, in units of the variance of one feature, each of which is brought to 1."""

_CONSTANT = 1e-6
"""A feature whose variance is a smaller share of its mean square does not vary: it is rounding, for embeddings are
stored in float16."""


class RidgeError(ValueError):
    """There is nothing to fit; says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What a linear function does to rows that it was not made from.

    Attributes:
        rows: how many.
        r2: the share of the target's variance that it explains.
        correlation: Pearson's, of its values and the target.
    """

    rows: int
    r2: float
    correlation: float


def sum_products(features: NDArray[np.floating[Any]], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The products of N rows, float64 [P + 2, P + 2].

    Args:
        features: [N, P].
        target: float64 [N].
    """
    size = features.shape[1] + 2
    products = np.zeros((size, size))
    rows = np.ones((min(BLOCK, len(features)), size))
    for start in range(0, len(features), BLOCK):
        part = slice(start, start + BLOCK)
        block = rows[: len(features[part])]
        block[:, :-2], block[:, -1] = features[part], target[part]
        products += block.T @ block
    return products


def solve(products: NDArray[np.float64], penalties: tuple[float, ...] = PENALTIES) -> NDArray[np.float64]:
    """The functions that minimise mean squared error + penalty * sum of squared coefficients, one for each penalty.

    The features are compared at unit variance, so that a norm of 20 and a coordinate of 0.04 are punished alike; the
    intercept is not punished. A feature that does not vary has the coefficient 0.

    Args:
        products: float64 [P + 2, P + 2], of two rows or more.
        penalties: K numbers over 0.

    Returns:
        float64 [K, P + 1]: P coefficients of the features as they are, and the intercept.

    Raises:
        RidgeError: if there are fewer than two rows.
    """
    count = products[-2, -2]
    if count < 2:
        raise RidgeError(f"{count:.0f} rows: two at the least are needed")
    means = products[-2] / count  # of the features, 1, and the target
    covariance = products / count - np.outer(means, means)
    variance = np.diag(covariance)[:-2]
    varies = variance > _CONSTANT * np.diag(products)[:-2] / count
    scale = np.where(varies, np.sqrt(np.where(varies, variance, 1.0)), np.inf)  # [P]
    values, vectors = np.linalg.eigh(covariance[:-2, :-2] / np.outer(scale, scale))
    turned = vectors.T @ (covariance[:-2, -1] / scale)
    shrunk = turned / (np.maximum(values, 0.0) + np.array(penalties)[:, None])  # [K, P]
    coefficients = shrunk @ vectors.T / scale
    intercepts = means[-1] - coefficients @ means[:-2]
    return np.column_stack([coefficients, intercepts])


def choose_penalty(parts: NDArray[np.float64]) -> tuple[int, Fit]:
    """The penalty of the least squared error on rows that were not fitted.

    Args:
        parts: float64 [F, P + 2, P + 2], the products of every part of the rows; two parts or more have rows.

    Returns:
        Its place in PENALTIES, and how the functions that were made without a part do on that part, over all parts.

    Raises:
        RidgeError: if fewer than two parts have rows.
    """
    parts = parts[parts[:, -2, -2] > 0]
    if len(parts) < 2:
        raise RidgeError("the people with a certainty ratio are all in one fold: more of them are needed")
    whole = parts.sum(axis=0)
    made = [solve(whole - part) for part in parts]
    errors = [sum(_squared_error(part, found[k]) for part, found in zip(parts, made, strict=True)) for k in _PLACES]
    best = int(np.argmin(errors))
    joined = sum(_value_products(part, found[best]) for part, found in zip(parts, made, strict=True))
    return best, _describe(np.asarray(joined))


def judge(products: NDArray[np.float64], function: NDArray[np.float64]) -> Fit:
    """How a function, float64 [P + 1], does on the rows with these products."""
    return _describe(_value_products(products, function))


_PLACES = range(len(PENALTIES))


def _squared_error(products: NDArray[np.float64], function: NDArray[np.float64]) -> float:
    """The sum of squared errors over all rows."""
    signed = np.append(-function, 1.0)
    return float(signed @ products @ signed)


def _value_products(products: NDArray[np.float64], function: NDArray[np.float64]) -> NDArray[np.float64]:
    """The products of every two of: the function's values, 1, and the target, float64 [3, 3]."""
    turn = np.zeros((3, len(products)))
    turn[0, :-1], turn[1, -2], turn[2, -1] = function, 1.0, 1.0
    return np.asarray(turn @ products @ turn.T)


def _describe(products: NDArray[np.float64]) -> Fit:
    """From the products of every two of: values, 1, and the target."""
    count = products[1, 1]
    means = products[1] / count
    covariance = products / count - np.outer(means, means)
    error = (products[0, 0] - 2 * products[0, 2] + products[2, 2]) / count
    spread = covariance[0, 0] * covariance[2, 2]
    return Fit(
        rows=round(count),
        r2=float(1.0 - error / covariance[2, 2]) if covariance[2, 2] > 0 else 0.0,
        correlation=float(covariance[0, 2] / np.sqrt(spread)) if spread > 0 else 0.0,
    )
