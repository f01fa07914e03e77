"""The stages that read: the index, and what is measured from pixels."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from data_manifests.tables.stages import TABLES
from data_manifests.weights.entry import MatrixOutput
from pipeline.config.pixel_stages import PIXEL_STAGES, PixelStage
from pipeline.stages.index import index_images, write_index
from pipeline.stages.labeler_factories import for_stage
from pipeline.stages.measure import LabelerFactory, MeasureImages, forget_labeler
from pipeline.storage.receipts import write_receipt
from pipeline.tasks.stage import Stage
from pipeline.tasks.weights import Weights

if TYPE_CHECKING:
    import luigi


class Index(Stage):
    """Where every image lies and whom it shows."""

    retry_count = 1  # a damaged list stays so
    stage = "index"
    priority = (
        1  # before anything that takes longer: a damaged list of one data set is known before others are measured
    )

    def make(self) -> None:
        """Read the index of the data set and write it in shards."""
        started = time.monotonic()
        indexed = index_images(self.job.manifest)
        write_index(self.store, self.spec, indexed, self.job.limit)
        write_receipt(self.store, self.spec, {"rows": indexed.table.num_rows}, time.monotonic() - started, 1)


class Measure(Stage):
    """A stage that measures pixels."""

    needs = (Index,)

    def factory(self) -> LabelerFactory:
        """What opens the labeler in a worker."""
        raise NotImplementedError

    def make(self) -> None:
        """Measure all images."""
        work = MeasureImages(
            store=self.store,
            spec=self.spec,
            index=self.job.stages["index"],
            source=self.job.source,
            factory=self.factory(),
        )
        try:
            self.compute(work)
        finally:
            # A model that stays open would hold memory and threads beside the next stage's.
            forget_labeler()


class _PixelTask(Measure):
    """The task of a stage of PIXEL_STAGES."""

    reads: ClassVar[PixelStage]

    def requires(self) -> list[luigi.Task]:
        """The index and the network's weights."""
        needed = super().requires()
        if self.reads.role:
            entry = self.job.models[self.reads.role]
            needed.append(Weights.of(entry, self.spec.weights[entry.name]))
        return needed

    def can_use_gpu(self) -> bool:
        """All can but MediaPipe's FaceLandmarker, which has a process for every core."""
        return not self.reads.role or not isinstance(self.job.models[self.reads.role].output, MatrixOutput)

    def factory(self) -> LabelerFactory:
        """What opens the labeler in a worker."""
        return for_stage(self.reads, self.job.settings, self.job.models)


def _make_task(stage: PixelStage) -> type[_PixelTask]:
    """The task of a stage, named after it."""
    content = {
        "__doc__": TABLES[stage.name].text,
        "__module__": __name__,
        "stage": stage.name,
        "reads": stage,
    }
    return type(stage.name.capitalize(), (_PixelTask,), content)


PIXEL_TASKS = {stage.name: _make_task(stage) for stage in PIXEL_STAGES}
"""The task of every stage that reads pixels."""

# A task travels to the process that runs it by its module and its name.
globals().update({task.__name__: task for task in PIXEL_TASKS.values()})
