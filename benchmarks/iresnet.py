"""The iresnet50 of ArcFace's code (6.3 GMAC an image at 112 x 112) with random weights, as ONNX: for timing alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

LAYERS = (3, 4, 14, 3)
WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """Normalise, convolve, normalise, PReLU, convolve with the stride, normalise; added to its input."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(before, eps=1e-5),
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after, eps=1e-5),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after, eps=1e-5),
        )
        same = stride == 1 and before == after
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after, eps=1e-5))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, before, H, W] to [N, after, H / stride, W / stride]."""
        return self.body(x) + self.shortcut(x)


def iresnet50() -> nn.Sequential:
    """Images [N, 3, 112, 112] to embeddings [N, 512]."""
    parts: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)]
    before = 64
    for count, width in zip(LAYERS, WIDTHS, strict=True):
        for place in range(count):
            parts.append(Block(before, width, 2 if place == 0 else 1))
            before = width
    parts += [nn.BatchNorm2d(512), nn.Flatten(), nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)]
    return nn.Sequential(*parts)


def write_iresnet50(path: Path) -> None:
    """Write the network, the same weights every time."""
    torch.manual_seed(1)
    model = iresnet50().eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.onnx.export(
        model, (torch.zeros(2, 3, 112, 112),), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
    )
    assert program is not None
    program.save(path)
