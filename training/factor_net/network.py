"""The network: a stem and residual blocks that each halve the picture, pooled, with one output a head.

Plain convolutions rather than depthwise ones, and a stem that goes to a quarter of the side at once: on a processor
time goes into large maps and into reading them again, not into multiplications.
"""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.factor_net.config import LEVEL, Head

if TYPE_CHECKING:
    from collections.abc import Sequence


class ConvNorm(nn.Module):
    """A convolution and its batch normalisation, which `fold` makes one."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inside, outside, kernel, stride, padding=kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inside, H, W] -> [N, outside, H / stride, W / stride]."""
        folded: Tensor = self.norm(self.convolution(x))
        return folded

    def fold(self) -> None:
        """Put the normalisation into the convolution's weights; in evaluation mode, once."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.convolution = fuse_conv_bn_eval(self.convolution, self.norm)
            self.norm = nn.Identity()


class Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016), halving height and width."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.first = ConvNorm(inside, outside, kernel=3, stride=2)
        self.second = ConvNorm(outside, outside, kernel=3, stride=1)
        self.shortcut = ConvNorm(inside, outside, kernel=1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inside, H, W] -> [N, outside, H / 2, W / 2]."""
        inner = self.second(torch.relu(self.first(x)))
        return torch.relu(inner + self.shortcut(x))


class FactorNet(nn.Module):
    """Logits of the three heads.

    The pooled features hold the mean, for what fills the picture (light), and the largest value, for what is local.
    """

    def __init__(self, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = ConvNorm(3, widths[0], kernel=7, stride=4)
        self.blocks = nn.Sequential(*(Residual(a, b) for a, b in itertools.pairwise(widths)))
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.Linear(2 * widths[-1], len(Head))

    def forward(self, images: Tensor) -> Tensor:
        """Tell the attributes of faces.

        Args:
            images: float32 [N, 3, 112, 112], RGB, normalised.

        Returns:
            float32 [N, 3], logits in the order of `Head`.
        """
        maps = self.blocks(torch.relu(self.stem(images)))  # [N, C, H', W']
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)  # [N, 2 C]
        logits: Tensor = self.heads(self.dropout(pooled))
        return logits


class CalibratedNet(nn.Module):
    """Probabilities whose 0.5 is each head's threshold.

    The sigmoid of a network's logits less the head's threshold, over its temperature (Guo et al. 2017, section 4.2).
    """

    thresholds: Tensor
    temperatures: Tensor

    def __init__(self, network: FactorNet, thresholds: Sequence[float], temperatures: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("thresholds", torch.tensor(thresholds, dtype=torch.float32))  # [3]
        self.register_buffer("temperatures", torch.tensor(temperatures, dtype=torch.float32))  # [3]

    def forward(self, images: Tensor) -> Tensor:
        """Float32 [N, 3, 112, 112] -> probabilities [N, 3] in the order of `Head`."""
        return torch.sigmoid((self.network(images) - self.thresholds) / self.temperatures)


def folded(model: CalibratedNet) -> CalibratedNet:
    """A copy in evaluation mode, on the CPU, without batch normalisation."""
    result = copy.deepcopy(model).cpu().eval()
    for module in list(result.modules()):
        if isinstance(module, ConvNorm):
            module.fold()
    return result


def normalise(images: Tensor) -> Tensor:
    """Levels 0 to 255 of any type -> float32 from -1 to 1."""
    return (images.float() - LEVEL) / LEVEL
