"""Random changes of training faces that keep what the heads have to tell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from training.factor_net.config import AugmentationConfig

_WHOLE_RANGE = 2.0  # of normalised pictures, -1 to 1
_SMALLEST_SHRINK, _LARGEST_SHRINK = 0.35, 0.8


class Augmentation:
    """Changes batches; draws from a generator of its own, so that the same seed gives the same changes."""

    def __init__(self, config: AugmentationConfig, seed: int, device: str) -> None:
        self._config = config
        self._device = device
        self._generator = torch.Generator(device).manual_seed(seed)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Change normalised faces [N, 3, H, W]; none keeps its storage."""
        return self._noise(self._colour(self._soften(self._move(images)))).clamp(-1.0, 1.0)

    def _uniform(self, *shape: int) -> Tensor:
        """Numbers from -1 to 1."""
        return 2.0 * torch.rand(*shape, generator=self._generator, device=self._device) - 1.0

    def _move(self, images: Tensor) -> Tensor:
        """Mirror, turn, scale and shift; beyond the border the border is repeated, as where crops leave the photo."""
        config, count = self._config, len(images)
        angle = self._uniform(count) * math.radians(config.rotation_deg)
        zoom = 1.0 / (1.0 + self._uniform(count) * config.scale)
        mirror = torch.sign(self._uniform(count) + 1e-12)
        shift = 2.0 * config.shift * self._uniform(count, 2)
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
        grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)  # [N, H, W, 2]
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _soften(self, images: Tensor) -> Tensor:
        """Take detail from some of the faces."""
        chosen = torch.nonzero(self._uniform(len(images)) < 2.0 * self._config.soften - 1.0)[:, 0]
        if len(chosen) == 0:
            return images
        middle = (_SMALLEST_SHRINK + _LARGEST_SHRINK) / 2.0
        shrink = middle + float(self._uniform(1)) * (_LARGEST_SHRINK - middle)
        side = images.shape[-1]
        small = functional.interpolate(images[chosen], size=max(1, round(side * shrink)), mode="area")
        softened = images.clone()
        softened[chosen] = functional.interpolate(small, size=side, mode="bilinear", align_corners=False)
        return softened

    def _colour(self, images: Tensor) -> Tensor:
        """Change contrast, brightness and the channels' gains a little."""
        config, count = self._config, len(images)
        mean = images.mean((1, 2, 3), keepdim=True)
        contrast = 1.0 + self._uniform(count, 1, 1, 1) * config.contrast
        brightness = self._uniform(count, 1, 1, 1) * config.brightness * _WHOLE_RANGE
        gain = 1.0 + self._uniform(count, 3, 1, 1) * config.colour
        changed = (images - mean) * contrast + mean + brightness
        return (changed + 1.0) * gain - 1.0  # gains act on light: black stays black

    def _noise(self, images: Tensor) -> Tensor:
        """Add noise of a strength drawn for every face."""
        strength = self._uniform(len(images), 1, 1, 1).abs() * self._config.noise * _WHOLE_RANGE
        noise = torch.randn(images.shape, generator=self._generator, device=self._device)
        return images + strength * noise
