"""The loss of CR-FIQA, from cosines: margins, how near the own and the nearest other centre are, and their ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from labelers.anchors.similarities import EPSILON, PLAIN_FLOOR
from training.recognition.config import Margin, Target

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_SINE = 1e-4
"""Below it an embedding lies on its centre, where the slope of the sine has no bound."""


def add_margin(cosines: Tensor, kind: Margin, margin: float) -> Tensor:
    """The cosines with their own centres, made harder.

    Args:
        cosines: [N], within [-1, 1].
        kind: arcface: cos(theta + m), CR-FIQA Eq. 1. cosface: cos(theta) - m.
        margin: m, in radians or as a cosine.
    """
    if kind is Margin.COSFACE:
        return cosines - margin
    sines = (1.0 - cosines.square()).clamp(min=_LEAST_SINE**2).sqrt()
    turn = cosines.new_tensor(margin)
    return cosines * turn.cos() - sines * turn.sin()


def regression_target(ccs: Tensor, nnccs: Tensor, target: Target) -> Tensor:
    """What the regression layer is to say of every image; no gradient passes.

    Args:
        ccs: cosine with the own centre [N], CR-FIQA Eq. 2.
        nnccs: cosine with the nearest other centre [N], Eq. 3.
        target: certainty_ratio: Eq. 4. plain_ratio: the released code's, floored. ccs: CCS-FIQA of the ablation.
    """
    own, other = ccs.detach(), nnccs.detach()
    if target is Target.CCS:
        return own
    if target is Target.PLAIN_RATIO:
        return own / other.clamp(min=PLAIN_FLOOR)
    return own / (other + 1.0 + EPSILON)


def regression_loss(qualities: Tensor, targets: Tensor, threshold: float) -> Tensor:
    """Smooth L1 of every image [N], CR-FIQA Eq. 5.

    Args:
        qualities: what the regression layer says [N].
        targets: what it should say [N].
        threshold: beta, where the square becomes a straight line.
    """
    return functional.smooth_l1_loss(qualities, targets, reduction="none", beta=threshold)


def unit(vectors: Tensor) -> Tensor:
    """Vectors [N, D] of length 1, in float32 or better."""
    return functional.normalize(vectors if vectors.dtype == torch.float64 else vectors.float())
