"""The quality of every image of a benchmark by every method that is defined there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_manifests.manifest import Format
from pipeline.evaluation.images import read_images, read_measure, score_embeddings
from pipeline.evaluation.plan import QUALITY
from pipeline.evaluation.request import EvaluationError
from pipeline.evaluation.score_lists import read_scores
from pipeline.evaluation.score_matching import Target, match_scores
from training.evaluation.methods.baselines import MEASURES, random_quality
from training.evaluation.methods.kinds import MethodKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.config.job import Job
    from pipeline.evaluation.images import BenchmarkImages
    from pipeline.evaluation.methods import Method
    from pipeline.evaluation.plan import Plan, PlannedBenchmark
    from pipeline.evaluation.score_lists import ScoreList


def read_lists(plan: Plan) -> dict[str, ScoreList]:
    """The lists of scores that an evaluation names, by method.

    Raises:
        ScoreListError: if one cannot be used.
    """
    return {
        method.name: read_scores(method.path, method.column)
        for method in plan.methods
        if method.kind is MethodKind.TABLE and method.path is not None
    }


def open_readers(plan: Plan) -> list[QualityReader]:
    """What reads the qualities of every benchmark, once their indexes are there; it has notes on how lists match.

    Raises:
        ScoreListError, EvaluationError: if a list of scores cannot be used, or is about none of the benchmarks.
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
    for method in plan.methods:
        if method.kind is not MethodKind.TABLE:
            continue
        found = [reader.look_up(method) for reader in readers]
        if all(quality is None for quality in found):
            said = "\n".join(reader.notes[-1] for reader in readers)
            raise EvaluationError(f"{method.path}: none of its rows names an image of any of the benchmarks:\n{said}")
    return readers


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReader:
    """Reads qualities of the images of one benchmark.

    Attributes:
        plan: the evaluation.
        benchmark: the benchmark.
        images: its images.
        lists: lists of scores by method.
        notes: what a reader of the report should know; filled while reading.
    """

    plan: Plan
    benchmark: PlannedBenchmark
    images: BenchmarkImages
    lists: Mapping[str, ScoreList]
    notes: list[str] = field(default_factory=list)

    def read_shared(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Method -> quality [N], of those that are the same for every recogniser; NaN where there is none."""
        return self._read([m for m in self.plan.methods if not _is_of_recogniser(m)], self.benchmark.job)

    def read_own(self, job: Job) -> dict[str, NDArray[np.floating[Any]]]:
        """Method -> quality [N], of those that a recogniser gives itself."""
        return self._read([m for m in self.plan.methods if _is_of_recogniser(m)], job)

    def _read(self, methods: list[Method], job: Job) -> dict[str, NDArray[np.floating[Any]]]:
        """The qualities of methods that are defined here."""
        found = ((method.name, self._read_method(method, job)) for method in methods)
        return {name: quality for name, quality in found if quality is not None}

    def _read_method(self, method: Method, job: Job) -> NDArray[np.floating[Any]] | None:
        """The quality of one method; None where it is not defined, which is noted."""
        if method.kind is MethodKind.RANDOM:
            return random_quality(self.images.keys)
        if method.kind is MethodKind.TABLE:
            return self.look_up(method)
        if method.name in self.benchmark.scorings:
            scored = self.benchmark.scorings[method.name]
            return read_measure(scored.store, scored.stages[QUALITY], QUALITY)
        if method.name in self.benchmark.embedded:
            job = self.benchmark.embedded[method.name]
            return score_embeddings(job.store, job.stages["embeddings"], self.plan.sources.on_top[method.name])
        measure = MEASURES[method.kind]
        job = self.benchmark.anchored.get(method.name, job)
        if measure.table == "anchors" and not (method.name in self.benchmark.anchored or self.benchmark.with_anchors):
            self._note(
                f"{method.name} is not defined on {self.benchmark.name} and left out there: it compares an image with "
                f"the others of its person, and a benchmark of format {job.manifest.format} names no people"
            )
            return None
        return read_measure(job.store, job.stages[measure.table], measure.column)

    def look_up(self, method: Method) -> NDArray[np.float64] | None:
        """The quality that a list gives; None where it says nothing of this benchmark, which is noted.

        Raises:
            ScoreListError, EvaluationError: if the list cannot be used, or is about nothing else either.
        """
        scores, name = self.lists[method.name], self.benchmark.name
        others = [each for each in self.plan.benchmarks if each.name != name]
        target = Target(name=name, keys=self.images.keys, paths=self.images.paths, packed=_name_bin(self.benchmark))
        found = match_scores(scores, target, [word for each in others for word in (each.name, _name_bin(each))])
        if not found.known:
            problem = f"none of its {len(scores):,} rows names an image of {name}, {found.show_both()}"
            if not others:
                remedy = "check its columns `path`, `key` and `benchmark`; case and suffix of a path count"
                raise EvaluationError(f"{scores.file}: {problem}: {remedy}")
            self._note(f"{scores.file.name}: {problem}; {method.name} is left out there")
            return None
        self._note(f"{scores.file.name} on {name}: {found.describe()}. Quality is {scores.said}")
        return found.quality

    def _note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)


def _name_bin(benchmark: PlannedBenchmark) -> str:
    """The name of the .bin that holds the images, without suffix; empty where it is none."""
    manifest = benchmark.job.manifest
    packed = manifest.format is Format.VERIFICATION and manifest.image_root is None
    return Path(manifest.record_file).stem if packed else ""


def _is_of_recogniser(method: Method) -> bool:
    """Whether every recogniser gives this quality itself."""
    return method.kind in MEASURES and MEASURES[method.kind].of_recogniser and not method.recogniser
