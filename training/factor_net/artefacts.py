"""What a training leaves behind: a folder with the network, its entry of models.toml, its metrics and its card."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from scipy.special import expit

from data_manifests.storage.atomic import explain_full_disk, sync_folder, write_atomically
from data_manifests.weights.registry import read_entries
from labelers.faces import SIDE
from training.factor_net.card import write_card
from training.factor_net.config import LEVEL, Head
from training.factor_net.export import OUTPUT
from training.scoring.onnx_file import INPUT, TOLERANCE
from training.scoring.registry_entry import REGISTRY, TrainedNetwork

if TYPE_CHECKING:
    from pathlib import Path

    from data_manifests.wider_face import Split
    from training.factor_net.config import FactorNetConfig
    from training.factor_net.crops import Crops
    from training.factor_net.trainer import TrainedNet

BATCH = 64
"""Pictures in a run of the network when it labels, as its entry says."""

METRICS, CARD = "metrics.json", "card.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training that is done.

    Attributes:
        name: of the network.
        licence: of its weights, in words.
        config: what it was trained by.
        crops: the faces of every part.
        net: the network with its metrics.
        onnx: the network's file.
    """

    name: str
    licence: str
    config: FactorNetConfig
    crops: dict[Split, Crops]
    net: TrainedNet
    onnx: bytes


def write_folder(training: Training, folder: Path) -> None:
    """Write everything, so that the folder is there whole or not at all.

    Named in FIQA_MODELS, the folder makes the network known under its name.

    Args:
        training: what to write.
        folder: must not exist yet.

    Raises:
        FileExistsError: if the folder exists and holds something.
        TomlFileError: if the entry is not as models.toml must be.
        DiskFullError: if no space is left; nothing stays behind.
    """
    check_free(folder)
    folder = folder.absolute()
    metrics = describe(training)
    content = {
        f"{training.name}.onnx": training.onnx,
        REGISTRY: registry_entry(training).encode(),
        METRICS: (json.dumps(metrics, indent=1) + "\n").encode(),
        CARD: write_card(metrics).encode(),
    }
    with explain_full_disk(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
        temporary.mkdir()
        try:
            for name, data in content.items():
                _write(temporary / name, data)
            read_entries(temporary / REGISTRY)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(folder.parent)


def _write(path: Path, data: bytes) -> None:
    """Write one file of the folder through to the disk."""
    write_atomically(path, lambda file: file.write(data))


def check_free(folder: Path) -> None:
    """Refuse a folder that holds something already, before hours are spent."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already: name another folder, or remove it")


def describe(training: Training) -> dict[str, Any]:
    """Everything that is known of the network, as metrics.json holds it."""
    return {
        "name": training.name,
        "sha256": hashlib.sha256(training.onnx).hexdigest(),
        "bytes": len(training.onnx),
        "input": {
            "name": INPUT, "shape": ["batch", 3, SIDE, SIDE], "type": "float32", "colour": "rgb",
            "mean": [LEVEL] * 3, "std": [LEVEL] * 3,
        },
        "output": {"name": OUTPUT, "shape": ["batch", len(Head)], "type": "float32", "columns": list(Head)},
        "equal_to_pytorch_within": TOLERANCE,
        "licence": training.licence,
        "data": {split.value: _describe_part(crops) for split, crops in training.crops.items()},
        "config": asdict(training.config),
        "thresholds": {
            head: {"probability": float(expit(logit)), "balanced_accuracy_at_half": training.net.before[head]}
            for head, logit in zip(Head, training.net.thresholds, strict=True)
        },
        "temperatures": dict(zip(Head, training.net.temperatures, strict=True)),
        "validation": {head: asdict(metrics) for head, metrics in training.net.validation.items()},
        "training_seconds": round(training.net.seconds, 1),
        "packages": {name: version(name) for name in ("torch", "onnx", "onnxscript")},
    }  # fmt: skip


def _describe_part(crops: Crops) -> dict[str, Any]:
    """One part of the data: a hash of the faces that were used with their truth, and how many were left out."""
    state = hashlib.sha256(crops.images.data)
    state.update(crops.truth.data)
    return {
        "faces_sha256": state.hexdigest(),
        "faces": len(crops),
        "positives": dict(zip(Head, crops.truth.sum(0).tolist(), strict=True)),
        "left_out_invalid": crops.invalid,
        "left_out_small": crops.small,
        "aligned_by_landmarks": int(crops.aligned.sum()),
    }


def registry_entry(training: Training) -> str:
    """The network's entry, in the form of data_manifests/weights/models.toml."""
    columns = ", ".join(json.dumps(str(head)) for head in Head)
    thresholds = ", ".join(f"{expit(logit):.4f}" for logit in training.net.thresholds)
    network = TrainedNetwork(
        name=training.name,
        kind="factors",
        licence=training.licence,
        notes=f"Trained by python -m training.factor_net; {METRICS} beside this file says how well.",
        batch=BATCH,
        level=LEVEL,
        output=f'{{ kind = "probabilities", columns = [{columns}], thresholds = [{thresholds}] }}',
        onnx=training.onnx,
    )
    return network.to_toml()
