"""Evaluates qualities on every benchmark with every recogniser: the stages' tables in, the evaluation's out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_manifests.benchmarks.pairs import PairList, read_pairs
from data_manifests.manifest import Format
from data_manifests.tables.evaluation import ACCURACY, EVALUATION_TABLES
from labelers.runtime.denormals import flush_denormals
from pipeline.evaluation.images import read_embeddings, read_measure
from pipeline.evaluation.methods import NETWORKS
from pipeline.evaluation.plan import CORRELATED
from pipeline.evaluation.pooling import read_template_pairs
from pipeline.evaluation.qualities import QualityReader, open_readers
from pipeline.evaluation.request import EvaluationError
from pipeline.evaluation.warnings import (
    join_warnings,
    warn_of_people,
    warn_of_scores,
    warn_of_training,
    warn_of_twins,
)
from training.evaluation.comparison import BenchmarkError, compare_identities, compare_pairs
from training.evaluation.evaluate import Options, correlate, evaluate_methods, find_twins, list_qualities, stamp
from training.evaluation.pairs.all_pairs import IdentitySetError
from training.evaluation.training_losses import read_losses
from training.evaluation.verification import VerificationPairsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipeline.config.job import Job
    from pipeline.evaluation.images import BenchmarkImages
    from pipeline.evaluation.plan import Plan, PlannedBenchmark
    from pipeline.evaluation.warnings import Caution
    from training.evaluation.comparison import ComparisonScores

    Qualities = dict[str, NDArray[np.floating[Any]]]

_COLUMNS = {
    "blur": ("cpbd", "sobel"),
    "pose": ("yaw_deg", "pitch_deg"),
    "factors": ("p_obstructed", "p_exaggerated", "p_extreme_lighting"),
}
"""Measures that qualities are compared with; of angles, how far a face is turned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedBenchmark:
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
        warnings: what may make the numbers say something else than they seem to, likewise.
    """

    tables: dict[str, pa.Table]
    benchmarks: tuple[EvaluatedBenchmark, ...]
    left_out: dict[str, dict[str, int]]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@flush_denormals()
def evaluate(plan: Plan, set_status: Callable[[str], None]) -> Outcome:
    """Evaluate all methods on all benchmarks.

    Args:
        plan: an evaluation whose stages are all there.
        set_status: is called with what is computed now.

    Raises:
        EvaluationError, ScoreListError, TemplateError: each names the benchmark or the file.
    """
    readers = open_readers(plan)
    for reader in readers:
        reader.notes.clear()  # they are said where the qualities are read, in the order of the methods
    shared = [reader.read_shared() for reader in readers]
    runs = [_BenchmarkRun(reader, qualities, set_status) for reader, qualities in zip(readers, shared, strict=True)]
    evaluated = tuple(run.evaluate() for run in runs)
    tables = {
        name: _join([run.tables[name] for run in runs], table.schema()) for name, table in EVALUATION_TABLES.items()
    }
    tables["losses"] = read_losses({m.name: m.path for m in plan.methods if m.kind in NETWORKS and m.path is not None})
    notes = [note for reader in readers for note in reader.notes]
    notes += [f"{name} is not at hand and left out" for name in plan.missing]
    left_out = {kept.benchmark.name: run.left_out for kept, run in zip(evaluated, runs, strict=True)}
    warnings = [*warn_of_training(plan, {each.benchmark.name: each.images for each in evaluated})]
    warnings += [found for run in runs for found in run.warnings]
    return Outcome(
        tables=tables, benchmarks=evaluated, left_out=left_out, notes=tuple(notes), warnings=join_warnings(warnings)
    )  # fmt: skip


def _join(found: list[list[pa.Table]], schema: pa.Schema) -> pa.Table:
    """One table of many."""
    parts = [part for parts in found for part in parts]
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks() if parts else schema.empty_table()


class _BenchmarkRun:
    """Evaluates all methods on one benchmark.

    Attributes:
        tables: name -> what came out so far.
        left_out: recogniser -> pairs or images without an embedding.
        warnings: of scores that hardly differ, and of methods that are one.
    """

    def __init__(self, reader: QualityReader, shared: Qualities, set_status: Callable[[str], None]) -> None:
        request = reader.plan.request
        self.tables: defaultdict[str, list[pa.Table]] = defaultdict(list)
        self.left_out: dict[str, int] = {}
        self.warnings: list[Caution] = []
        self._reader = reader
        self._benchmark = reader.benchmark
        self._images = reader.images
        self._shared = shared
        self._set_status = set_status
        self._options = Options(
            fmrs=request.fmrs,
            protocols=request.protocols,
            replicates=request.replicates,
            fewest_impostors=request.fewest_impostors,
            fewest_errors=request.fewest_errors,
        )

    def evaluate(self) -> EvaluatedBenchmark:
        """Evaluate with every recogniser, then compare with the measures of the factory."""
        own = {name: self._evaluate_recogniser(name, job) for name, job in self._benchmark.jobs.items()}
        named = dict(self._shared)
        for recogniser, qualities in own.items():
            for method, quality in qualities.items():
                named[method if len(own) == 1 else f"{method} ({recogniser})"] = quality
        self.warnings += warn_of_scores(self._benchmark.name, named)
        measures = self._read_measures() if self._reader.plan.request.correlate else {}
        self._add("correlations", correlate(named, measures))
        self._add("qualities", list_qualities(self._images.keys, named))
        return EvaluatedBenchmark(benchmark=self._benchmark, images=self._images, measures=measures)

    def _evaluate_recogniser(self, recogniser: str, job: Job) -> Qualities:
        """Evaluate by the errors of one recogniser, and give the qualities that are its own."""
        name = f"{self._benchmark.name} with {recogniser}"
        self._set_status(name)
        own = self._reader.read_own(job)
        qualities = self._in_order(self._shared | own)
        try:
            if self._benchmark.template_weights is not None:
                pairs = read_template_pairs(job, self._images.keys, self._benchmark.template_weights)
                scores = pairs.compare(self._options.fmrs)
                self._add("templates", pairs.measure(qualities, self._options), recogniser)
                self._reader.notes.extend(f"{name}: {note}" for note in pairs.notes)
                qualities = pairs.lowest(qualities)
            else:
                scores = self._compare(job)
        except (BenchmarkError, IdentitySetError, VerificationPairsError) as error:
            raise EvaluationError(f"{name}: {error}") from error
        self.left_out[recogniser] = scores.left_out
        self.warnings += warn_of_people(name, scores, self._options)
        self.warnings += warn_of_twins(name, find_twins(scores, qualities))
        metrics, curves, comparisons = evaluate_methods(scores, qualities, self._options)
        self._add("metrics", metrics, recogniser)
        self._add("curves", curves, recogniser)
        self._add("comparisons", comparisons, recogniser)
        if scores.accuracy is not None:
            row = {
                "accuracy": scores.accuracy.mean,
                "std": scores.accuracy.std,
                "threshold": float(scores.accuracy.squared_distances.mean()),
            }
            self._add("accuracy", ACCURACY.to_arrow([row]), recogniser)
        return own

    def _compare(self, job: Job) -> ComparisonScores:
        """Compare a list of pairs of images, or known people all against all."""
        embeddings = read_embeddings(job.store, job.stages["embeddings"])
        found = ~np.isnan(embeddings[:, 0])
        keys, fmrs = self._images.keys, self._options.fmrs
        if job.manifest.format is Format.VERIFICATION:
            return compare_pairs(embeddings, found, keys, _keep_indexed(read_pairs(job.manifest), keys), fmrs)
        return compare_identities(embeddings, found, self._images.identities, fmrs, job.settings.device)

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
        self.tables[name].append(stamp(table, **columns))


def _keep_indexed(pairs: PairList, keys: NDArray[np.int32]) -> PairList:
    """The pairs of which both images are in an index, which a limit may have cut."""
    kept = np.isin(pairs.a, keys) & np.isin(pairs.b, keys)
    return PairList(a=pairs.a[kept], b=pairs.b[kept], same=pairs.same[kept], fold=pairs.fold[kept])
