"""The residual networks of ArcFace's code, with the names of weights that its published checkpoints have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

WIDTHS = (64, 128, 256, 512)
"""Channels of the four stages; each begins by halving height and width."""

_MAP = 7
"""Height and width of the last map, of a face of 112 x 112."""


class Block(nn.Module):
    """Two 3 x 3 convolutions, normalised before, between and after, beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.prelu = nn.PReLU(after)
        self.conv2 = nn.Conv2d(after, after, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample: nn.Module | None = None
        if stride > 1 or before != after:
            shrink = nn.Conv2d(before, after, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shrink, nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, before, H, W] to [N, after, H / stride, W / stride]."""
        inner = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        found: Tensor = self.bn3(self.conv2(inner)) + (x if self.downsample is None else self.downsample(x))
        return found


class IResNet(nn.Module):
    """A residual network from faces to embeddings. Source: ArcFace (Deng et al., CVPR 2019) and its code.

    Args:
        blocks: how many each of the four stages has.
        dimension: D, of the embedding.
        dropout: share of the last map's values that are dropped in training.

    Attributes:
        folded: names of batch norms that stand as in a published file, for `unfolding.settle_norms`.
    """

    folded: tuple[str, ...] = ()

    def __init__(self, blocks: Sequence[int], dimension: int, dropout: float) -> None:
        super().__init__()
        first, *_, last = WIDTHS
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.prelu = nn.PReLU(first)
        befores = (first, *WIDTHS)
        for place, (count, width) in enumerate(zip(blocks, WIDTHS, strict=True)):
            rest = [Block(width, width, 1) for _ in range(count - 1)]
            self.add_module(f"layer{place + 1}", nn.Sequential(Block(befores[place], width, 2), *rest))
        self.bn2 = nn.BatchNorm2d(last)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(last * _MAP * _MAP, dimension)
        self.features = nn.BatchNorm1d(dimension)
        self.features.weight.requires_grad_(False)  # the scale of an embedding means nothing to a head of cosines
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0.0, 0.1)

    def forward(self, images: Tensor) -> Tensor:
        """Faces float32 [N, 3, 112, 112] to embeddings [N, D], not normalised."""
        maps = self.prelu(self.bn1(self.conv1(images)))
        for place in range(len(WIDTHS)):
            maps = self.get_submodule(f"layer{place + 1}")(maps)
        found: Tensor = self.features(self.fc(self.dropout(self.bn2(maps).flatten(1))))
        return found
