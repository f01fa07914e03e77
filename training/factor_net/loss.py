"""The loss of the three heads, with rare classes kept from being ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from training.factor_net.config import Imbalance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def class_weights(truth: NDArray[np.bool_]) -> Tensor:
    """Weights by which both classes of a head count the same and the mean weight is 1.

    Args:
        truth: bool [N, 3]; both classes of each column must occur.

    Returns:
        float32 [2, 3]: N / (2 N_negative) and N / (2 N_positive).
    """
    positive = torch.from_numpy(truth).double().mean(0)  # [3]
    if not bool(((positive > 0) & (positive < 1)).all()):
        raise ValueError(f"every head needs both classes, but the positive shares are {positive.tolist()}")
    return (0.5 / torch.stack([1.0 - positive, positive])).float()


def head_loss(logits: Tensor, truth: Tensor, weights: Tensor, imbalance: Imbalance, gamma: float) -> Tensor:
    """The mean over faces and heads of the weighted cross-entropy, or of the focal loss.

    Args:
        logits: [N, 3].
        truth: float [N, 3], 0 or 1.
        weights: [2, 3] of `class_weights`; not used by the focal loss.
        imbalance: which loss.
        gamma: exponent of the focal loss, (1 - p_t)^gamma (-log p_t) (Lin et al. 2017, Eq. 4).
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")  # [N, 3], -log p_t
    if imbalance is Imbalance.FOCAL:
        return ((-torch.expm1(-entropy)).clamp_min(0.0).pow(gamma) * entropy).mean()
    return (entropy * torch.where(truth > 0.5, weights[1], weights[0])).mean()
