"""The iresnet50 of ArcFace's code (6.3 GMAC an image at 112 x 112) with random weights, as ONNX: for timing alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from training.backbones.names import Backbone
from training.backbones.networks import build_backbone

if TYPE_CHECKING:
    from pathlib import Path


def iresnet50() -> nn.Module:
    """Images [N, 3, 112, 112] to embeddings [N, 512]; the same weights every time.

    Its layers are normalised by what noise gives, or values would grow from block to block beyond what float16 holds.
    """
    torch.manual_seed(1)
    network = build_backbone(Backbone.IRESNET50)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
            part.momentum = 1.0
    with torch.no_grad():
        network(2 * torch.rand(8, 3, 112, 112) - 1)
    return network.eval()


def write_iresnet50(path: Path) -> None:
    """Write the network."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.onnx.export(
        iresnet50(), (torch.zeros(2, 3, 112, 112),), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
    )
    assert program is not None
    program.save(path)
