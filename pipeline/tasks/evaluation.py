"""Evaluating qualities by recognition errors: the stages that a benchmark needs, then the evaluation itself."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi
from luigi.parameter import ParameterVisibility

from data_manifests.weights.entry import Kind
from data_manifests.weights.registry import find_network
from pipeline.config import job as jobs
from pipeline.config.parameters import TypedParameter
from pipeline.logs import one_message, set_up_logs
from pipeline.storage.integrity import mend
from pipeline.tasks.derived import Anchors
from pipeline.tasks.pixels import PIXEL_TASKS, Index, Measure
from pipeline.tasks.publish import WorkspaceParameter
from pipeline.tasks.stage import Stage, luigi_processes
from pipeline.terminal import tell

if TYPE_CHECKING:
    from pipeline.evaluation.plan import Plan, PlannedBenchmark
    from pipeline.evaluation.quality_factory import QualityLabelerFactory
    from pipeline.evaluation.request import EvaluationRequest

logger = logging.getLogger(__name__)

_TASKS: tuple[type[Stage], ...] = (Index, *PIXEL_TASKS.values(), Anchors)
_STAGES = {task.stage: task for task in _TASKS}
"""The task of every stage that an evaluation reads."""


class FactoryParameter(luigi.Parameter):
    """Carries what opens a network; Luigi's pages show its file."""

    def serialize(self, x: QualityLabelerFactory) -> str:
        """The text that stands for the network."""
        return x.network.files[0].name


class Quality(Measure):
    """The quality of every image of a benchmark by one network."""

    stage = "quality"
    network: QualityLabelerFactory = FactoryParameter(significant=False, visibility=ParameterVisibility.PRIVATE)

    @classmethod
    def by(cls, network: QualityLabelerFactory, job: jobs.Job, processes: int) -> Quality:
        """The task that scores a benchmark, whose job has the stage, with a network."""
        return cls(
            data_set=job.name,
            fingerprint=job.stages[cls.stage].fingerprint,
            workspace=str(job.store.root.parent),
            processes=processes,
            job=job,
            network=network,
        )

    @property
    def resources(self) -> dict[str, int]:
        """The device on which this network computes."""
        return {"gpu": 1} if self.network.device == "cuda" else {"cpu": 1}

    def factory(self) -> QualityLabelerFactory:
        """What opens the network in a worker."""
        return self.network


class EvaluateQuality(luigi.Task):
    """Evaluates qualities on benchmarks: curves, areas, intervals and tests, as tables, Markdown and one page.

    `luigi --module pipeline EvaluateQuality --benchmarks lfw,cplfw --recognition fr_feature --methods model:RUN,norm`
    """

    benchmarks = luigi.Parameter(
        default="",
        description="manifests by name or TOML file, or the data themselves, separated by commas",
    )
    recognition = luigi.Parameter(
        default="", description="recognition networks of models.toml, separated by commas; empty: that of luigi.cfg"
    )
    methods = luigi.Parameter(
        default="norm,cpbd,sobel,random",
        description="separated by commas: model:RUN_OR_FILE, onnx:FILE, on_top:RUN, table:FILE, norm, cpbd, sobel,"
        " certainty_ratio, ccs, nnccs, random; behind the three of anchors :RECOGNISER, for those of another than the"
        " judge; behind a table's file #COLUMN, or #- or #-COLUMN where lower is better; NAME= before a method gives it"
        " another name; those of anchors are then called KIND (NAME)",
    )
    protocols = luigi.Parameter(default="fixed", description="fixed, cr_fiqa, or both separated by a comma")
    fmrs = luigi.Parameter(default="0.01,0.001,0.0001", description="false match rates, separated by commas")
    replicates = TypedParameter(int, default=1000, description="bootstrap draws; 0: no intervals")
    fewest_impostors = TypedParameter(
        int,
        default=0,
        description="leave out a threshold above which fewer impostor pairs lie; 0: none, as in the papers' tables, "
        "but what rests on fewer than 10 is marked",
    )
    fewest_errors = TypedParameter(
        int,
        default=30,
        description="where the recogniser is wrong about fewer genuine pairs, methods are shown but neither ranked nor "
        "compared; 0: they always are",
    )
    template_weights = luigi.Parameter(
        default="",
        description="what the unit embeddings of a template's images are multiplied with: norm; detector, its score of "
        "the face in the benchmark's list; norm,detector as in InsightFace's IJB evaluation; empty: nothing",
    )
    no_correlate = TypedParameter(
        bool, default=False, description="do not compare qualities with blur, pose and factors"
    )
    limit = TypedParameter(int, default=0, description="the first N images of every benchmark only")
    workspace = WorkspaceParameter(default="", description="folder of all outputs (FIQA_WORKSPACE)")
    fingerprint = luigi.Parameter(default="", description="left empty: computed from all that decides the output")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plan = self._plan()
        if not self.fingerprint:
            # The fingerprint becomes part of the task's identity, so that no scheduler takes another output for this.
            super().__init__(*args, **{**kwargs, "fingerprint": self.plan.spec.fingerprint})

    def _plan(self) -> Plan:
        """Find out what has to be done."""
        from pipeline.evaluation.plan import make_plan  # noqa: PLC0415 - other tasks do without it

        set_up_logs()
        with one_message():
            plan = make_plan(self._read_request())
        for name, what in plan.missing.items():
            logger.warning("%s is left out: %s", name, what)
        return plan

    def _read_request(self) -> EvaluationRequest:
        """The parameters, read."""
        from pipeline.evaluation import request  # noqa: PLC0415

        return request.EvaluationRequest(
            benchmarks=request.split(self.benchmarks),
            recognisers=tuple(find_network(r, Kind.RECOGNITION)[0] for r in request.split(self.recognition)),
            methods=self.methods,
            protocols=request.read_protocols(self.protocols),
            fmrs=request.read_rates(self.fmrs),
            replicates=self.replicates,
            fewest_impostors=self.fewest_impostors,
            fewest_errors=self.fewest_errors,
            template_weights=request.read_weights(self.template_weights),
            correlate=not self.no_correlate,
            limit=self.limit,
            workspace=Path(self.workspace),
        )

    @property
    def resources(self) -> dict[str, int]:
        """Where all pairs are compared."""
        return {"gpu": 1} if self.plan.benchmarks[0].job.settings.device == "cuda" else {"cpu": 1}

    def complete(self) -> bool:
        """Whether the evaluation is there and `current` names it."""
        return self.plan.folder.is_dir() and self.plan.store.current(self.plan.spec.name) == self.fingerprint

    def requires(self) -> list[Stage]:
        """The stages of every benchmark; asked for only where something is missing, so this is where the run begins."""
        if self.plan.folder.is_dir():
            return []
        self._begin()
        return [task for benchmark in self.plan.benchmarks for task in self._stages(benchmark)]

    def _begin(self) -> None:
        """Take the folders, compare the space needed with what is free, and match the lists of scores.

        The indexes are made for that: what a list lacks is known before any network runs.
        """
        from pipeline.evaluation.qualities import open_readers, read_lists  # noqa: PLC0415

        with one_message():
            jobs.lock_folder(self.plan.folder.parent)
            for benchmark in self.plan.benchmarks:
                jobs.lock_workspace(benchmark.job)
                needed = {spec.fingerprint: spec for _, last in benchmark.needed() for spec in last.closure()}
                mend(benchmark.job.store, needed.values())
                jobs.check_space(benchmark.job, needed.values())
                jobs.require_device(benchmark.job)
                jobs.require_head(benchmark.job, needed.values())
                jobs.require_landmarker(benchmark.job, needed.values())
            if read_lists(self.plan):
                for benchmark in self.plan.benchmarks:
                    index = Index.of(benchmark.job, 1)
                    if not index.complete():
                        index.make()
                for note in dict.fromkeys(note for reader in open_readers(self.plan) for note in reader.notes):
                    tell(note)

    def _stages(self, benchmark: PlannedBenchmark) -> list[Stage]:
        """The tasks that make what is read of one benchmark."""
        from pipeline.evaluation.plan import ANCHOR_STAGES  # noqa: PLC0415

        processes = luigi_processes()
        made = [_STAGES[stage].of(benchmark.job, processes) for stage in benchmark.stages]
        for job in benchmark.jobs.values():
            made += [_STAGES[stage].of(job, processes) for stage in benchmark.recogniser_stages]
        for job in benchmark.anchored.values():
            made += [_STAGES[stage].of(job, processes) for stage in ANCHOR_STAGES]
        networks = self.plan.sources.factories
        return made + [Quality.by(networks[name], job, processes) for name, job in benchmark.scorings.items()]

    def run(self) -> None:
        """Evaluate, write, point `current` at the result, and say what came out."""
        from pipeline.evaluation.summary import print_outcome  # noqa: PLC0415

        if not self.plan.folder.is_dir():
            self._evaluate()
        for benchmark in self.plan.benchmarks:
            for job, last in benchmark.needed():
                for spec in last.closure():
                    # Whoever labels this data set decides what `current` names there.
                    if job.store.current(spec.name) is None:
                        job.store.point_current(spec)
        self.plan.store.point_current(self.plan.spec)
        print_outcome(self.plan)

    def _evaluate(self) -> None:
        """Evaluate and write."""
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        from pipeline.evaluation.evaluate import evaluate  # noqa: PLC0415
        from pipeline.evaluation.output import write_outcome  # noqa: PLC0415
        from pipeline.storage.receipts import write_receipt  # noqa: PLC0415

        started = time.monotonic()
        self.plan.store.remember(self.plan.spec)
        with threadpool_limits(luigi_processes()):
            outcome = evaluate(self.plan, self.set_status_message)
        evaluated = time.monotonic()
        write_outcome(self.plan, outcome)
        ended = time.monotonic()
        seconds = {"judge_seconds": evaluated - started, "write_seconds": ended - evaluated}
        write_receipt(self.plan.store, self.plan.spec, seconds, ended - started, luigi_processes())

    def print_complete(self) -> None:
        """Say that nothing had to be done, and show what came out."""
        from pipeline.evaluation.summary import print_outcome  # noqa: PLC0415

        tell("nothing to do: the evaluation is complete")
        print_outcome(self.plan)


EvaluateQuality.event_handler(luigi.Event.DEPENDENCY_PRESENT)(EvaluateQuality.print_complete)
