"""The iresnet50 of ArcFace's code (6.3 GMAC an image at 112 x 112) with random weights, as ONNX: for timing alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from training.recognition.config import Backbone
from training.recognition.model import build_backbone

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def iresnet50() -> nn.Module:
    """Images [N, 3, 112, 112] to embeddings [N, 512]; the same weights every time."""
    torch.manual_seed(1)
    return build_backbone(Backbone.IRESNET50).eval()


def write_iresnet50(path: Path) -> None:
    """Write the network."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.onnx.export(
        iresnet50(), (torch.zeros(2, 3, 112, 112),), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
    )
    assert program is not None
    program.save(path)
