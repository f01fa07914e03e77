"""A recogniser as AdaFace's network is: a vector of unit length, and beside it the length that it had."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from data_manifests.storage.atomic import sha256_of
from data_manifests.weights.registry import read_entries
from training.backbones.names import Backbone
from training.backbones.networks import build_backbone

if TYPE_CHECKING:
    from pathlib import Path

    from data_manifests.weights.entry import ModelEntry

NAME = "two_outputs"


class TwoOutputs(nn.Module):
    """A small network with random weights; as AdaFace's, it divides an embedding by its length."""

    def __init__(self, seed: int = 7) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = build_backbone(Backbone.MOBILEFACENET_SMALL)
        for part in self.backbone.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.running_var is not None:
                nn.init.uniform_(part.running_var, 0.5, 2)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [N, 3, 112, 112] to unit vectors [N, 512] and lengths [N, 1]."""
        vectors = self.backbone(images)
        norm = torch.norm(vectors, 2, 1, True)
        return torch.div(vectors, norm), norm


def write_two_outputs(folder: Path, *, norm: bool = True) -> TwoOutputs:
    """Export one with a batch of 1 (PyTorch's older exporter), and write its entry: BGR."""
    network = TwoOutputs()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.onnx"
    torch.onnx.export(network, (torch.zeros(1, 3, 112, 112),), str(path), opset_version=17, dynamo=False)
    levels = "[127.5, 127.5, 127.5]"
    (folder / "models.toml").write_text(
        f'[{NAME}]\nkind = "recognition"\nversion = 1\nlicence = "none"\nbatch = 8\n'
        f'files = [{{ name = "{NAME}.onnx", sha256 = "{sha256_of(path)}" }}]\n'
        f'input = {{ width = 112, height = 112, colour = "bgr", mean = {levels}, std = {levels} }}\n'
        f'output = {{ kind = "embedding", dimension = 512{", norm = true" if norm else ""} }}\n'
    )
    return network


def entry_of(folder: Path) -> ModelEntry:
    """What the folder's models.toml says of it."""
    return read_entries(folder / "models.toml")[NAME]
