"""The entry of models.toml by which the factory knows a network that was trained here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from labelers.faces import SIDE

REGISTRY = "models.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedNetwork:
    """A network with one file, which takes aligned faces, RGB.

    Attributes:
        name: in models.toml; the file is NAME.onnx.
        kind: as `data_manifests.weights.entry.Kind` says it.
        licence: of the weights, in words.
        notes: what a user should know.
        batch: pictures in a run of the network when it labels.
        level: the network sees (x - level) / level.
        output: the table of its output, in TOML.
        onnx: the file.
    """

    name: str
    kind: str
    licence: str
    notes: str
    batch: int
    level: float
    output: str
    onnx: bytes

    def to_toml(self) -> str:
        """The entry, in the form of data_manifests/weights/models.toml."""
        sha256 = hashlib.sha256(self.onnx).hexdigest()
        levels = f"[{self.level}, {self.level}, {self.level}]"
        return (
            f"[{self.name}]\n"
            f'kind = "{self.kind}"\n'
            "version = 1\n"
            f"licence = {json.dumps(self.licence, ensure_ascii=False)}\n"
            f"notes = {json.dumps(self.notes, ensure_ascii=False)}\n"
            f"batch = {self.batch}\n"
            "files = [\n"
            f'    {{ name = "{self.name}.onnx", bytes = {len(self.onnx)}, sha256 = "{sha256}" }},\n'
            "]\n"
            f'input = {{ width = {SIDE}, height = {SIDE}, colour = "rgb", mean = {levels}, std = {levels} }}\n'
            f"output = {self.output}\n"
        )
