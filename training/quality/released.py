"""Import of checkpoints in the layout of OpenAI's CLIP, such as the one that CLIB-FIQA's authors published."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from training.clip.backbone import OPENAI_EXTRAS, ClipConfig, build_clip
from training.quality.model import QualityModel, from_clip
from training.trainer.weights import WeightsError, load_strictly, read_state_dict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

HEAD_WIDTH = 64
"""Channels of an attention head in everything that OpenAI trained, text and image (Radford et al. 2021, table 19)."""

STRIDE = 32
"""Pixels of the image for one place of the residual tower's last map."""


def load_released(path: Path) -> QualityModel:
    """Read a checkpoint of OpenAI's layout: both towers and the temperature, of any size.

    The prompts are encoded by the checkpoint's own text tower, since the authors also trained its token embedding and
    last layer norm. The merged-factor network is not in such a checkpoint.

    Args:
        path: a state dict, saved by torch.save; half precision and the prefix `module.` are understood.

    Returns:
        The model in evaluation mode, float32, on the CPU.

    Raises:
        WeightsError: if the file cannot be read, or if weights are missing or left over; names them.
    """
    state = {name: value for name, value in read_state_dict(path).items() if name not in OPENAI_EXTRAS}
    tower = infer_clip_config(state, path)
    clip = build_clip(tower, seed=0)
    load_strictly(clip, state, path)
    return from_clip(clip, tower).eval()


def infer_clip_config(state: Mapping[str, Tensor], path: Path | str) -> ClipConfig:
    """Tell from the shapes of the weights what the towers look like.

    Args:
        state: weights of OpenAI's layout.
        path: where they came from, for the error.

    Raises:
        WeightsError: if a weight that decides a size is missing or has an impossible shape; names it.
    """
    shapes = _Shapes(state, path)
    vision = _infer_vision_transformer(shapes) if "visual.proj" in state else _infer_residual(shapes)
    width = shapes.of("ln_final.weight", 1)[0]
    if width % HEAD_WIDTH:
        raise WeightsError(f"{path}: the text tower's width {width} is not a multiple of {HEAD_WIDTH}")
    vocabulary, context = shapes.of("token_embedding.weight", 2)[0], shapes.of("positional_embedding", 2)[0]
    return ClipConfig(
        name="openai-layout",
        embed_dim=shapes.of("text_projection", 2)[1],
        quick_gelu=True,
        vision=vision,
        text={
            "context_length": context,
            "vocab_size": vocabulary,
            "width": width,
            "heads": width // HEAD_WIDTH,
            "layers": shapes.count("transformer.resblocks."),
        },
    )


def _infer_residual(shapes: _Shapes) -> dict[str, object]:
    """The `vision_cfg` of a residual tower."""
    places = shapes.of("visual.attnpool.positional_embedding", 2)[0] - 1
    return {
        "image_size": shapes.root(places, "visual.attnpool.positional_embedding") * STRIDE,
        "layers": [shapes.count(f"visual.layer{stage}.") for stage in (1, 2, 3, 4)],
        "width": shapes.of("visual.layer1.0.conv1.weight", 4)[0],
        "patch_size": None,
    }


def _infer_vision_transformer(shapes: _Shapes) -> dict[str, object]:
    """The `vision_cfg` of a vision transformer."""
    width, _, patch, _ = shapes.of("visual.conv1.weight", 4)
    places = shapes.of("visual.positional_embedding", 2)[0] - 1
    return {
        "image_size": shapes.root(places, "visual.positional_embedding") * patch,
        "layers": shapes.count("visual.transformer.resblocks."),
        "width": width,
        "patch_size": patch,
    }


class _Shapes:
    """Sizes read off the weights, with errors that name them."""

    def __init__(self, state: Mapping[str, Tensor], path: Path | str) -> None:
        self._state, self._path = state, path

    def of(self, name: str, axes: int) -> tuple[int, ...]:
        """The shape of a weight with so many axes."""
        if name not in self._state:
            raise WeightsError(f"{self._path} is not in the layout of OpenAI's CLIP; missing: {name}")
        shape = tuple(self._state[name].shape)
        if len(shape) != axes:
            raise WeightsError(f"{self._path}: {name} has {len(shape)} axes instead of {axes}")
        return shape

    def count(self, prefix: str) -> int:
        """How many blocks there are under a prefix."""
        blocks = {name.removeprefix(prefix).split(".")[0] for name in self._state if name.startswith(prefix)}
        if not blocks:
            raise WeightsError(f"{self._path} is not in the layout of OpenAI's CLIP; missing: {prefix}0")
        return len(blocks)

    def root(self, places: int, name: str) -> int:
        """The side of a square map of so many places."""
        side = math.isqrt(max(places, 0))
        if side < 1 or side * side != places:
            raise WeightsError(f"{self._path}: {name} has {places} places, which is no square map")
        return side
