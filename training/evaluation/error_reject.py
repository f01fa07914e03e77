"""Error-reject curves: how the false non-match rate falls when the pairs of lowest quality are rejected.

Two protocols. `fixed`, the field's: genuine pairs are rejected, the threshold is set once on all pairs. `cr_fiqa`, that
of CR-FIQA's published script: genuine and impostor pairs are rejected together, and the threshold is set anew at every
rate, by which even a random quality looks good.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.pairs.ranked_pairs import Protocol, RankedPairs, as_floats, as_quality, reject_genuine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from training.evaluation.pairs.ranked_pairs import Curve

__all__ = [
    "AreaRule",
    "Protocol",
    "RankedPairs",
    "area",
    "curve",
    "fixed_curve",
    "fixed_curves",
    "fnmr_at",
    "threshold",
]

SLACK = 1e-9
"""A limit of an area is compared with this slack: 0.3 is not 6 · 0.05 in floating point."""


class AreaRule(StrEnum):
    """How the area under a curve is taken."""

    TRAPEZOID = "trapezoid"
    """Straight lines between the points (CR-FIQA's published script)."""
    STEP = "step"
    """A rate holds from its point to the next one: exact for protocol `fixed` (the fiqat toolkit)."""


def curve(
    similarity: ArrayLike,
    same: ArrayLike,
    quality: ArrayLike,
    fmr: float,
    protocol: Protocol | str = Protocol.FIXED,
) -> Curve:
    """The error-reject curve of a quality.

    `fixed`: FNMR is the share of the kept genuine pairs whose similarity is below the threshold; one point for every
    distinct quality of a genuine pair, and a last point (1, 0). `cr_fiqa`: rates 0, 0.05 … 0.95; FNMR is the share of
    the kept genuine pairs whose similarity is at the threshold or below it, NaN at a rate that keeps no pairs of one
    of the kinds.

    For several qualities or false match rates of the same pairs `RankedPairs` orders the pairs only once.

    Args:
        similarity: [P], larger = more alike; float32 is not widened.
        same: [P], true where both images show one person.
        quality: [P], of the pair: the smaller of its two images'.
        fmr: false match rate that sets the threshold, over 0 and at most 1.
        protocol: a Protocol value.

    Returns:
        Shares rejected [K], ascending from 0, and false non-match rates [K].

    Raises:
        ValueError: wrong shapes, a NaN, or no genuine or no impostor pairs.
    """
    return RankedPairs.build(similarity, same).curves(quality, [fmr], protocol)[0]


def threshold(similarity: ArrayLike, same: ArrayLike, fmr: float) -> float:
    """The similarity of a pair whose false match rate is nearest to the one wanted.

    FMR(t) is the share of impostor pairs with a similarity of t or more. Of the pairs (genuine and impostor) whose
    FMR is equally near the smallest similarity is taken (CR-FIQA's published script).

    Args:
        similarity: [P], larger = more alike.
        same: [P], true where both images show one person.
        fmr: over 0 and at most 1.

    Raises:
        ValueError: wrong shapes, a NaN, or no genuine or no impostor pairs.
    """
    return RankedPairs.build(similarity, same).thresholds([fmr])[0]


def fixed_curve(similarity: ArrayLike, quality: ArrayLike, threshold: float) -> Curve:
    """The curve of protocol `fixed` from genuine pairs alone, for a threshold that is known.

    Args:
        similarity: of the genuine pairs [G].
        quality: of the genuine pairs [G].
        threshold: the similarity below which a pair is not matched.

    Returns:
        As `curve`.

    Raises:
        ValueError: wrong shapes, a NaN, or no pairs.
    """
    return fixed_curves(similarity, quality, [threshold])[0]


def fixed_curves(similarity: ArrayLike, quality: ArrayLike, thresholds: Sequence[float]) -> list[Curve]:
    """`fixed_curve` for several thresholds, with one sort; the curves share their shares rejected."""
    alike = as_floats(similarity, "similarity")
    values = as_quality(quality, len(alike))
    if len(alike) == 0:
        raise ValueError("there are no genuine pairs, so there is no false non-match rate")
    if np.isnan(np.asarray(thresholds, np.float64)).any():
        raise ValueError("a threshold is NaN")
    return reject_genuine(alike, values, thresholds)


def area(
    rejection: ArrayLike,
    fnmr: ArrayLike,
    upto: float,
    rule: AreaRule | str = AreaRule.TRAPEZOID,
    normalised: bool = True,
) -> float:
    """The area under an error-reject curve from 0 to a share rejected; smaller is better.

    A limit between two points is met on the straight line between them (`trapezoid`) or on the step (`step`).

    Args:
        rejection: shares rejected [K], ascending from 0.
        fnmr: false non-match rates [K].
        upto: the limit, with a slack of 1e-9; 0.3 for the partial area (pAUC), 0.95 for the whole one (AUC).
        rule: an AreaRule value.
        normalised: divide by FNMR(0) · upto, so that rejecting pairs at random gives about 1; NaN where FNMR(0) is 0.

    Raises:
        ValueError: not a curve, or it ends before the limit.
    """
    x, y = _check_curve(rejection, fnmr)
    if not 0 < upto <= x[-1] + SLACK:
        raise ValueError(f"the limit {upto} has to be over 0 and at most the curve's last point, {x[-1]:.6g}")
    raw = _integrate(x, y, upto, AreaRule(rule))
    if not normalised:
        return raw
    return raw / (float(y[0]) * upto) if y[0] != 0 else float("nan")


def fnmr_at(rejection: ArrayLike, fnmr: ArrayLike, rates: ArrayLike) -> NDArray[np.float64]:
    """The false non-match rates [R] of a step curve at the shares rejected `rates` [R].

    Raises:
        ValueError: not a curve, or a rate outside it.
    """
    x, y = _check_curve(rejection, fnmr)
    wanted = np.asarray(rates, np.float64)
    if not bool(((wanted >= 0) & (wanted <= x[-1] + SLACK)).all()):
        raise ValueError(f"rates have to lie between 0 and the curve's last point, {x[-1]:.6g}")
    return y[np.searchsorted(x, wanted + SLACK, side="right") - 1]


def _integrate(x: NDArray[np.float64], y: NDArray[np.float64], upto: float, rule: AreaRule) -> float:
    """The raw area."""
    inside = int(np.searchsorted(x, upto + SLACK, side="right"))
    ends, heights = np.minimum(x[:inside], upto), y[:inside]
    if rule is AreaRule.STEP:
        return float(np.dot(heights, np.diff(ends, append=upto)))
    if inside < len(x) and ends[-1] < upto - SLACK:
        share = (upto - ends[-1]) / (x[inside] - ends[-1])
        heights = np.append(heights, heights[-1] + share * (y[inside] - heights[-1]))
        ends = np.append(ends, upto)
    return float(np.trapezoid(heights, ends))


def _check_curve(rejection: ArrayLike, fnmr: ArrayLike) -> Curve:
    """The curve as float64."""
    x, y = np.asarray(rejection, np.float64), np.asarray(fnmr, np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) == 0:
        raise ValueError(f"a curve is two vectors of one length, not {x.shape} and {y.shape}")
    if x[0] != 0 or not bool((x[1:] >= x[:-1]).all()):
        raise ValueError("the shares rejected of a curve have to ascend from 0")
    return x, y
