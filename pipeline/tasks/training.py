"""Training as tasks: each runs in a child process, so that CUDA never meets a fork and no task loads torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import luigi

from data_manifests.files import sync_folder
from data_manifests.identity import read_identity
from data_manifests.manifest import Format, load_manifest
from pipeline.fingerprint import StageSpec
from pipeline.job import JobError
from pipeline.logs import set_up_logs
from pipeline.store import Store
from pipeline.tasks.goals import WorkspaceParameter, one_message


class TrainingError(RuntimeError):
    """A training process failed; its own message stands above."""


class TrainFactorNet(luigi.Task):
    """Trains the network of occlusion, expression and lighting from WIDER FACE's layout.

    The result is a folder with the ONNX file, its metrics, its card, and a models.toml: name that folder in
    FIQA_MODELS and the network in `[models] factors`, and the factors and labels are made anew with it.
    """

    dataset = luigi.Parameter(default="wider_face", description="a manifest of format wider_face")
    name = luigi.Parameter(default="factors_own", description="the network's name in models.toml")
    epochs = luigi.IntParameter(default=0, description="passes over the training faces; 0: the trainer's default")
    seed = luigi.IntParameter(default=0, description="of weights, order and augmentation")
    workspace = WorkspaceParameter(default="", description="folder of all outputs (FIQA_WORKSPACE)")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        set_up_logs()
        with one_message():
            self.manifest = load_manifest(self.dataset, workspace=Path(self.workspace))
            if self.manifest.format is not Format.WIDER_FACE:
                raise JobError(f"{self.manifest.name} has the format {self.manifest.format}: wider_face is needed")
            self.spec = StageSpec(
                name="factor_net",
                version=1,
                data=read_identity(self.manifest).digest,
                parameters={"name": self.name, "epochs": self.epochs, "seed": self.seed},
            )

    @property
    def store(self) -> Store:
        """Where the data set's outputs lie."""
        return Store(root=Path(self.workspace) / self.manifest.name)

    @property
    def folder(self) -> Path:
        """The folder that the training writes in one step."""
        return self.store.folder(self.spec)

    def complete(self) -> bool:
        """Whether the network is there and `current` names it."""
        return (self.folder / "models.toml").is_file() and self.store.current("factor_net") == self.spec.fingerprint

    def run(self) -> None:
        """Train in a child process, then point `current` at the result."""
        if not (self.folder / "models.toml").is_file():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.store.remember(self.spec)
            command = [sys.executable, "-m", "training.factor_net", "--root", str(self.manifest.root)]
            command += ["--output", str(self.folder), "--name", self.name, "--seed", str(self.seed)]
            command += ["--epochs", str(self.epochs)] if self.epochs else []
            if code := subprocess.run(command, check=False).returncode:
                raise TrainingError(
                    f"the training of {self.name} ended with exit code {code}; its message stands above"
                )
            sync_folder(self.folder.parent)
        self.store.point_current(self.spec)
