"""The stages that read: the index, and what is measured from pixels."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline import openers
from pipeline.index import index_images, write_index
from pipeline.measure import MeasureImages, Opener, forget_labeler
from pipeline.receipts import write_receipt
from pipeline.stage import Stage
from pipeline.tasks.weights import Weights

if TYPE_CHECKING:
    import luigi


class Index(Stage):
    """Where every image lies and whom it shows."""

    stage = "index"

    def make(self) -> None:
        """Read the index of the data set and write it in shards."""
        started = time.monotonic()
        indexed = index_images(self.job.manifest)
        write_index(self.store, self.spec, indexed, self.job.limit)
        write_receipt(self.store, self.spec, {"rows": indexed.table.num_rows}, time.monotonic() - started, 1)


class Measure(Stage):
    """A stage that measures pixels."""

    needs = (Index,)

    def opener(self) -> Opener:
        """What opens the labeler in a worker."""
        raise NotImplementedError

    def make(self) -> None:
        """Measure all images."""
        work = MeasureImages(
            store=self.store,
            spec=self.spec,
            index=self.job.stages["index"],
            source=self.job.source,
            opener=self.opener(),
            readers=self.processes if "gpu" in self.resources else 0,
        )
        try:
            self.compute(work)
        finally:
            # A model that stays open would hold memory and threads beside the next stage's.
            forget_labeler()


class _Network(Measure):
    """A stage that measures pixels with a network of models.toml."""

    uses_gpu = True
    role: str

    def requires(self) -> list[luigi.Task]:
        """The index and the network's weights."""
        entry = self.job.models[self.role]
        return [*super().requires(), Weights.of(entry, self.spec.weights[entry.name])]

    def opener(self) -> Opener:
        """What opens the network in a worker."""
        return openers.for_model(self.job.models[self.role], self.job.settings.device)


class Blur(Measure):
    """CPBD and Sobel sharpness."""

    stage = "blur"

    def opener(self) -> Opener:
        """The blur labeler with its edge detector and block rule."""
        return openers.BlurOpener(edges=self.job.settings.edges, blocks=self.job.settings.blocks)


class Pose(_Network):
    """Yaw, pitch and roll."""

    stage = "pose"
    role = "pose"


class Factors(_Network):
    """Occlusion, expression and lighting."""

    stage = "factors"
    role = "factors"


class Embeddings(_Network):
    """Recognition embeddings."""

    stage = "embeddings"
    role = "recognition"
