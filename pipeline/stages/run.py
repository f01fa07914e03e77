"""Makes a stage: what is missing is computed in parts, whole shards are checked and shown, and a receipt is kept."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.tables.scores import STAGE_TABLES
from pipeline.execution.dispatch import run_parts
from pipeline.execution.journal import NAME as JOURNAL
from pipeline.execution.journal import Journalled
from pipeline.execution.progress import StageProgress
from pipeline.stages.columns import check_table
from pipeline.storage.receipts import write_receipt
from pipeline.storage.shards import Part, plan_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.execution.contract import PartOutcome, PartWork
    from pipeline.execution.dask_workers import Cluster
    from pipeline.storage.fingerprint import StageSpec
    from pipeline.storage.store import Store

logger = logging.getLogger(__name__)

_HOPELESS = 8
"""When so many parts failed and none succeeded, the rest is not tried."""


class StageError(RuntimeError):
    """Some parts of a stage failed; says how many, which first, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """One attempt to make a sharded stage.

    Attributes:
        store: where tables lie.
        spec: the stage.
        index: the index, whose shards give the rows.
        work: computes one part.
        processes: how many processes compute.
        gpus: how many GPUs they share; 0 for none.
        cluster: the Dask cluster that computes instead, if there is one.
        title: the stage and its place among all, for people.
        report: takes (share done, line of text) for Luigi's pages.
        later: seconds that the stages still to come will take, as StageProgress takes them.
    """

    store: Store
    spec: StageSpec
    index: StageSpec
    work: PartWork
    processes: int
    title: str
    gpus: int = 0
    cluster: Cluster | None = None
    report: Callable[[float, str], None] | None = None
    later: tuple[float, str] = (0.0, "")
    _figures: Counter[str] = field(default_factory=Counter)

    def make(self) -> None:
        """Compute what is missing.

        Raises:
            StageError: if parts failed; all others are whole and stay.
        DamagedShardError: if they failed because what they read is damaged.
        """
        started = time.monotonic()
        self.store.remember(self.spec)
        shards = self._missing_shards()
        staged = self.store.present_parts(self.spec)
        waiting = {s: set(parts) - staged for s, parts in shards.items()}
        for shard in [s for s, parts in waiting.items() if not parts]:
            self._assemble(shard, shards[shard])
            del waiting[shard]
        todo = [part for parts in shards.values() for part in parts if part in waiting.get(part.shard, ())]
        failed, start = self._compute(todo, shards, waiting)
        peak = self._figures.pop("peak", 0)
        write_receipt(
            self.store,
            self.spec,
            self._figures,
            time.monotonic() - started,
            min(self.processes, max(1, len(todo))),
            gpus=self.gpus,
            cluster=self.cluster.address if self.cluster else "",
            peak=peak,
            start=start,
        )
        if failed:
            self._read_again({outcome.part.shard for outcome in failed})
            raise StageError(_explain(self.spec.name, failed, len(todo)))
        self.store.drop_staging(self.spec)

    def _missing_shards(self) -> dict[int, tuple[Part, ...]]:
        """The parts of every shard that is not there, by the index's shards."""
        present = self.store.present_shards(self.spec)
        missing = sorted(self.store.present_shards(self.index) - present)
        return {s: plan_parts(s, self.store.rows(self.index, s)) for s in missing}

    def _compute(
        self, todo: list[Part], shards: Mapping[int, tuple[Part, ...]], waiting: dict[int, set[Part]]
    ) -> tuple[list[PartOutcome], tuple[float, int]]:
        """Compute parts, make each shard as soon as its parts are all there.

        Returns:
            What failed; the seconds until the first rows were done, and how many those were.
        """
        failed: list[PartOutcome] = []
        total = sum(self.store.rows(self.index, s) for s in self.store.present_shards(self.index))
        before = total - sum(part.rows for part in todo)
        work = Journalled(work=self.work, path=self.store.receipts(self.spec) / JOURNAL)
        with StageProgress(self.title, total, before, self.report, self.later) as meter:
            outcomes = run_parts(
                work, todo, self.processes, lambda rows: meter.show(before + rows), self.cluster, gpus=self.gpus
            )
            for outcome in outcomes:
                if outcome.error:
                    failed.append(outcome)
                    if outcome.is_general:
                        break
                    logger.error("%s: %s failed\n%s", self.spec.name, _name(outcome.part), outcome.error.rstrip())
                    if len(failed) >= _HOPELESS and not self._figures["rows"]:
                        break
                    continue
                self._figures.update(outcome.figures)
                self._figures["peak"] = max(self._figures["peak"], outcome.peak_bytes)
                self._figures["rows"] += outcome.part.rows
                waiting[outcome.part.shard].discard(outcome.part)
                if not waiting[outcome.part.shard]:
                    self._assemble(outcome.part.shard, shards[outcome.part.shard])
        return failed, meter.start

    def _read_again(self, shards: set[int]) -> None:
        """Read what failed parts were made from, so that a damaged shard is known by its own error.

        Raises:
            DamagedShardError: if one is.
        """
        for spec in self.spec.upstream:
            for number in sorted(shards & self.store.present_shards(spec)):
                self.store.read(spec, number)

    def _assemble(self, shard: int, parts: tuple[Part, ...]) -> None:
        """Join the parts of a shard, check the whole, show it, and drop the parts."""
        paths = [self.store.part(self.spec, part) for part in parts]
        table = pa.concat_tables([pq.read_table(p) for p in paths]).unify_dictionaries().combine_chunks()
        keys = self.store.read(self.index, shard, ["key"])["key"].combine_chunks()
        check_table(STAGE_TABLES[self.spec.name], table, pa.chunked_array([keys]))
        shards = self.store.shard_count(self.index)
        self.store.write_shard(self.spec, shard, table, shards or 1)
        for path in paths:
            path.unlink()


def _name(part: Part) -> str:
    """A part as a person finds it."""
    return f"rows {part.start} to {part.stop - 1} of shard {part.shard}"


def _explain(stage: str, failed: list[PartOutcome], tried: int) -> str:
    """What failed, in one message with the remedy."""
    last_line = failed[0].error.strip().splitlines()[-1]
    return (
        f"{stage}: {len(failed)} of {tried} parts failed, the first is {_name(failed[0].part)}: {last_line}. "
        "What was finished is kept; mend the cause and run the same command again"
    )
