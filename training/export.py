"""The trained model for scoring: one module from pixels to every probability, and the same as an ONNX file."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from data_manifests.tables import QUALITY_CLASSES, Factor
from labelers.faces import SIDE
from training.config import Score
from training.model import log_factors, log_marginals, quality_score
from training.onnx_file import INPUT, TOLERANCE, ExportError, encode_onnx
from training.prompts import FACTOR_SIZES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.model import MergedFactors, QualityModel

OUTPUTS = ("quality", "p_quality", *(f"p_{factor}" for factor in Factor))
"""The outputs in their order; `quality` [N], the others [N, classes] from worst to best."""

OUTPUT_SIZES = (1, len(QUALITY_CLASSES), *FACTOR_SIZES)
"""Numbers an image in every output."""


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


def to_onnx(scorer: Scorer) -> bytes:
    """Export a model and check the result against it.

    Args:
        scorer: any mode; it stays as it is.

    Returns:
        An ONNX model: `images` uint8 [N, 112, 112, 3] to `OUTPUTS`, for any N. The same weights give the same bytes.

    Raises:
        ExportError: if an output differs from PyTorch's by more than 1e-4.
    """
    frozen = copy.deepcopy(scorer).cpu().float().eval()
    example = torch.from_numpy(_pictures(2))
    encoded = encode_onnx(frozen, example, OUTPUTS, "quality_model")
    check_equal(encoded, frozen)
    return encoded


def check_equal(encoded: bytes, scorer: Scorer) -> None:
    """Compare an ONNX model with PyTorch on dark and bright, smooth and noisy pictures, one and several.

    Args:
        encoded: the ONNX model.
        scorer: on the CPU, in evaluation mode.

    Raises:
        ExportError: if an output differs by more than 1e-4.
    """
    session = onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    for count in (1, 5):
        images = _pictures(count)
        with torch.no_grad():
            wanted = [output.numpy() for output in scorer(torch.from_numpy(images))]
        for name, right, found in zip(OUTPUTS, wanted, session.run(list(OUTPUTS), {INPUT: images}), strict=True):
            difference = float(np.abs(found - right).max()) if found.shape == right.shape else float("inf")
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"the ONNX file's {name} {list(found.shape)} differs from PyTorch's {list(right.shape)} by "
                    f"{difference:.2g} (allowed: {TOLERANCE:g}): the installed torch, onnxscript and onnxruntime do "
                    "not fit"
                )


def _pictures(count: int) -> NDArray[np.uint8]:
    """Pictures [N, 112, 112, 3] from dark to bright, smooth and noisy."""
    random = np.random.default_rng(count)
    level = np.linspace(20.0, 235.0, count)[:, None, None, None]
    noise = random.normal(0.0, 30.0, (count, SIDE, SIDE, 3))
    coarse = np.kron(random.normal(0.0, 60.0, (count, 7, 7, 3)), np.ones((1, 16, 16, 1)))
    return np.clip(level + noise + coarse, 0, 255).astype(np.uint8)
