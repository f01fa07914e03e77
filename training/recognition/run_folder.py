"""The run folder of a recogniser: beside what every run has, what the factory takes of it.

<run>/NAME.onnx           the backbone: faces to embeddings
<run>/models.toml         its entry: named in FIQA_MODELS, this folder makes the network known by its name
<run>/head.safetensors    the class centres with the numbers of their people: `centres = head`
<run>/quality.onnx        faces to qualities: a method of EvaluateQuality, and for training.score
<run>/model.safetensors   backbone and regression layer; written last, so a run that has it is done
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors.torch import save

from data_manifests.storage.atomic import write_atomically
from data_manifests.storage.environment import version_of
from data_manifests.weights.registry import HEAD, read_entries
from training.backbones.networks import DIMENSION, LEVEL
from training.command_line.settings import describe_change
from training.recognition.card import write_card
from training.recognition.config import FREE
from training.recognition.export import embedding_to_onnx, quality_to_onnx
from training.recognition.model_file import save_recogniser
from training.scoring.onnx_file import Note
from training.scoring.registry_entry import REGISTRY, TrainedNetwork
from training.trainer.run_folder import CARD, CONFIG, MODEL, SCORER, RunFolder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from training.recognition.config import RecognitionConfig
    from training.recognition.data import PeopleImages
    from training.recognition.model import Recogniser

CENTRES, IDENTITIES = "centres", "identities"
"""What the file of the head holds."""

BATCH = 64
"""Pictures in a run of the backbone when it embeds, as its entry says."""

_PACKAGES = ("torch", "numpy", "simplejpeg", "safetensors", "onnx", "onnxscript")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognitionRunFolder(RunFolder):
    """Where the training of a recogniser writes.

    Attributes:
        name: of the network, in models.toml.
        licence: of its weights, in words.
    """

    name: str
    licence: str

    @classmethod
    def of(cls, root: Path, config: RecognitionConfig, data: PeopleImages, *, name: str, licence: str) -> Self:
        """The folder of the run that these settings and images make; ValueError if the network cannot be named so."""
        if f"{name}.onnx" == SCORER:
            raise ValueError(f"the network cannot be named {name}: {SCORER} is the scorer; give another --name")
        return cls(root=root, fingerprint=config.fingerprint(data.content), name=name, licence=licence)

    def begin(self, config: RecognitionConfig, data: PeopleImages) -> None:
        """Write down what the run is made from, or see that it is the same run that goes on.

        Args:
            config: all settings.
            data: all images that may be learned from, whether they can be read or not.

        Raises:
            RunFolderError: if another run, or anything else, lies there.
        """
        facts = {
            "config": config.describe(),
            "data": {"content": data.content, **_count(data)},
            "versions": {"python": platform.python_version(), **{name: version_of(name) for name in _PACKAGES}},
        }
        self.open(facts, partial(describe_change, content="data.content", free=FREE))

    @property
    def unreadable(self) -> dict[str, list[int]] | None:
        """The keys of images that could not be read when the run began, by cause; None until that was looked at."""
        found: dict[str, list[int]] | None = self.read(CONFIG)["data"].get("unreadable")
        return found

    def leave_out(self, unreadable: Mapping[str, Sequence[int]], data: PeopleImages) -> None:
        """Write down for good which images cannot be read, and what is learned from without them."""
        facts = self.read(CONFIG)
        facts["data"] |= {**_count(data), "unreadable": unreadable}
        self.write(CONFIG, facts)

    def finish(
        self,
        config: RecognitionConfig,
        model: Recogniser,
        centres: Tensor,
        identities: NDArray[np.int32],
        losses: Mapping[str, float],
    ) -> None:
        """Write everything that the run leaves.

        Args:
            config: all settings.
            model: backbone and regression layer.
            centres: of all C classes [C, D].
            identities: their numbers in the data set, int32 [C].
            losses: the mean of every term in the last epoch.

        Raises:
            ExportError: if a network in ONNX does not give what PyTorch gives.
            DiskFullError: if no space is left.
        """
        facts = self.read(CONFIG)
        onnx = embedding_to_onnx(model.backbone)
        head = {CENTRES: centres.cpu().contiguous(), IDENTITIES: torch.from_numpy(identities)}
        content = {
            f"{self.name}.onnx": onnx,
            REGISTRY: self._entry(onnx).to_toml().encode(),
            HEAD: save(head),
            SCORER: quality_to_onnx(model, {Note.TOWER: config.backbone.value, Note.RUN: self.fingerprint}),
            CARD: write_card(facts, losses, self.name).encode(),
        }
        for name, data in content.items():
            self._write_bytes(name, data)
        read_entries(self.root / REGISTRY)
        save_recogniser(self.root / MODEL, model, config.backbone, facts)

    def _write_bytes(self, name: str, data: bytes) -> None:
        write_atomically(self.root / name, lambda file: file.write(data))

    def _entry(self, onnx: bytes) -> TrainedNetwork:
        """The entry of the backbone."""
        return TrainedNetwork(
            name=self.name,
            kind="recognition",
            licence=self.licence,
            notes=f"Trained by python -m training.train_recognition, run {self.fingerprint}.",
            batch=BATCH,
            level=LEVEL,
            output=f'{{ kind = "embedding", dimension = {DIMENSION} }}',
            onnx=onnx,
        )


def _count(data: PeopleImages) -> dict[str, Any]:
    """How much is learned from, and what is left out."""
    return {"images": len(data), "people": len(data.identities), "left_out": data.left_out}
