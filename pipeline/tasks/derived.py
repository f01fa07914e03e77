"""The stages that are made from tables: centres, anchors, their range, and the labels."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from data_manifests.tables.stages import TABLES
from pipeline.config.job import read_head
from pipeline.config.pixel_stages import CARRIED
from pipeline.stages.anchors import CompareCentres, head_table, sum_centres, summarise_anchors, write_centre_vectors
from pipeline.stages.columns import check_table
from pipeline.stages.labels import anchor_limits, make_labels
from pipeline.storage.receipts import write_receipt
from pipeline.tasks.pixels import PIXEL_TASKS, Index
from pipeline.tasks.stage import Stage, progress_callback

if TYPE_CHECKING:
    import pyarrow as pa


class _OneTable(Stage):
    """A stage of one small table."""

    retry_count = 1  # what fails fails again

    def table(self) -> pa.Table:
        """The table."""
        raise NotImplementedError

    def make(self) -> None:
        """Write the table as the only shard."""
        started = time.monotonic()
        self.store.remember(self.spec)
        table = self.table()
        self.store.write_shard(self.spec, 0, table, 1)
        write_receipt(self.store, self.spec, {"rows": table.num_rows}, time.monotonic() - started, 1)


class Centres(_OneTable):
    """Class centres."""

    stage = "centres"
    needs = (Index, PIXEL_TASKS["embeddings"])

    def table(self) -> pa.Table:
        """Sums of unit embeddings, or the columns of the recogniser's last layer."""
        index, embeddings = self.job.stages["index"], self.job.stages["embeddings"]
        head, path = read_head(self.job), self.job.settings.head
        if head is not None and path is not None:
            return head_table(path, head, self.store, index, embeddings)
        return sum_centres(self.store, index, embeddings, progress_callback(self))


class Anchors(Stage):
    """CCS, NNCCS and the certainty ratio."""

    stage = "anchors"
    needs = (*Centres.needs, Centres)

    def make(self) -> None:
        """Compare every embedding with all centres."""
        stages = self.job.stages
        vectors = self.store.staging(self.spec) / "centres.npy"
        write_centre_vectors(self.store.shard(stages["centres"], 0), vectors)
        work = CompareCentres(
            store=self.store,
            spec=self.spec,
            index=stages["index"],
            embeddings=stages["embeddings"],
            centres=stages["centres"],
            vectors=vectors,
            device=self.job.settings.device_of(self.stage),
        )
        self.compute(work)


class AnchorRange(_OneTable):
    """The statistics that normalise the anchor."""

    stage = "anchor_range"
    needs = (Anchors,)

    def table(self) -> pa.Table:
        """Ends and outer quantiles over the data set."""
        return summarise_anchors(self.store, self.job.stages["anchors"])


class Labels(Stage):
    """Every measure with its class, and the quality."""

    retry_count = 1  # likewise
    stage = "labels"
    needs = (Index, *(task for name, task in PIXEL_TASKS.items() if name in CARRIED), Anchors, AnchorRange)

    def make(self) -> None:
        """Join and classify shard by shard; thresholds cost seconds, so nothing is staged."""
        started = time.monotonic()
        stages, settings = self.job.stages, self.job.settings.labels
        self.store.remember(self.spec)
        row = self.store.read(stages["anchor_range"], 0).to_pylist()[0]
        limits = anchor_limits(row, settings)
        shards = self.store.shard_count(stages["index"]) or 1
        missing = sorted(set(range(shards)) - self.store.present_shards(self.spec))
        advance = progress_callback(self)
        rows = 0
        for shard in missing:
            index = self.store.read(stages["index"], shard, ["key", "identity"])
            measured = {stage: self._measures(stage, shard) for stage in CARRIED}
            table = make_labels(index, measured, limits, settings)
            check_table(TABLES["labels"], table, index["key"])
            self.store.write_shard(self.spec, shard, table, shards)
            rows += table.num_rows
            advance(table.num_rows)
        write_receipt(self.store, self.spec, {"rows": rows}, time.monotonic() - started, 1)

    def _measures(self, stage: str, shard: int) -> pa.Table:
        """What the labels carry of one stage."""
        spec = self.job.stages[stage]
        columns = [c.name for c in TABLES[stage].written(spec.parameters) if c.name != "embedding"]
        return self.store.read(spec, shard, columns)
