"""A trained model as one safetensors file that stands alone: weights, and what is needed to build it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from data_manifests.storage.atomic import write_atomically
from data_manifests.storage.json_files import parse_json
from training.clip.backbone import ClipConfig, build_image_encoder
from training.prompts import PROMPTS
from training.quality.model import JOINT, MergedFactors, QualityModel
from training.trainer.weights import WeightsError, load_strictly, read_state_dict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

FORMAT = "fiqa-quality-model-1"
_MODEL, _MERGED = "model.", "merged."
_KEYS = {"tower", "merged_hidden", "prompts_sha256", "notes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """What a file holds.

    Attributes:
        model: in evaluation mode, on the CPU.
        merged: the merged-factor network, if it was saved.
        notes: whatever its writer noted, such as the run and the recipe.
    """

    model: QualityModel
    merged: MergedFactors | None
    notes: dict[str, Any]


def save_model(
    path: Path, model: QualityModel, merged: MergedFactors | None = None, notes: Mapping[str, Any] | None = None
) -> None:
    """Write a model, whole or not at all; the same weights and notes give the same bytes.

    Args:
        path: the file, named *.safetensors.
        model: its weights, the prompts' embeddings among them, are stored as they are.
        merged: the merged-factor network.
        notes: plain values that `load_model` gives back.

    Raises:
        DiskFullError: if no space is left; nothing stays behind.
    """
    parts = {_MODEL: model, _MERGED: merged}
    tensors = {
        prefix + name: value.detach().cpu().contiguous()
        for prefix, part in parts.items()
        if part is not None
        for name, value in part.state_dict().items()
    }
    config = {
        "format": FORMAT,
        "tower": model.tower.to_json(),
        "merged_hidden": None if merged is None else list(merged.hidden),
        "prompts_sha256": _prompts_sha256(),
        "notes": dict(notes or {}),
    }
    content = save(tensors, metadata={"config": json.dumps(config, sort_keys=True)})
    write_atomically(path, lambda file: file.write(content))


def load_model(path: Path) -> SavedModel:
    """Read a model of `save_model`; nothing in the file is run.

    Raises:
        WeightsError: if it is not such a file, if it was made with other prompts, or if a weight does not fit.
    """
    config = _read_config(path)
    state = read_state_dict(path)
    unknown = [name for name in state if not name.startswith((_MODEL, _MERGED))]
    if unknown:
        raise WeightsError(f"{path} holds what is not of this model: {', '.join(unknown[:8])}")
    tower = ClipConfig.from_json(config["tower"])
    own = _below(state, _MODEL)
    if own.get("text_features") is None or own["text_features"].shape != (JOINT, tower.embed_dim):
        raise WeightsError(f"{path} lacks the embeddings of the prompts, [{JOINT}, {tower.embed_dim}]")
    model = QualityModel(tower, build_image_encoder(tower), own["text_features"], own["text_features"].new_zeros(()))
    load_strictly(model, own, path)
    merged = None
    if config["merged_hidden"] is not None:
        merged = MergedFactors(config["merged_hidden"]).eval()
        load_strictly(merged, _below(state, _MERGED), path)
    return SavedModel(model=model.eval(), merged=merged, notes=config["notes"])


def _read_config(path: Path) -> dict[str, Any]:
    """What the file says about its model."""
    try:
        with safe_open(path, framework="pt") as file:
            config = parse_json((file.metadata() or {}).get("config", "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a model of this project ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise WeightsError(f"{path} is not a model of this project: it does not say {FORMAT}")
    if missing := sorted(_KEYS - config.keys()):
        raise WeightsError(f"{path} does not say its {', '.join(missing)}: it was not written whole, make it again")
    if config["prompts_sha256"] != _prompts_sha256():
        raise WeightsError(f"{path} was made with other prompts than this version has: score with the version of then")
    return config


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _prompts_sha256() -> str:
    """What the order and the words of the prompts are told by."""
    return hashlib.sha256("\n".join(PROMPTS).encode()).hexdigest()
