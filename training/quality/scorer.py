"""The networks that are trained together, and what a score is made of: from pixels to every number of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from data_manifests.tables.stages import QUALITY_CLASSES, Factor
from training.prompts import FACTOR_SIZES
from training.quality.config import Score
from training.quality.model import log_factors, log_marginals, quality_score

if TYPE_CHECKING:
    from training.quality.model import MergedFactors, QualityModel

OUTPUTS = ("quality", "p_quality", *(f"p_{factor}" for factor in Factor))
"""The outputs in their order; `quality` [N], the others [N, classes] from worst to best."""

OUTPUT_SIZES = (1, len(QUALITY_CLASSES), *FACTOR_SIZES)
"""Numbers an image in every output."""


class TrainedNetworks(nn.Module):
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


class Scorer(nn.Module):
    """Quality and the probabilities of every class, so that one sees why an image is poor.

    Attributes:
        model: the trained model.
        merged: the merged-factor network, where the score is taken from it.
        score: which distribution `quality` and `p_quality` are taken from.
    """

    def __init__(
        self, model: QualityModel, merged: MergedFactors | None = None, score: Score | str = Score.QUALITY
    ) -> None:
        super().__init__()
        self.score = Score(score)
        if self.score is Score.MERGED and merged is None:
            raise ValueError("a score from the merged factors needs the merged-factor network, which was not saved")
        self.model = model
        self.merged = merged if self.score is Score.MERGED else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Score faces.

        Args:
            images: uint8 [N, 112, 112, 3], RGB, aligned.

        Returns:
            float32, in the order of `OUTPUTS`.
        """
        log_joint = self.model(images)  # [N, 360]
        marginals = log_marginals(log_joint)
        p_quality = marginals.quality.exp() if self.merged is None else self.merged(log_factors(log_joint).exp())
        return quality_score(p_quality), p_quality, *(marginals.of(factor).exp() for factor in Factor)


def full_float32(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Convolutions by fixed algorithms without tensor-float on a GPU, so that scores are those of the CPU."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    flags: contextlib.AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags
