"""A trained recogniser as one safetensors file: the weights of a published checkpoint, and which backbone they fill."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from data_manifests.storage.atomic import write_atomically
from data_manifests.storage.json_files import parse_json
from training.backbones.names import Backbone
from training.backbones.networks import REGRESSION, name_backbone
from training.recognition.model import Recogniser
from training.trainer.weights import WeightsError, read_state_dict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = "fiqa-recogniser-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRecogniser:
    """What a file holds.

    Attributes:
        model: in evaluation mode, on the CPU.
        backbone: which.
        notes: what its writer noted; empty for a checkpoint of CR-FIQA's authors.
    """

    model: Recogniser
    backbone: Backbone
    notes: dict[str, Any]


def save_recogniser(path: Path, model: Recogniser, backbone: Backbone, notes: Mapping[str, Any]) -> None:
    """Write a recogniser, whole or not at all; the same weights and notes give the same bytes.

    Raises:
        DiskFullError: if no space is left; nothing stays behind.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.published().items()}
    config = {"format": FORMAT, "backbone": backbone.value, "notes": dict(notes)}
    content = save(tensors, metadata={"config": json.dumps(config, sort_keys=True)})
    write_atomically(path, lambda file: file.write(content))


def load_recogniser(path: Path) -> SavedRecogniser:
    """Read a recogniser with its regression layer; nothing in the file is run.

    Args:
        path: a file of `save_recogniser`, or a state dict that CR-FIQA's authors published (.pt, .pth).

    Raises:
        WeightsError: if it is neither, if a weight does not fit, or if there is no regression layer.
    """
    config = _read_config(path)
    backbone = Backbone(config["backbone"]) if config else name_backbone(read_state_dict(path), path)
    model = Recogniser(backbone)
    if not model.load_published(path):
        raise WeightsError(
            f"{path}: has no regression layer ({REGRESSION}.weight), so it gives no quality: train CR-FIQA from it"
        )
    return SavedRecogniser(model=model.eval(), backbone=backbone, notes=config.get("notes", {}))


def is_recogniser(path: Path) -> bool:
    """Whether a file holds a recogniser: of `save_recogniser`, or as CR-FIQA's authors published theirs."""
    if path.suffix == ".safetensors":
        return bool(_read_config(path))
    if path.suffix not in (".pt", ".pth"):
        return False
    try:
        return f"{REGRESSION}.weight" in read_state_dict(path)
    except WeightsError:
        return False


def _read_config(path: Path) -> dict[str, Any]:
    """What a file says of itself; empty for one that `save_recogniser` did not write."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            config = parse_json((file.metadata() or {}).get("config", "null"))
    except (SafetensorError, OSError, ValueError):
        return {}
    return config if isinstance(config, dict) and config.get("format") == FORMAT else {}
