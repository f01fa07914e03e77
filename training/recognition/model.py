"""The recogniser of CR-FIQA: a backbone, and one regression layer on its embedding (CR-FIQA, Figure 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from labelers.faces import SIDE
from training.recognition.config import Backbone
from training.recognition.iresnet import IResNet
from training.recognition.mobilefacenet import MobileFaceNet
from training.trainer.weights import WeightsError, load_strictly, read_state_dict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DIMENSION = 512
"""D, of every embedding."""

LEVEL = 127.5
"""What a network sees is (x - LEVEL) / LEVEL, RGB (CR-FIQA section IV)."""

REGRESSION = "qs"
"""The name of the regression layer in the checkpoints that CR-FIQA's authors published."""

_BLOCKS = {
    Backbone.IRESNET18: (2, 2, 2, 2),
    Backbone.IRESNET34: (3, 4, 6, 3),
    Backbone.IRESNET50: (3, 4, 14, 3),
    Backbone.IRESNET100: (3, 13, 30, 3),
}


class Recogniser(nn.Module):
    """Faces to embeddings and qualities.

    Args:
        backbone: which network makes the embedding.
        dropout: share of the last map's values that are dropped in training; a MobileFaceNet drops none.

    Attributes:
        backbone: faces to embeddings.
        qs: embeddings to qualities: the regression layer.
    """

    def __init__(self, backbone: Backbone, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, dropout)
        self.qs = nn.Linear(DIMENSION, 1)

    def forward(self, images: Tensor, flip: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Embed faces and estimate how classifiable they are.

        Args:
            images: uint8 [N, 112, 112, 3], RGB, aligned.
            flip: bool [N]; which images are mirrored left to right.

        Returns:
            Embeddings [N, D], not normalised, and qualities [N].
        """
        embeddings = self.backbone(prepare(images, flip))
        return embeddings, self.qs(embeddings)[:, 0]

    def load_published(self, path: Path) -> bool:
        """Fill it from a checkpoint of ArcFace's or CR-FIQA's code.

        Args:
            path: a state dict of the backbone, with or without the regression layer.

        Returns:
            Whether the file has the regression layer; without it, the layer stays as it is.

        Raises:
            WeightsError: if the file cannot be read or is of another network; names the weights.
        """
        state = dict(read_state_dict(path))
        layer = {
            name: state.pop(f"{REGRESSION}.{name}") for name in ("weight", "bias") if f"{REGRESSION}.{name}" in state
        }
        load_strictly(self.backbone, state, path)
        if layer:
            load_strictly(self.qs, layer, path)
        return bool(layer)

    def published(self) -> dict[str, Tensor]:
        """The weights under the names of those checkpoints: the backbone bare, the layer below `qs`."""
        layer = {f"{REGRESSION}.{name}": value for name, value in self.qs.state_dict().items()}
        return {**self.backbone.state_dict(), **layer}


def build_backbone(backbone: Backbone, dropout: float = 0.0) -> nn.Module:
    """A backbone with random weights."""
    if backbone is Backbone.MOBILEFACENET:
        return MobileFaceNet(DIMENSION)
    return IResNet(_BLOCKS[backbone], DIMENSION, dropout)


def name_backbone(state: Mapping[str, Tensor], path: Path) -> Backbone:
    """Which backbone a checkpoint of ArcFace's or CR-FIQA's code is of, by the names of its weights.

    Raises:
        WeightsError: if it is of none that is known.
    """
    names = {name for name in state if not name.startswith(f"{REGRESSION}.")}
    with torch.device("meta"):
        for backbone in Backbone:
            if build_backbone(backbone).state_dict().keys() == names:
                return backbone
    raise WeightsError(f"{path}: its weights are those of no backbone that is known: {', '.join(Backbone)}")


def prepare(images: Tensor, flip: Tensor | None = None) -> Tensor:
    """What a network sees: float32 [N, 3, 112, 112] within [-1, 1], mirrored where asked for.

    Raises:
        ValueError: if the images are of another type or size.
    """
    if images.dtype != torch.uint8 or images.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(
            f"images must be uint8 [N, {SIDE}, {SIDE}, 3], not {images.dtype} {list(images.shape)}: align the faces"
        )
    pixels = images.permute(0, 3, 1, 2)
    if flip is not None:
        pixels = torch.where(flip[:, None, None, None], pixels.flip(-1), pixels)
    return (pixels.float() - LEVEL) / LEVEL
