"""Quality on top of a recogniser as a task: it reads the tables of a data set, and no image."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_type_hints

import luigi

from data_manifests.storage.values import attributes
from pipeline.config.parameters import TypedParameter
from pipeline.logs import one_message
from pipeline.storage.fingerprint import StageSpec
from pipeline.tasks.publish import RECOGNISER_TEXT, AnchorsAll, DatasetParameter
from pipeline.tasks.training import Launch, TrainingTask, add_options, train
from training.on_top.config import OnTopConfig

if TYPE_CHECKING:
    from pipeline.storage.store import Store

ON_TOP = "on_top"
"""The folder of runs."""

VERSION = 1
"""Raised when the same tables give another quality."""


class TrainOnTop(TrainingTask):
    """Learns the certainty ratio from the recogniser's embeddings and norms (CR-FIQA on top), without reading an image.

    `luigi --module pipeline TrainOnTop --dataset ms1mv2 --models-recognition w600k_r50`
    """

    dataset = DatasetParameter(
        default="", description="name of a manifest, or path of a TOML file, a folder of images, a .rec"
    )
    limit = TypedParameter(int, default=0, description="learn from the first N images only")
    recogniser = luigi.Parameter(default="", description=RECOGNISER_TEXT)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with one_message():
            self.anchors = AnchorsAll(
                dataset=self.dataset, limit=self.limit, recogniser=self.recogniser, workspace=self.workspace
            )
        self.chosen = OnTopConfig(**{field.name: getattr(self, field.name) for field in fields(OnTopConfig)})
        anchors = self.anchors.job.stages["anchors"]
        parameters = self.chosen.describe()
        self.spec = StageSpec(
            name=ON_TOP, version=VERSION, data=anchors.data, parameters=parameters, upstream=(anchors,)
        )

    @property
    def store(self) -> Store:
        """Where the data set's outputs lie."""
        return self.anchors.job.store

    def requires(self) -> AnchorsAll:
        """The anchors, and the embeddings that they are made from."""
        return self.anchors

    def run(self) -> None:
        """Learn in a child process, and point `current` at the run."""
        stages = self.anchors.job.stages
        words = ["--output", str(self.folder)]
        for stage in ("index", "embeddings", "anchors"):
            words += [f"--{stage}", str(self.store.folder(stages[stage]))]
        words += [f"--{name.replace('_', '-')}={value}" for name, value in self.spec.parameters.items() if value]
        train(self.store, self.spec, "training.train_on_top", words, Launch())
        self.publish()


def _make_options() -> dict[str, TypedParameter]:
    """An option of every setting."""
    kinds, texts, defaults = get_type_hints(OnTopConfig, include_extras=True), attributes(OnTopConfig), OnTopConfig()
    return {
        name: TypedParameter(kind, default=getattr(defaults, name), description=texts[name].rstrip("."))
        for name, kind in kinds.items()
    }


add_options(TrainOnTop, _make_options())
