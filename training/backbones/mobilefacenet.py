"""MobileFaceNet as ArcFace's code has it, with the weights' names of its checkpoints, and in its paper's width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

_LAST = 512
"""Channels of the last map."""


class _Layers(nn.Module):
    """Parts one after the other, below the name `layers`."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


class _Bottleneck(_Layers):
    """Spread to some channels, convolve each by itself, and gather; added to its input where the size stays."""

    def __init__(self, before: int, inner: int, after: int, stride: int) -> None:
        super().__init__(
            _convolve(before, inner, 1), _convolve(inner, inner, 3, stride=stride, groups=inner), _gather(inner, after)
        )
        self._added = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found + x if self._added else found


class MobileFaceNet(nn.Module):
    """A small network from faces to embeddings. Source: Chen et al., 2018, and ArcFace's code.

    Args:
        dimension: D, of the embedding.
        wide: twice the paper's channels, as ArcFace's code has it.

    Attributes:
        folded: names of batch norms that stand as in a published file, for `unfolding.settle_norms`.
    """

    folded: tuple[str, ...] = ()

    def __init__(self, dimension: int, *, wide: bool = True) -> None:
        super().__init__()
        narrow = 128 if wide else 64
        half = 2 * narrow
        # The channels between two maps are the paper's in both.
        self.layers = nn.ModuleList([
            _convolve(3, narrow, 3, stride=2),
            _convolve(narrow, narrow, 3, groups=64),
            _Bottleneck(narrow, 128, narrow, 2),
            _repeat(narrow, 128, 4),
            _Bottleneck(narrow, 256, half, 2),
            _repeat(half, 256, 6),
            _Bottleneck(half, 512, half, 2),
            _repeat(half, 256, 2),
        ])  # fmt: skip
        self.conv_sep = _convolve(half, _LAST, 1)
        pooled = _Layers(nn.Conv2d(_LAST, _LAST, 7, groups=_LAST, bias=False), nn.BatchNorm2d(_LAST))
        embed = nn.Linear(_LAST, dimension, bias=False)
        self.features = _Layers(pooled, nn.Flatten(), embed, nn.BatchNorm1d(dimension))
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Faces float32 [N, 3, 112, 112] to embeddings [N, D], not normalised."""
        maps = images
        for layer in self.layers:
            maps = layer(maps)
        found: Tensor = self.features(self.conv_sep(maps))
        return found


def _convolve(before: int, after: int, size: int, *, stride: int = 1, groups: int = 1) -> _Layers:
    """A convolution that keeps height and width but for the stride, normalised, with PReLU."""
    convolution = nn.Conv2d(before, after, size, stride=stride, padding=size // 2, groups=groups, bias=False)
    return _Layers(convolution, nn.BatchNorm2d(after), nn.PReLU(after))


def _gather(before: int, after: int) -> _Layers:
    """A 1 x 1 convolution, normalised, without a bend."""
    return _Layers(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))


def _repeat(width: int, inner: int, count: int) -> _Layers:
    """Bottlenecks that keep the size."""
    return _Layers(*(_Bottleneck(width, inner, width, 1) for _ in range(count)))
