"""A recogniser as ONNX files: faces to embeddings for the factory, and faces to qualities for those who score."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from labelers.faces import SIDE
from training.recognition.model import prepare
from training.scoring.onnx_file import INPUT, TOLERANCE, ExportError, encode_onnx

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from training.recognition.model import Recogniser

EMBEDDING, QUALITY = "embedding", "quality"
"""The output of either file."""


class QualityScorer(nn.Module):
    """Faces to what the regression layer says of them.

    Attributes:
        model: the recogniser.
    """

    def __init__(self, model: Recogniser) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Faces uint8 [N, 112, 112, 3], RGB, aligned, to qualities [N]."""
        qualities: Tensor = self.model(images)[1]
        return qualities


def embedding_to_onnx(backbone: nn.Module, notes: Mapping[str, str] | None = None) -> bytes:
    """Export a backbone and check the result against it.

    Args:
        backbone: float32 [N, 3, 112, 112] to embeddings [N, D].
        notes: what the file's metadata tells of it.

    Returns:
        An ONNX model: `images` float32 [N, 3, 112, 112], as the backbone wants them (one that was trained here: RGB,
        (level - 127.5) / 127.5), to `embedding` float32 [N, D], not normalised, for any N. The same weights give the
        same bytes.

    Raises:
        ExportError: if an embedding's direction differs by more than 1e-4 from what PyTorch gives.
    """
    backbone = copy.deepcopy(backbone).cpu().float().eval().to(memory_format=torch.contiguous_format)
    faces = prepare(torch.from_numpy(_faces(3))).contiguous()
    encoded = encode_onnx(backbone, faces[:2], [EMBEDDING], "recogniser", notes)
    _check(encoded, backbone, EMBEDDING, faces)
    return encoded


def quality_to_onnx(model: Recogniser, notes: Mapping[str, str] | None = None) -> bytes:
    """Export the scorer and check the result against it.

    Args:
        model: the recogniser.
        notes: what the file's metadata tells of it.

    Returns:
        An ONNX model: `images` uint8 [N, 112, 112, 3] RGB to `quality` float32 [N], for any N. The same weights give
        the same bytes.

    Raises:
        ExportError: if a quality differs by more than 1e-4 of the largest from what PyTorch gives.
    """
    scorer = QualityScorer(copy.deepcopy(model)).cpu().float().eval().to(memory_format=torch.contiguous_format)
    faces = torch.from_numpy(_faces(3))
    encoded = encode_onnx(scorer, faces[:2], [QUALITY], "cr_fiqa", notes)
    _check(encoded, scorer, QUALITY, faces)
    return encoded


def _check(encoded: bytes, module: nn.Module, output: str, faces: Tensor) -> None:
    """Compare an ONNX model with PyTorch, on one face and on several, up to the size of what comes out."""
    session = onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    for count in (1, len(faces)):
        with torch.no_grad():
            wanted = module(faces[:count]).numpy()
        (found,) = session.run([output], {INPUT: faces[:count].numpy()})
        size = max(1.0, float(np.abs(wanted).max()))
        difference = float(np.abs(found - wanted).max()) / size if found.shape == wanted.shape else float("inf")
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the ONNX file's {output} {list(found.shape)} differs from PyTorch's {list(wanted.shape)} by "
                f"{difference:.2g} of the largest value (allowed: {TOLERANCE:g}): the installed torch, onnxscript and "
                "onnxruntime do not fit"
            )


def _faces(count: int) -> NDArray[np.uint8]:
    """Pictures uint8 [N, 112, 112, 3], smooth and noisy."""
    random = np.random.default_rng(count)
    coarse = np.kron(random.normal(128.0, 60.0, (count, 7, 7, 3)), np.ones((1, SIDE // 7, SIDE // 7, 1)))
    return np.clip(coarse + random.normal(0.0, 30.0, coarse.shape), 0, 255).astype(np.uint8)
