"""Training as tasks: each runs in a child process, so that CUDA never meets a fork and no task loads torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import luigi

from data_manifests.identity import read_identity
from data_manifests.manifest import Format, load_manifest
from data_manifests.storage.atomic import sync_folder
from data_manifests.storage.values import kind_of
from data_manifests.tables.scores import CONFIDENCE
from data_manifests.weights.entry import Kind
from data_manifests.weights.files import sha256_of_entry
from data_manifests.weights.registry import DETECTOR, load_registry
from labelers.runtime.device import Device
from pipeline.config.job import JobError
from pipeline.config.parameters import TypedParameter
from pipeline.execution.dispatch import die_with_parent
from pipeline.logs import one_message, set_up_logs
from pipeline.storage.fingerprint import StageSpec
from pipeline.storage.receipts import write_receipt
from pipeline.storage.store import QUALITY_MODEL, Store
from pipeline.tasks.publish import RECOGNISER_TEXT, DatasetParameter, LabelAll, WorkspaceParameter
from pipeline.tasks.weights import Weights
from pipeline.terminal import tell
from training.command_line.settings import to_words
from training.quality.config import FREE
from training.quality.settings import SETTINGS, find_changes, read_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pydantic.fields import FieldInfo

_STOPPED = 75
"""Exit code of a training that was told to stop, and saved."""

FACTOR_NET = "factor_net"
"""The folders of runs."""

MODEL, SCORER = "model.safetensors", "quality.onnx"
"""What a run leaves: its weights, and what scores pictures."""


class TrainingError(RuntimeError):
    """A training process failed; its own message stands above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a training is started.

    Attributes:
        processes: that torchrun starts; 0: one without it.
        environment: variables beside those of this process.
    """

    processes: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)


def run_training(module: str, words: Sequence[str], launch: Launch) -> None:
    """Run a module of `training` in a child process, which is told to save and stop when this one ends.

    Args:
        module: name of the module.
        words: its arguments.
        launch: how it is started.

    Raises:
        TrainingError: if it fails, or was told to stop.
    """
    start = [sys.executable, "-m"]
    if launch.processes:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={launch.processes}", "-m"]
    command, environment = [*start, module, *words], {**os.environ, **launch.environment}
    parent = os.getpid()
    # SIGTERM, not SIGKILL: a training saves where it is before it ends.
    done = subprocess.run(
        command, check=False, env=environment, preexec_fn=lambda: die_with_parent(parent, signal.SIGTERM)
    )
    if done.returncode == _STOPPED:
        raise TrainingError(f"{module} was told to stop and has saved: run the same command again to go on")
    if done.returncode:
        raise TrainingError(f"{module} ended with exit code {done.returncode}; its message stands above")


def train(store: Store, spec: StageSpec, module: str, words: Sequence[str], launch: Launch) -> None:
    """Run a training, and keep what it is made from and how long it took, even where it was stopped or fails.

    Args:
        store: where the run lies.
        spec: of the run.
        module: as for `run_training`.
        words: as for `run_training`.
        launch: as for `run_training`.
    """
    store.remember(spec)
    started = time.monotonic()
    try:
        run_training(module, words, launch)
    finally:
        write_receipt(store, spec, {}, time.monotonic() - started, max(launch.processes, 1))


def make_options(settings: Mapping[str, FieldInfo], free: Collection[str]) -> dict[str, TypedParameter]:
    """The settings of a training as options of a task.

    Args:
        settings: type, default and text of each, by name.
        free: those that leave the weights as they are.
    """
    return {
        name: TypedParameter(
            kind_of(setting),
            default=None,
            shown=setting.default,
            significant=name not in free,
            description=setting.description,
        )
        for name, setting in settings.items()
    }


def add_options(task: type[luigi.Task], options: Mapping[str, TypedParameter]) -> None:
    """Give a task options that were made."""
    for name, option in options.items():
        setattr(task, name, option)
        option.__set_name__(task, name)


def find_settings(
    task: luigi.Task, read_recipe: Callable[[Path], dict[str, Any]], options: Collection[str]
) -> dict[str, Any]:
    """The settings of a training that a task's file and its options name, which win; all others have their defaults."""
    of_file = read_recipe(Path(task.config)) if task.config else {}
    return of_file | {name: value for name in options if (value := getattr(task, name)) is not None}


class TrainingTask(luigi.Task):
    """What all trainings share: a run in a folder of its own, whose result is written last.

    Attributes:
        spec: what the run is made from.
    """

    retry_count = 1
    """What stops a training stops it again, and one that was told to stop is not to begin anew: no second try."""

    result: ClassVar[str] = MODEL

    workspace = WorkspaceParameter(default="", description="folder of all outputs (FIQA_WORKSPACE)")

    spec: StageSpec

    @property
    def resources(self) -> dict[str, int]:
        """What it takes: the whole device."""
        return {"gpu": 1} if getattr(self, "device", Device.CPU) == "cuda" else {"cpu": 1}

    @property
    def store(self) -> Store:
        """Where the data set's outputs lie."""
        raise NotImplementedError

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.store.folder(self.spec)

    @property
    def trained(self) -> bool:
        """Whether the result is there."""
        return (self.folder / self.result).is_file()

    def complete(self) -> bool:
        """Whether the result is there and `current` names it."""
        return self.trained and self.store.current(self.spec.name) == self.spec.fingerprint

    def publish(self) -> None:
        """Point `current` at the run."""
        self.store.point_current(self.spec)

    def print_complete(self) -> None:
        """Say that nothing had to be done, and where the run lies."""
        tell(f"nothing to do: {self.spec.name} of {self.store.root.name} is complete in {self.folder}")


TrainingTask.event_handler(luigi.Event.DEPENDENCY_PRESENT)(TrainingTask.print_complete)


class TrainFactorNet(TrainingTask):
    """Trains the network of occlusion, expression and lighting from WIDER FACE's layout.

    `luigi --module pipeline TrainFactorNet --dataset wider_face --device cuda`

    The result is a folder with the ONNX file, its metrics, its card, and a models.toml: name that folder in `[models]
    factors`, and the factors and labels are made anew with it.
    """

    result = "models.toml"

    dataset = luigi.Parameter(default="wider_face", description="a manifest of format wider_face")
    name = luigi.Parameter(default="factors_own", description="the network's name in models.toml")
    epochs = TypedParameter(int, default=0, description="passes over the training faces; 0: the trainer's default")
    seed = TypedParameter(int, default=0, description="of weights, order and augmentation")
    align = TypedParameter(
        bool, default=True, description="align faces by their landmarks, as labelled ones are; false: cut boxes out"
    )
    device = TypedParameter(Device, default=Device.CPU, significant=False, description="where: cpu or cuda")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        set_up_logs()
        with one_message():
            self.manifest = load_manifest(self.dataset, workspace=Path(self.workspace))
            if self.manifest.format is not Format.WIDER_FACE:
                raise JobError(f"{self.manifest.name} has the format {self.manifest.format}: wider_face is needed")
            self.detector = load_registry().get(DETECTOR, Kind.DETECTOR) if self.align else None
            self.spec = StageSpec(
                name=FACTOR_NET,
                version=2,
                data=read_identity(self.manifest).digest,
                parameters={"name": self.name, "epochs": self.epochs, "seed": self.seed, "align": self.align},
                weights={DETECTOR: sha256_of_entry(self.detector)} if self.detector else {},
            )

    @property
    def store(self) -> Store:
        """Where the data set's outputs lie."""
        return Store(root=Path(self.workspace) / self.manifest.name)

    def requires(self) -> Sequence[luigi.Task]:
        """The weights of the face detector that aligns."""
        return [Weights.of(self.detector, self.spec.weights[DETECTOR])] if self.detector else []

    def run(self) -> None:
        """Train in a child process, then point `current` at the result."""
        if not self.trained:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            words = ["--root", str(self.manifest.root), "--output", str(self.folder)]
            words += ["--name", self.name, "--seed", str(self.seed), "--device", self.device]
            words += ["--epochs", str(self.epochs)] if self.epochs else []
            words += [] if self.align else ["--no-align"]
            train(self.store, self.spec, "training.factor_net", words, Launch())
            sync_folder(self.folder.parent)
        self.publish()


class QualityTask(luigi.Task):
    """What all trainings of the quality model are asked for: labels, settings, and where they compute."""

    dataset = DatasetParameter(
        default="", description="name of a manifest, or path of a TOML file, a folder of images, a .rec"
    )
    limit = TypedParameter(int, default=0, description="train on the labels of the first N images only")
    recogniser = luigi.Parameter(default="", description=RECOGNISER_TEXT)
    workspace = WorkspaceParameter(default="", description="folder of all outputs (FIQA_WORKSPACE)")
    device = TypedParameter(Device, default=Device.CPU, significant=False, description="where: cpu or cuda")
    gpus = TypedParameter(int, default=0, significant=False, description="processes by torchrun; 0: one without it")
    config = luigi.Parameter(
        default="", description="file of settings, such as recipes/clib_paper.toml; its keys are options too, which win"
    )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the training that the file and the options name; all others have their defaults."""
        return find_settings(self, read_recipe, _OPTIONS)


_OPTIONS = make_options({name: setting for name, setting in SETTINGS.items() if name != "rules"}, FREE)
"""The settings of a training as options of a task; single rules stand in a file."""

add_options(QualityTask, _OPTIONS)


class TrainQuality(TrainingTask, QualityTask):
    """Trains CLIB-FIQA's model from the labels of a data set, and goes on where it was stopped.

    `luigi --module pipeline TrainQuality --dataset ms1mv2 --config recipes/clib_paper.toml --device cuda`
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with one_message():
            if self.gpus < 0:
                raise JobError(f"--gpus {self.gpus}: give a number of GPUs, or leave it out")
            self.chosen = self.settings
            parameters = describe_settings(self.chosen)
        self.labels = LabelAll(
            dataset=self.dataset, limit=self.limit, recogniser=self.recogniser, workspace=self.workspace
        )
        labels = self.labels.job.stages["labels"]
        self.spec = StageSpec(
            name=QUALITY_MODEL, version=1, data=labels.data, parameters=parameters, upstream=(labels,)
        )

    @property
    def launch(self) -> Launch:
        """By torchrun where several GPUs are asked for."""
        return Launch(processes=self.gpus)

    @property
    def store(self) -> Store:
        """Where the data set's outputs lie."""
        return self.labels.job.store

    def requires(self) -> LabelAll:
        """The labels."""
        return self.labels

    def run(self) -> None:
        """Train in a child process, which goes on from its last checkpoint, and publish the run."""
        job = self.labels.job
        words = ["--labels", str(self.store.folder(job.stages["labels"])), "--images", str(job.manifest.data_path)]
        words += ["--output", str(self.folder), "--device", self.device, *to_words(self.chosen)]
        train(self.store, self.spec, "training.train_quality", words, self.launch)
        self.publish()
        if (self.folder / CONFIDENCE.name).is_dir():
            command = self.labels.command.with_thresholds(job.settings.labels.model_dump())
            again = command.replace(f" {LabelAll.__name__} ", " LabelReport ")
            tell(f"to look at the images whose factors fit their quality least: {again}")


def describe_settings(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What a training's fingerprint knows of its settings: the same for all ways to write the same settings.

    Raises:
        ValueError: if the settings do not fit together; says why.
    """
    named = {name: chosen.get(name, SETTINGS[name].default) for name in ("recipe", "tower", "pretrained", "seed")}
    # Without other changes it is the empty text of runs before there were files, so that those are found.
    return {**named, "pretrained": named["pretrained"] or "none", "options": find_changes(chosen, but=named) or ""}
