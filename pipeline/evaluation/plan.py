"""Plans an evaluation: which benchmarks are at hand, which methods are evaluated, and what decides the outcome."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from data_manifests.manifest import LABELLED_FORMATS, Format, ManifestError
from pipeline.config.job import Job, change_recogniser, load_data_set, resolve
from pipeline.config.settings import read_settings
from pipeline.evaluation.methods import Method, parse_methods
from pipeline.evaluation.request import EvaluationError, EvaluationRequest, require_once
from pipeline.evaluation.sources import Sources, find_sources
from pipeline.storage.fingerprint import StageSpec
from pipeline.storage.store import EVALUATION, Store
from training.evaluation.methods.kinds import ANCHORED, MethodKind
from training.on_top.scorer import recogniser_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.evaluation.quality_factory import QualityLabelerFactory
    from pipeline.evaluation.request import TemplateWeight
    from training.on_top.scorer import OnTopScorer

VERSION = 4
"""Raised when the same tables give another evaluation."""
QUALITY = "quality"
QUALITY_VERSION = 1
"""Raised when the same network and image give another quality."""

SHARPNESS = (MethodKind.CPBD, MethodKind.SOBEL)
CORRELATED = ("blur", "pose", "factors")
"""The stages whose measures qualities are correlated with."""
ANCHOR_STAGES = ("embeddings", "anchors")
"""What is needed of a recogniser whose anchors are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBenchmark:
    """A benchmark that is at hand.

    Attributes:
        name: its folder in the workspace.
        jobs: recogniser -> the benchmark with it; all but what rests on embeddings is the same in each.
        scorings: name of a network's method -> the benchmark with that network's stage `quality`.
        embedded: name of a method on top of one of the recognisers -> the benchmark with that recogniser.
        anchored: name of a method whose anchors are a named recogniser's -> the benchmark with that recogniser.
        stages: what of `job` is needed, beside embeddings and anchors.
        with_anchors: whether anchors of those that judge are asked for, and defined here.
        published: the published benchmark that it is, whole; empty where it is none.
        template_weights: what its embeddings are multiplied with; None where it is none of templates.
    """

    name: str
    jobs: Mapping[str, Job]
    scorings: Mapping[str, Job]
    embedded: Mapping[str, Job]
    anchored: Mapping[str, Job]
    stages: tuple[str, ...]
    with_anchors: bool
    published: str = ""
    template_weights: tuple[TemplateWeight, ...] | None = None

    @property
    def job(self) -> Job:
        """The benchmark with the first recogniser."""
        return next(iter(self.jobs.values()))

    @property
    def recogniser_stages(self) -> tuple[str, ...]:
        """What is needed of every recogniser."""
        return ANCHOR_STAGES if self.with_anchors else ANCHOR_STAGES[:1]

    def needed(self) -> list[tuple[Job, StageSpec]]:
        """Every stage that is read, with its job."""
        wanted = [(self.job, self.job.stages[stage]) for stage in self.stages]
        wanted += [(job, job.stages[stage]) for job in self.jobs.values() for stage in self.recogniser_stages]
        wanted += [(job, job.stages[stage]) for job in self.anchored.values() for stage in ANCHOR_STAGES]
        return wanted + [(job, job.stages[QUALITY]) for job in self.scorings.values()]

    def describe(self) -> dict[str, Any]:
        """What decides the outcome on this benchmark."""
        return {
            "name": self.name,
            "stages": {stage: self.job.stages[stage].fingerprint for stage in self.stages},
            "recognisers": [
                {"name": name, **{stage: job.stages[stage].fingerprint for stage in self.recogniser_stages}}
                for name, job in self.jobs.items()
            ],
            "qualities": {name: job.stages[QUALITY].fingerprint for name, job in self.scorings.items()},
            **({"anchored": self._fingerprint_anchors()} if self.anchored else {}),
            **({"published": self.published} if self.published else {}),
            **({} if self.template_weights is None else {"template_weights": sorted(self.template_weights)}),
        }

    def _fingerprint_anchors(self) -> dict[str, str]:
        """Method -> the fingerprint of the anchors that it is."""
        return {method: job.stages["anchors"].fingerprint for method, job in self.anchored.items()}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An evaluation before it is made.

    Attributes:
        request: what the command asks for.
        methods: what is evaluated.
        sources: what gives the qualities of methods.
        benchmarks: those at hand.
        missing: name of a benchmark that is not at hand -> what to do.
    """

    request: EvaluationRequest
    methods: tuple[Method, ...]
    sources: Sources
    benchmarks: tuple[PlannedBenchmark, ...]
    missing: Mapping[str, str]

    @property
    def store(self) -> Store:
        """Where the evaluation and its receipts lie."""
        return Store(root=self.request.workspace)

    @cached_property
    def spec(self) -> StageSpec:
        """Everything that decides the outcome."""
        parameters = {
            "benchmarks": [benchmark.describe() for benchmark in self.benchmarks],
            "missing": sorted(self.missing),
            "methods": [self._describe(method) for method in self.methods],
            "protocols": [protocol.value for protocol in self.request.protocols],
            "fmrs": list(self.request.fmrs),
            "replicates": self.request.replicates,
            "fewest_impostors": self.request.fewest_impostors,
            "fewest_errors": self.request.fewest_errors,
            "correlate": self.request.correlate,
        }
        return StageSpec(name=EVALUATION, version=VERSION, data="", parameters=parameters)

    @property
    def folder(self) -> Path:
        """Where the evaluation lies."""
        return self.store.folder(self.spec)

    def _describe(self, method: Method) -> dict[str, str]:
        """What a method is known by; a network's weights stand with its stage."""
        return {
            "name": method.name,
            "kind": method.kind.value,
            "sha256": self.sources.hashes.get(method.name, ""),
            **({"column": method.column} if method.column else {}),
        }


def make_plan(request: EvaluationRequest) -> Plan:
    """Find out what an evaluation consists of, without computing anything.

    Raises:
        EvaluationError: if a benchmark stands twice, none is at hand, or none is of templates that weights are for.
        ManifestError, MethodError, QualityNetworkError and what `resolve` raises: each names what is wrong.
    """
    methods = parse_methods(request.methods)
    sources = find_sources(methods, read_settings({}).device)
    benchmarks = []
    missing: dict[str, str] = {}
    formats: set[Format] = set()
    for name in request.benchmarks:
        manifest = load_data_set(name, request.workspace)
        formats.add(manifest.format)
        try:
            manifest.require_data()
        except ManifestError as error:
            missing[manifest.name] = str(error)
        else:
            benchmarks.append(_plan_benchmark(name, request, methods, sources))
    require_once("benchmarks", [*(b.name for b in benchmarks), *missing])
    require_once(
        "benchmarks in the field `published` of their manifests", [b.published for b in benchmarks if b.published]
    )
    if request.template_weights and Format.TEMPLATES not in formats:
        raise EvaluationError(
            f"--template-weights {','.join(request.template_weights)}: none of the benchmarks is of format "
            f"{Format.TEMPLATES}, and pairs of images are not pooled: leave it out, or name such a benchmark"
        )
    if not benchmarks:
        raise EvaluationError("none of the benchmarks is at hand:\n" + "\n".join(missing.values()))
    return Plan(
        request=request,
        methods=methods,
        sources=sources,
        benchmarks=tuple(benchmarks),
        missing=missing,
    )


def _plan_benchmark(
    name: str, request: EvaluationRequest, methods: tuple[Method, ...], sources: Sources
) -> PlannedBenchmark:
    """Resolve a benchmark that is at hand."""
    own = resolve(name, workspace=request.workspace, limit=request.limit)
    jobs = {r: change_recogniser(own, r) for r in request.recognisers or (own.models["recognition"].name,)}
    job = next(iter(jobs.values()))
    kinds = {method.kind for method in methods}
    labelled = job.manifest.format in LABELLED_FORMATS
    sharp = not kinds.isdisjoint(SHARPNESS)
    embedded = {method: one for method, scorer in sources.on_top.items() if (one := _with_recogniser(jobs, scorer))}
    return PlannedBenchmark(
        name=job.name,
        jobs=jobs,
        scorings={m: _add_quality(job, factory) for m, factory in sources.factories.items() if m not in embedded},
        embedded=embedded,
        anchored={m.name: change_recogniser(own, m.recogniser) for m in methods if m.recogniser and labelled},
        stages=("index", *(CORRELATED if request.correlate else CORRELATED[:sharp])),
        with_anchors=labelled and any(m.kind in ANCHORED and not m.recogniser for m in methods),
        published="" if request.limit else job.manifest.published or "",
        template_weights=request.template_weights if job.manifest.format is Format.TEMPLATES else None,
    )


def _with_recogniser(jobs: Mapping[str, Job], scorer: OnTopScorer) -> Job | None:
    """The benchmark with the recogniser that a scorer was made on top of; None where that is not among them."""
    made = ((job, recogniser_of(job.stages["embeddings"].describe())) for job in jobs.values())
    return next((job for job, recogniser in made if recogniser == scorer.recogniser), None)


def _add_quality(job: Job, factory: QualityLabelerFactory) -> Job:
    """The job with the stage that a network makes."""
    index = job.stages["index"]
    spec = StageSpec(
        name=QUALITY,
        version=QUALITY_VERSION,
        data=index.data,
        parameters={"network": factory.network.kind.value},
        weights={"network": factory.hashes},
        upstream=(index,),
    )
    return replace(job, stages={**job.stages, QUALITY: spec})
