"""The recogniser of CR-FIQA: a backbone, and one regression layer on its embedding (CR-FIQA, Figure 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from labelers.faces import SIDE
from training.backbones.networks import DIMENSION, LEVEL, REGRESSION, build_backbone, fill_backbone
from training.trainer.weights import load_strictly

if TYPE_CHECKING:
    from pathlib import Path

    from training.backbones.names import Backbone


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

    def load_published(self, pretrained: str | Path) -> bool:
        """Fill it from a published recogniser.

        Args:
            pretrained: see `fill_backbone`.

        Returns:
            Whether it has the regression layer; without one, the layer stays as it is.

        Raises:
            WeightsError: if it cannot be read or is of another network; names the weights.
        """
        layer = fill_backbone(self.backbone, pretrained)
        if layer:
            load_strictly(self.qs, layer, pretrained)
        return bool(layer)

    def published(self) -> dict[str, Tensor]:
        """The weights under the names of those checkpoints: the backbone bare, the layer below `qs`."""
        layer = {f"{REGRESSION}.{name}": value for name, value in self.qs.state_dict().items()}
        return {**self.backbone.state_dict(), **layer}


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
