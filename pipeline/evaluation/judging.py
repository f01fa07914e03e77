"""Judges qualities on every benchmark with every recogniser: from the tables of stages to those of the evaluation."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_manifests.benchmarks.pairs import PairList, read_pairs
from data_manifests.manifest import Format
from data_manifests.tables.evaluation import ACCURACY, EVALUATION_TABLES
from labelers.runtime.denormals import flush_denormals
from pipeline.evaluation.asked import EvaluationError
from pipeline.evaluation.images import read_embeddings, read_images, read_measure
from pipeline.evaluation.plan import CORRELATED
from pipeline.evaluation.pooling import judge_templates
from pipeline.evaluation.qualities import QualityReader, read_lists
from training.evaluation.compared import BenchmarkError, compare_identities, compare_pairs
from training.evaluation.evaluate import Options, Rows, correlate, judge, list_qualities, stamp
from training.evaluation.methods.command_line import MethodKind
from training.evaluation.pairs.all_pairs import IdentitySetError
from training.evaluation.pairs.similarity import pair_similarities, unit_embeddings
from training.evaluation.verification import VerificationPairsError, measure_accuracy

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipeline.config.job import Job
    from pipeline.evaluation.images import BenchmarkImages
    from pipeline.evaluation.plan import Plan, PlannedBenchmark
    from training.evaluation.compared import Compared

    Qualities = dict[str, NDArray[np.floating[Any]]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedBenchmark:
    """What is kept of a benchmark for pictures of its faces.

    Attributes:
        benchmark: which one.
        images: its images.
        measures: measure -> value [N].
    """

    benchmark: PlannedBenchmark
    images: BenchmarkImages
    measures: Qualities


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An evaluation.

    Attributes:
        tables: by name, all of EVALUATION_TABLES.
        benchmarks: in the order of the plan.
        left_out: benchmark -> recogniser -> pairs of a list, or images of an identity set, without an embedding.
        notes: what a reader should know, in sentences.
    """

    tables: dict[str, pa.Table]
    benchmarks: tuple[JudgedBenchmark, ...]
    left_out: dict[str, dict[str, int]]
    notes: tuple[str, ...]


@flush_denormals()
def evaluate(plan: Plan, tell: Callable[[str], None]) -> Outcome:
    """Judge all methods on all benchmarks.

    Args:
        plan: an evaluation whose stages are all there.
        tell: is told what is done now.

    Raises:
        EvaluationError, ScoreListError, PoolingError: each names the benchmark or the file.
    """
    lists = read_lists(plan)
    readers = [
        QualityReader(
            plan=plan,
            benchmark=benchmark,
            images=read_images(benchmark.job.store, benchmark.job.stages["index"]),
            lists=lists,
        )
        for benchmark in plan.benchmarks
    ]
    shared = [reader.read_shared() for reader in readers]
    for method in plan.methods:
        if method.kind is MethodKind.TABLE and not any(method.name in qualities for qualities in shared):
            raise EvaluationError(f"{method.path}: none of its rows names an image of any of the benchmarks")
    judges = [_Judge(reader, qualities, tell) for reader, qualities in zip(readers, shared, strict=True)]
    judged = tuple(each.judge() for each in judges)
    parts = defaultdict(list)
    for each in judges:
        for name, table in each.tables:
            parts[name].append(table)
    tables = {name: _join(parts[name], table.schema()) for name, table in EVALUATION_TABLES.items()}
    notes = [note for each in judges for note in each.notes]
    notes += [f"{name} is not at hand and left out" for name in plan.missing]
    left_out = {kept.benchmark.name: each.left_out for kept, each in zip(judged, judges, strict=True)}
    return Outcome(tables=tables, benchmarks=judged, left_out=left_out, notes=tuple(notes))


def _join(parts: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """One table of many."""
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks() if parts else schema.empty_table()


class _Judge:
    """Judges all methods on one benchmark.

    Attributes:
        tables: name and rows of what came out so far.
        left_out: recogniser -> pairs or images without an embedding.
        notes: what a reader should know.
    """

    def __init__(self, reader: QualityReader, shared: Qualities, tell: Callable[[str], None]) -> None:
        asked = reader.plan.asked
        self.tables: list[tuple[str, pa.Table]] = []
        self.left_out: dict[str, int] = {}
        self.notes = reader.notes
        self._reader = reader
        self._benchmark = reader.benchmark
        self._images = reader.images
        self._shared = shared
        self._tell = tell
        self._correlate = asked.correlate
        self._options = Options(fmrs=asked.fmrs, protocols=asked.protocols, replicates=asked.replicates)

    def judge(self) -> JudgedBenchmark:
        """Judge with every recogniser, then compare with the measures of the factory."""
        own = {name: self._judge_recogniser(name, job) for name, job in self._benchmark.jobs.items()}
        named = dict(self._shared)
        for recogniser, qualities in own.items():
            for method, quality in qualities.items():
                named[method if len(own) == 1 else f"{method} ({recogniser})"] = quality
        measures = self._read_measures() if self._correlate else {}
        self._add("correlations", correlate(named, measures))
        self._add("qualities", list_qualities(self._images.keys, named))
        return JudgedBenchmark(
            benchmark=self._benchmark,
            images=self._images,
            measures=measures,
        )

    def _judge_recogniser(self, recogniser: str, job: Job) -> Qualities:
        """Judge by the errors of one recogniser, and give the qualities that are its own."""
        self._tell(f"{self._benchmark.name} with {recogniser}")
        own = self._reader.read_own(job)
        qualities = self._in_order(self._shared | own)
        embeddings = read_embeddings(job.store, job.stages["embeddings"])
        found = ~np.isnan(embeddings[:, 0])
        if job.manifest.format is Format.TEMPLATES:
            pooled = judge_templates(job.manifest, self._images.keys, embeddings, qualities, self._options)
            self._add("templates", pooled.table, recogniser)
            self.notes.extend(f"{self._benchmark.name} with {recogniser}: {note}" for note in pooled.notes)
            return own
        try:
            compared = self._compare(recogniser, job, embeddings, found)
        except (BenchmarkError, IdentitySetError, VerificationPairsError) as error:
            raise EvaluationError(f"{self._benchmark.name} with {recogniser}: {error}") from error
        self.left_out[recogniser] = compared.left_out
        for name, table in zip(
            ("metrics", "curves", "comparisons"), judge(compared, qualities, self._options), strict=True
        ):
            self._add(name, table, recogniser)
        return own

    def _compare(
        self, recogniser: str, job: Job, embeddings: NDArray[np.float32], found: NDArray[np.bool_]
    ) -> Compared:
        """Compare a list of pairs, or known people all against all."""
        if job.manifest.format is Format.VERIFICATION:
            return self._compare_pairs(recogniser, job, embeddings, found)
        device = job.settings.device
        return compare_identities(embeddings, found, self._images.identities, self._options.fmrs, device)

    def _compare_pairs(
        self, recogniser: str, job: Job, embeddings: NDArray[np.float32], found: NDArray[np.bool_]
    ) -> Compared:
        """Compare a list of pairs, and measure the recogniser's accuracy on the way."""
        pairs = _keep_indexed(read_pairs(job.manifest), self._images.keys)
        compared = compare_pairs(embeddings, found, self._images.keys, pairs, self._options.fmrs)
        a, b = np.searchsorted(self._images.keys, pairs.a), np.searchsorted(self._images.keys, pairs.b)
        kept = found[a] & found[b]
        units = unit_embeddings(embeddings, np.arange(len(embeddings)))
        similarity = pair_similarities(units, a[kept], b[kept])
        accuracy = measure_accuracy(similarity, pairs.same[kept], pairs.fold[kept])
        row = {
            "accuracy": accuracy.mean,
            "std": accuracy.std,
            "threshold": float(accuracy.squared_distances.mean()),
        }
        self._add("accuracy", Rows(ACCURACY, [row]).to_arrow(), recogniser)
        return compared

    def _read_measures(self) -> Qualities:
        """Measures of the factory that qualities are compared with."""
        job = self._benchmark.job
        stages = [(stage, column) for stage in CORRELATED for column in _COLUMNS[stage]]
        stages += [("anchors", "certainty_ratio")] if self._benchmark.with_anchors else []
        found = {}
        for stage, column in stages:
            values = read_measure(job.store, job.stages[stage], column)
            found[f"abs_{column}" if stage == "pose" else column] = np.abs(values) if stage == "pose" else values
        return found

    def _in_order(self, qualities: Qualities) -> Qualities:
        """As the command names the methods."""
        return {m.name: qualities[m.name] for m in self._reader.plan.methods if m.name in qualities}

    def _add(self, name: str, table: pa.Table, recogniser: str = "") -> None:
        """Keep rows of a table."""
        columns = {"benchmark": self._benchmark.name} | ({"recogniser": recogniser} if recogniser else {})
        self.tables.append((name, stamp(table, **columns)))


_COLUMNS = {
    "blur": ("cpbd", "sobel"),
    "pose": ("yaw_deg", "pitch_deg"),
    "factors": ("p_obstructed", "p_exaggerated", "p_extreme_lighting"),
}
"""Measures that qualities are compared with; of angles, how far a face is turned."""


def _keep_indexed(pairs: PairList, keys: NDArray[np.int32]) -> PairList:
    """The pairs of which both images are in an index, which a limit may have cut."""
    kept = np.isin(pairs.a, keys) & np.isin(pairs.b, keys)
    return PairList(a=pairs.a[kept], b=pairs.b[kept], same=pairs.same[kept], fold=pairs.fold[kept])
