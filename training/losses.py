"""Formulas of CLIB-FIQA, as printed (recipe `paper`) and as its released code computes them (`released`).

Rows without a label take no part: a quality that is NaN, a class of -1. A batch without any usable row gives a zero
that still back-propagates. Every gradient is finite, at equal and at one-hot distributions too.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from data_manifests.recipes import Recipe

ANCHORS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""What the five levels of quality stand for (CLIB-FIQA section 3.1, below Eq. 2)."""

BETA = 32.0
"""Shape of the soft mapping (Eq. 1) and of the confidence (Eq. 8), as the released code sets it."""

GAMMA = 2.0
"""Focusing parameter of the focal loss (CLIB-FIQA Eq. 5)."""

QUALITY_WEIGHT = 10.0
"""Lambda, the weight of the quality fitting in the whole loss (CLIB-FIQA Eq. 7)."""

SMALLEST_CONFIDENCE = 0.5
"""Epsilon of CLIB-FIQA Eq. 8."""

DWA_TEMPERATURE = 2.0
"""T of dynamic weight averaging (Liu et al. 2019, section 3.2; the released CLIB-FIQA code)."""

_DWA_EPOCHS = 2
_LOWEST_LOG = -1e4

Values: TypeAlias = Tensor | NDArray[np.floating] | NDArray[np.integer] | float


class Reduction(StrEnum):
    """What becomes of the rows' losses."""

    MEAN = "mean"
    """Their mean over the rows that have a label; 0 where there is none."""
    SUM = "sum"
    """Their sum over the rows that have a label."""
    NONE = "none"
    """One value a row; NaN where there is no label."""


def soft_map(q: Values, beta: float = BETA, rho: Values | None = None, recipe: Recipe | str = Recipe.PAPER) -> Tensor:
    """Spread a quality over the five levels (CLIB-FIQA Eq. 1).

    Args:
        q: quality [...], 0 to 1; NaN where there is none.
        beta: the larger, the narrower.
        rho: confidence [...] that multiplies beta (CLIB-FIQA section 3.3).
        recipe: `paper` weighs by exp(-beta |q - a|), `released` by exp(-beta (q - a)^2).

    Returns:
        Probabilities [..., 5] of the type of `q`; NaN where `q` is.
    """
    values = _float_tensor(q)
    # A tensor of the anchors would have to be sent to the device, for which a GPU's whole queue is waited for.
    distance = torch.stack([values - anchor for anchor in ANCHORS], dim=-1)  # [..., 5]
    distance = distance.abs() if Recipe(recipe) is Recipe.PAPER else distance.square()
    sharpness: Tensor | float = beta
    if rho is not None:
        sharpness = beta * _float_tensor(rho).to(values)[..., None]
    return functional.softmax(-sharpness * distance, dim=-1)


def emd(
    p: Values,
    target: Values,
    recipe: Recipe | str = Recipe.PAPER,
    reduction: Reduction | str = Reduction.MEAN,
) -> Tensor:
    """Earth mover's distance of two distributions over ordered levels (CLIB-FIQA Eq. 4).

    Args:
        p: probabilities [N, L].
        target: probabilities [N, L]; a row with NaN takes no part.
        recipe: `paper` sums the absolute differences of the cumulative distributions; `released` takes the root of
            their mean square, here with a gradient of 0 where both are equal (the released code's is NaN).
        reduction: what becomes of the rows' distances.

    Returns:
        A scalar, or [N].
    """
    p, target = _float_tensor(p), _float_tensor(target)
    usable = ~target.isnan().any(dim=-1)
    difference = (p - torch.where(usable[..., None], target, p.detach())).cumsum(dim=-1)  # [N, L]
    if Recipe(recipe) is Recipe.PAPER:
        distance = difference.abs().sum(dim=-1)
    else:
        distance = _safe_sqrt(difference.square().mean(dim=-1))
    return _reduce(distance, usable, Reduction(reduction))


def focal(
    log_p: Values,
    target: Values,
    gamma: float = GAMMA,
    recipe: Recipe | str = Recipe.PAPER,
    reduction: Reduction | str = Reduction.MEAN,
) -> Tensor:
    """Focal loss of one factor (CLIB-FIQA Eq. 5 and 6, without the mean over the factors).

    Args:
        log_p: log-probabilities [N, C].
        target: classes [N]; a row of -1 takes no part.
        gamma: the larger, the less counts what is already told well.
        recipe: `paper` focuses every row by itself; `released` feeds the probabilities through a second softmax and
            focuses the batch's mean cross-entropy once.
        reduction: what becomes of the rows' losses; `released` has the mean alone.

    Returns:
        A scalar, or [N].

    Raises:
        ValueError: if another reduction than the mean is asked of the released recipe.
    """
    log_p = _float_tensor(log_p)
    target = torch.as_tensor(target, device=log_p.device)
    usable = target >= 0
    index = target.clamp_min(0).long()[..., None]
    # Beyond this no float64 tells the probability from 0, and infinity would make the gradient NaN.
    log_p = log_p.clamp_min(_LOWEST_LOG)
    if Recipe(recipe) is Recipe.PAPER:
        entropy = -log_p.gather(-1, index)[..., 0]
        return _reduce(_focus(entropy, gamma), usable, Reduction(reduction))
    if Reduction(reduction) is not Reduction.MEAN:
        raise ValueError("the released focal loss is made of the batch's mean: it has no value for a single row")
    entropy = -functional.log_softmax(log_p.exp(), dim=-1).gather(-1, index)[..., 0]
    return _focus(_reduce(entropy, usable, Reduction.MEAN), gamma)


def js_divergence(p: Values, q: Values, recipe: Recipe | str = Recipe.PAPER) -> Tensor:
    """Jensen-Shannon divergence of two distributions, in nats (CLIB-FIQA Eq. 9).

    Args:
        p: probabilities [..., L].
        q: probabilities [..., L].
        recipe: `paper` is the divergence itself, 0 to ln 2; `released` puts both through a softmax again and takes
            the divergences of the middle from each instead of each from the middle.

    Returns:
        [...]; NaN where an input is.
    """
    p, q = _float_tensor(p), _float_tensor(q)
    kind = torch.promote_types(p.dtype, q.dtype)
    p, q = p.double(), q.double()  # near equality all digits of single precision cancel
    if Recipe(recipe) is Recipe.PAPER:
        middle = (p + q) / 2
        js = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    else:
        log_p, log_q = functional.log_softmax(p, dim=-1), functional.log_softmax(q, dim=-1)
        middle = (log_p.exp() + log_q.exp()) / 2
        js = (middle * (middle.log() - (log_p + log_q) / 2)).sum(dim=-1)
    return js.clamp_min(0.0).to(kind)  # rounding may leave -1e-17


def confidence(js: Values, beta: float = BETA) -> Tensor:
    """How far the factors justify the quality (CLIB-FIQA Eq. 8): 1 / (1 + exp(beta d)) + 0.5.

    Args:
        js: divergence d [...], 0 or more.
        beta: the larger, the sooner confidence falls.

    Returns:
        [...], from 1 (d = 0) down to 0.5.
    """
    return torch.sigmoid(-beta * _float_tensor(js)) + SMALLEST_CONFIDENCE


def dynamic_weights(averages: Values, temperature: float = DWA_TEMPERATURE) -> Tensor:
    """The tasks' weights in the next epoch by dynamic weight averaging (Liu et al. 2019, Eq. 7 and 8).

    Args:
        averages: [E, K], the mean loss of each of K tasks in every epoch so far; positive.
        temperature: the larger, the more alike the weights.

    Returns:
        [K], with the sum K: 1 in the first two epochs, then the softmax of the ratio of the last two epochs' means.
    """
    means = _float_tensor(averages)
    epochs, tasks = means.shape
    if epochs < _DWA_EPOCHS:
        return means.new_ones(tasks)
    return tasks * functional.softmax(means[-1] / means[-2] / temperature, dim=-1)


def _float_tensor(values: Values) -> Tensor:
    """A tensor of at least single precision: half precision is too coarse for sums and logarithms."""
    tensor = torch.as_tensor(values)
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _reduce(rows: Tensor, usable: Tensor, reduction: Reduction) -> Tensor:
    """Reduce the rows that may take part; the others pass no gradient."""
    if reduction is Reduction.NONE:
        return torch.where(usable, rows, torch.nan)
    total = torch.where(usable, rows, 0.0).sum()
    return total if reduction is Reduction.SUM else total / usable.sum().clamp_min(1)


def _focus(entropy: Tensor, gamma: float) -> Tensor:
    """(1 - exp(-CE))^gamma CE; at CE = 0 its gradient stays finite for every gamma."""
    missed = -torch.expm1(-entropy)  # 1 - p
    some = missed > 0
    weight = torch.where(some, torch.where(some, missed, 1.0).pow(gamma), 0.0**gamma)
    return weight * entropy


def _safe_sqrt(x: Tensor) -> Tensor:
    """The square root, with a gradient of 0 at 0."""
    some = x > 0
    return torch.where(some, torch.where(some, x, 1.0).sqrt(), 0.0)


def _relative_entropy(p: Tensor, q: Tensor) -> Tensor:
    """Kullback-Leibler divergence of p from q over the last axis, where 0 log 0 is 0; q is not 0 where p is not."""
    some = p != 0  # NaN too, so that it stays
    return (p * (torch.where(some, p, 1.0).log() - torch.where(some, q, 1.0).log())).sum(dim=-1)
