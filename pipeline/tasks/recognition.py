"""The training of a recogniser as a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi

from data_manifests.identity import read_identity
from data_manifests.manifest import LABELLED_FORMATS
from labelers.runtime.device import Device
from pipeline.config.job import JobError, load_data_set
from pipeline.config.parameters import TypedParameter
from pipeline.logs import one_message, set_up_logs
from pipeline.storage.fingerprint import StageSpec
from pipeline.storage.store import Store
from pipeline.tasks.publish import DatasetParameter
from pipeline.tasks.training import Launch, TrainingTask, add_options, find_settings, make_options, train
from training.command_line.settings import to_words
from training.recognition.config import FREE
from training.recognition.settings import SETTINGS, make_config, read_recipe

if TYPE_CHECKING:
    from data_manifests.manifest import Manifest

RECOGNISER = "recogniser"
"""The folder of runs."""


class TrainRecognition(TrainingTask):
    """Trains CR-FIQA, a recogniser with a quality, from the images of a data set and whom they show.

    `luigi --module pipeline TrainRecognition --dataset ms1mv2 --config recipes/cr_fiqa_l.toml --device cuda`

    The result is a folder with the recogniser, its models.toml, its class centres and its scorer. `LabelAll
    --recogniser RUN` makes embeddings, centres, anchors and labels anew with its network and centres;
    `--models-recognition RUN` takes its network alone.
    """

    dataset = DatasetParameter(
        default="", description="name of a manifest, or path of a TOML file, a folder of images, a .rec"
    )
    name = luigi.Parameter(default="cr_fiqa", description="the network's name in models.toml")
    device = TypedParameter(Device, default=Device.CPU, significant=False, description="where: cpu or cuda")
    gpus = TypedParameter(int, default=0, significant=False, description="processes by torchrun; 0: one without it")
    config = luigi.Parameter(
        default="", description="file of settings, such as recipes/cr_fiqa_s.toml; its keys are options too, which win"
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        set_up_logs()
        with one_message():
            if self.gpus < 0:
                raise JobError(f"--gpus {self.gpus}: give a number of GPUs, or leave it out")
            self.chosen = find_settings(self, read_recipe, _OPTIONS)
            self.manifest = self._load_manifest()
            parameters = {"name": self.name, **describe_settings(self.chosen)}
            data = read_identity(self.manifest).digest
            self.spec = StageSpec(name=RECOGNISER, version=1, data=data, parameters=parameters)

    @property
    def store(self) -> Store:
        """Where the data set's outputs lie."""
        return Store(root=Path(self.workspace) / self.manifest.name)

    def run(self) -> None:
        """Train in a child process, which goes on from its last checkpoint, then point `current` at the run."""
        if not self.trained:
            words = ["--images", str(self.manifest.data_path), "--output", str(self.folder), "--name", self.name]
            words += ["--licence", self.manifest.licence, "--device", self.device, *to_words(self.chosen)]
            train(self.store, self.spec, "training.train_recognition", words, Launch(processes=self.gpus))
        self.publish()

    def _load_manifest(self) -> Manifest:
        """The data set, which has to say whom its images show."""
        found = load_data_set(self.dataset, Path(self.workspace))
        if found.format not in LABELLED_FORMATS:
            raise JobError(
                f"{found.name} has the format {found.format}: images with people are needed, "
                f"{' or '.join(LABELLED_FORMATS)}"
            )
        return found


_OPTIONS = make_options(SETTINGS, FREE)
"""The settings of a training as options of a task."""

add_options(TrainRecognition, _OPTIONS)


def describe_settings(chosen: dict[str, Any]) -> dict[str, Any]:
    """What a training's fingerprint knows of its settings: the same for all ways to write the same settings.

    Raises:
        ValueError: if the settings do not fit together; says why.
    """
    found = make_config(chosen).decide()
    if chosen.get("bf16") is None:
        del found["bf16"]  # its default depends on the device, which decides no run
    return found
