"""A trained model in one file: weights, and in the header what is needed to build the model around them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from data_manifests.files import write_atomically
from training.config import Score
from training.model import COMBINATIONS, JOINT, MergedFactors, QualityModel, log_factors
from training.tower import Tower, build_image_tower
from training.weights import WeightsError, load_strictly

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

FORMAT = "fiqa-quality-1"
NAME = "model.safetensors"




class Heads(nn.Module):
    """The model, and the merged-factor network behind its factors.

    Attributes:
        model: image to joint distribution.
        merged: factors to quality; None where nothing uses it.
    """

    def __init__(self, model: QualityModel, merged: MergedFactors | None) -> None:
        super().__init__()
        self.model = model
        self.merged = merged

    def forward(self, images: Tensor, flip: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Joint distribution and merged-factor distribution.

        Args:
            images: uint8 [N, 112, 112, 3].
            flip: bool [N].

        Returns:
            Log-probabilities [N, 360], and probabilities [N, 5] that pass no gradient to the model.
        """
        log_joint = self.model(images, flip)
        if self.merged is None:
            return log_joint, None
        with torch.autocast(log_joint.device.type, enabled=False):
            factors = log_factors(log_joint.detach()).exp()  # [N, 72]
            return log_joint, self.merged(factors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model read back from its file, in evaluation mode on the CPU.

    Attributes:
        model: image to joint distribution.
        merged: factors to quality; None where it was not trained.
        score: what the score is taken from.
    """

    model: QualityModel
    merged: MergedFactors | None
    score: Score


def build_empty(tower: Tower) -> QualityModel:
    """A model to be filled with weights that were saved: the prompts' embeddings are among them."""
    model = QualityModel(tower, build_image_tower(tower), torch.zeros(JOINT, tower.embed_dim), torch.zeros(()))
    return model.train()


def write_model(path: Path, heads: Heads, score: Score, notes: Mapping[str, str]) -> None:
    """Write a trained model, whole or not at all.

    Args:
        path: the .safetensors file.
        heads: what is written.
        score: what the score is taken from.
        notes: more text for the header.
    """
    hidden = _hidden(heads.merged) if heads.merged is not None else []
    header = {"format": FORMAT, "tower": json.dumps(heads.model.tower.to_json()), "merged_hidden": json.dumps(hidden)}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in heads.state_dict().items()}
    content = save(state, metadata={**notes, **header, "score": score.value})
    write_atomically(path, lambda file: file.write(content))


def read_model(path: Path) -> Trained:
    """Read a trained model.

    Args:
        path: the file, or the run's folder that holds it.

    Raises:
        WeightsError: if there is none, or if it is not what a training here wrote.
    """
    file = path / NAME if path.is_dir() else path
    header = read_header(file)
    if header.get("format") != FORMAT:
        raise WeightsError(f"{file} is not a model that was trained here: its header does not say {FORMAT}")
    hidden = json.loads(header["merged_hidden"])
    model = build_empty(Tower.from_json(json.loads(header["tower"])))
    merged = MergedFactors(hidden) if hidden else None
    load_strictly(Heads(model, merged), load_file(file), file)
    return Trained(
        model=model.eval(), merged=merged.eval() if merged is not None else None, score=Score(header["score"])
    )


def read_header(path: Path) -> dict[str, str]:
    """The text in a file's header; WeightsError if there is no such file, or if it is not a safetensors file."""
    try:
        with safe_open(path, "pt") as opened:
            return dict(opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} is not a file of trained weights ({error}): name a run's folder or its {NAME}") from error


def _hidden(merged: MergedFactors) -> Sequence[int]:
    """The widths of the hidden layers."""
    linear = [layer for layer in merged.layers if isinstance(layer, nn.Linear)]
    assert linear[0].in_features == COMBINATIONS
    return [layer.out_features for layer in linear[:-1]]
