"""The one base class where Luigi meets the rest: a task that makes one stage of one job."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

import luigi
from luigi.parameter import ParameterVisibility

from data_manifests.storage.shard_file import DamagedShardError
from labelers.runtime.device import Device
from pipeline.stages.forecast import sum_seconds
from pipeline.stages.run import StageRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.config.job import Job
    from pipeline.execution.contract import PartWork
    from pipeline.storage.fingerprint import StageSpec
    from pipeline.storage.store import Store


_MOST_TIMES = 3
"""A file that was set aside so often is not made again by itself: its disk may be bad."""
PROCESSES_A_GPU = 4
"""While one of them decodes, writes or starts, the GPU works for the others."""


class JobParameter(luigi.Parameter):
    """Carries the resolved job; Luigi's pages show its name alone."""

    def serialize(self, x: Job) -> str:
        """The text that stands for the job."""
        return x.name


class StageTarget(luigi.Target):
    """The shards of one stage; it exists when all are there, which one listing of their folder tells."""

    def __init__(self, store: Store, spec: StageSpec) -> None:
        self.store = store
        self.spec = spec

    def exists(self) -> bool:
        """Whether every shard is there."""
        return self.store.is_complete(self.spec)


class Stage(luigi.Task):
    """Makes one stage.

    Whatever decides its output is a significant parameter, so that a scheduler that outlives this run never takes
    one output for another.
    """

    stage: ClassVar[str]
    needs: ClassVar[tuple[type[Stage], ...]] = ()

    data_set = luigi.Parameter(description="the data set's folder in the workspace")
    fingerprint = luigi.Parameter(description="what decides the output")
    workspace = luigi.Parameter(description="the folder of all outputs")
    processes = luigi.IntParameter(significant=False, description="how many processes compute")
    job: Job = JobParameter(significant=False, visibility=ParameterVisibility.PRIVATE)

    @classmethod
    def of(cls, job: Job, processes: int) -> Stage:
        """The task that makes this stage of a job."""
        return cls(
            data_set=job.name,
            fingerprint=job.stages[cls.stage].fingerprint,
            workspace=str(job.store.root.parent),
            processes=processes,
            job=job,
        )

    @classmethod
    def all_needs(cls) -> tuple[type[Stage], ...]:
        """The tasks of all stages that this one rests on, and this one, each once."""
        found = {need: None for task in cls.needs for need in task.all_needs()}
        return (*found, cls)

    @property
    def spec(self) -> StageSpec:
        """The stage that this task makes."""
        return self.job.stages[self.stage]

    @property
    def priority(self) -> int:
        """Of stages that could run, the first by their order."""
        return -list(self.job.stages).index(self.stage)

    @property
    def store(self) -> Store:
        """Where tables lie."""
        return self.job.store

    @property
    def resources(self) -> dict[str, int]:
        """One computing stage at a time: each uses all processes. A stage on the GPU runs beside one on the CPU."""
        on_gpu = self.can_use_gpu() and self.job.settings.device_of(self.stage) is Device.CUDA
        return {"gpu": 1} if on_gpu else {"cpu": 1}

    def can_use_gpu(self) -> bool:
        """Whether it computes where the settings say; a stage that always computes on the processor says no."""
        return True

    def requires(self) -> list[luigi.Task]:
        """The stages that are read, and the weights."""
        return [task.of(self.job, self.processes) for task in self.needs]

    def output(self) -> StageTarget:
        """The stage's shards."""
        return StageTarget(self.store, self.spec)

    def run(self) -> None:
        """Make the stage; where what it reads turns out to be damaged, make that again first.

        Raises:
            DamagedShardError: if the same file is damaged again and again.
        """
        try:
            self.make()
        except DamagedShardError as error:
            if self.store.times_set_aside(error.path) >= _MOST_TIMES:
                raise
            self.store.set_aside(error.path, error.why)
            # By this task, for a job does not travel to Luigi's scheduler, which would have to hand them out.
            for task in self.all_needs()[:-1]:
                again = task.of(self.job, self.processes)
                again.set_status_message = self.set_status_message
                again.set_progress_percentage = self.set_progress_percentage
                if not again.complete():
                    again.run()
            self.run()

    def make(self) -> None:
        """Make the stage."""
        raise NotImplementedError

    def report(self, share: float, text: str) -> None:
        """Show the state on Luigi's pages."""
        self.set_progress_percentage(round(100 * share))
        self.set_status_message(text)

    def compute(self, work: PartWork) -> None:
        """Make a sharded stage from the work on its parts."""
        on_gpu = "gpu" in self.resources
        gpus = self.job.settings.gpus if on_gpu else 0
        wanted = self.job.stages[self.job.last].closure()
        done = sum(self.store.is_complete(spec) for spec in wanted)
        StageRun(
            store=self.store,
            spec=self.spec,
            index=self.job.stages["index"],
            work=work,
            processes=max(gpus, min(self.processes, PROCESSES_A_GPU * gpus)) if on_gpu else self.processes,
            title=f"{self.stage} (stage {done + 1} of {len(wanted)})",
            gpus=gpus,
            cluster=self.job.settings.cluster(self.store.root, on_gpu=on_gpu),
            report=self.report,
            later=sum_seconds(self.job, [spec for spec in wanted if spec.name != self.stage]),
        ).make()


def luigi_processes() -> int:
    """How many processes the command asked for with --workers; 1 outside Luigi's command line."""
    variable = "FIQA_PROCESSES"
    if variable not in os.environ:
        os.environ[variable] = str(luigi.interface.core().workers)
    return int(os.environ[variable])


def progress_callback(task: luigi.Task) -> Callable[[int], None]:
    """A progress callback for work that is not cut into parts."""
    rows = 0

    def advance(more: int) -> None:
        nonlocal rows
        rows += more
        task.set_status_message(f"{rows:,} images")

    return advance
