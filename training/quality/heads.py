"""The two networks that are trained together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from training.quality.model import log_factors

if TYPE_CHECKING:
    from training.quality.model import MergedFactors, QualityModel


class Heads(nn.Module):
    """The model, and the merged-factor network behind its factors.

    Attributes:
        model: image to joint distribution.
        merged: factors to quality; None where nothing uses it.
    """

    def __init__(self, model: QualityModel, merged: MergedFactors | None) -> None:
        super().__init__()
        self.model = model
        self.merged = merged

    def forward(self, images: Tensor, flip: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Joint distribution and merged-factor distribution.

        Args:
            images: uint8 [N, 112, 112, 3].
            flip: bool [N].

        Returns:
            Log-probabilities [N, 360], and probabilities [N, 5] that pass no gradient to the model.
        """
        log_joint = self.model(images, flip)
        if self.merged is None:
            return log_joint, None
        with torch.autocast(log_joint.device.type, enabled=False):
            factors = log_factors(log_joint.detach()).exp()  # [N, 72]
            return log_joint, self.merged(factors)
