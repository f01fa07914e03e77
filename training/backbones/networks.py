"""The networks from faces to embeddings: how each is built, and filled with weights that were published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from data_manifests.weights.entry import Kind
from data_manifests.weights.files import WeightsError as FileError
from data_manifests.weights.files import fetch
from data_manifests.weights.registry import load_registry
from labelers.runtime.entry_input import input_spec
from training.backbones.iresnet import IResNet
from training.backbones.mobilefacenet import MobileFaceNet
from training.backbones.names import Backbone
from training.backbones.unfolding import LEVEL, PUBLISHED_INPUT, settle_norms, unfold
from training.trainer.weights import WeightsError, load_strictly, read_state_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labelers.runtime.onnx import InputSpec

__all__ = ["DIMENSION", "LEVEL", "REGRESSION", "build_backbone", "fill_backbone", "name_backbone", "settle_backbone"]

DIMENSION = 512
"""D, of every embedding."""

REGRESSION = "qs"
"""The name of CR-FIQA's regression layer beside the backbone in the checkpoints that its authors published."""

_BLOCKS = {
    Backbone.IRESNET18: (2, 2, 2, 2),
    Backbone.IRESNET34: (3, 4, 6, 3),
    Backbone.IRESNET50: (3, 4, 14, 3),
    Backbone.IRESNET100: (3, 13, 30, 3),
}


def build_backbone(backbone: Backbone, dropout: float = 0.0) -> IResNet | MobileFaceNet:
    """A backbone with random weights.

    Args:
        backbone: which.
        dropout: share of the last map's values that are dropped in training; a MobileFaceNet drops none.
    """
    if blocks := _BLOCKS.get(backbone):
        return IResNet(blocks, DIMENSION, dropout)
    return MobileFaceNet(DIMENSION, wide=backbone is Backbone.MOBILEFACENET)


def fill_backbone(backbone: IResNet | MobileFaceNet, pretrained: str | Path) -> dict[str, Tensor]:
    """Fill a backbone with weights that were published.

    Args:
        backbone: on the CPU.
        pretrained: a state dict of ArcFace's or CR-FIQA's code, a run's recogniser, a recogniser in ONNX that wants RGB
            as (x - 127.5) / 127.5, or the name of a recogniser of models.toml. ONNX leaves batch norms for
            `settle_backbone`.

    Returns:
        The weights of the regression layer, where it has one.

    Raises:
        WeightsError: if there is no such thing, or it is of another network; names the weights.
    """
    path, spec = _find(pretrained)
    if path.suffix == ".onnx":
        backbone.folded = unfold(backbone, path, spec)
        return {}
    state = dict(read_state_dict(path))
    names = [name for name in ("weight", "bias") if f"{REGRESSION}.{name}" in state]
    layer = {name: state.pop(f"{REGRESSION}.{name}") for name in names}
    load_strictly(backbone, state, path)
    return layer


def settle_backbone(backbone: IResNet | MobileFaceNet, pixels: Tensor) -> None:
    """Give batch norms that a file in ONNX lacked the statistics of some faces; what it gives stays the same.

    Args:
        backbone: filled by `fill_backbone`.
        pixels: what it sees of the faces, float32 [N, 3, 112, 112].
    """
    settle_norms(backbone, backbone.folded, pixels)
    backbone.folded = ()


def name_backbone(state: Mapping[str, Tensor], path: Path) -> Backbone:
    """Which backbone a checkpoint of ArcFace's or CR-FIQA's code is of, by its weights.

    Raises:
        WeightsError: if it is of none that is known.
    """
    shapes = {name: value.shape for name, value in state.items() if not name.startswith(f"{REGRESSION}.")}
    with torch.device("meta"):
        for backbone in Backbone:
            if {name: value.shape for name, value in build_backbone(backbone).state_dict().items()} == shapes:
                return backbone
    raise WeightsError(f"{path}: its weights are those of no backbone that is known: {', '.join(Backbone)}")


def _find(pretrained: str | Path) -> tuple[Path, InputSpec]:
    """The file, and what a network in it wants to see."""
    path = Path(pretrained)
    if path.is_file():
        return path, PUBLISHED_INPUT
    recognisers = {name: e for name, e in load_registry().entries.items() if e.kind is Kind.RECOGNITION}
    entry = recognisers.get(str(pretrained))
    if entry is None:
        raise WeightsError(f"{pretrained} is neither a file nor a recogniser of models.toml ({', '.join(recognisers)})")
    try:
        return fetch(entry)[0], input_spec(entry)
    except FileError as error:
        raise WeightsError(str(error)) from error
