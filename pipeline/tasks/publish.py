"""What a user asks for: one stage, or all labels; reached when its stages are there and `current` names them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import luigi

from data_manifests.durations import describe_time_taken
from data_manifests.storage.shard_file import name_damage
from pipeline.config import job as jobs
from pipeline.config.parameters import TypedParameter
from pipeline.config.settings import dataset as dataset_section
from pipeline.config.settings import report
from pipeline.execution.dispatch import check_locks
from pipeline.label_report.command import find_command
from pipeline.label_report.output import draw_page, report_spec
from pipeline.logs import one_message, set_up_logs
from pipeline.stages.forecast import sum_seconds
from pipeline.storage.integrity import mend, recheck
from pipeline.storage.store import CURRENT
from pipeline.tasks.derived import Anchors, Labels
from pipeline.tasks.pixels import PIXEL_TASKS
from pipeline.tasks.stage import Stage, luigi_processes
from pipeline.terminal import tell

if TYPE_CHECKING:
    from pipeline.config.job import Job
    from pipeline.storage.fingerprint import StageSpec


logger = logging.getLogger(__name__)

_WORTH_SAYING = 10.0
"""Seconds from which on a run says how long it will take."""


class _FilledParameter(luigi.Parameter):
    """A parameter whose empty value is filled from the environment or luigi.cfg when the task is made."""

    def normalize(self, x: str) -> str:
        """Fill an empty value."""
        return x or self.fill()

    def fill(self) -> str:
        """The value that an empty one stands for."""
        raise NotImplementedError


class DatasetParameter(_FilledParameter):
    """A data set: empty stands for `[dataset] name` of luigi.cfg."""

    def fill(self) -> str:
        """The data set of luigi.cfg."""
        name: str = dataset_section().name
        return name


class WorkspaceParameter(_FilledParameter):
    """A workspace: empty stands for FIQA_WORKSPACE, or `workspace` here."""

    def fill(self) -> str:
        """The workspace of the environment."""
        return str(jobs.workspace_root())


DATASET_TEXT = "a manifest's name or TOML file; or the data: a folder of images, or a .rec"
"""What names a data set."""

RECOGNISER_TEXT = (
    "a run of TrainRecognition, whose network and class centres are taken; empty: as [models] and [anchors] say"
)


class PublishStage(luigi.Task):
    """Makes one stage and all that it needs, then points `current` at what was asked for."""

    retry_count = 1  # what it says of a damaged table would be said twice
    last: ClassVar[type[Stage]]
    _begun = False

    dataset = DatasetParameter(
        default="", description="name of a manifest, or path of a TOML file, a folder of images, a .rec"
    )
    limit = TypedParameter(int, default=0, description="label the first N images only, in a folder of their own")
    recheck = TypedParameter(
        bool, default=False, significant=False, description="read all content and compare it with the record"
    )
    gpus = TypedParameter(
        int, default=0, significant=False, description="compute on so many GPUs; 0: as [execution] says"
    )
    recogniser = luigi.Parameter(default="", description=RECOGNISER_TEXT)
    workspace = WorkspaceParameter(default="", description="folder of all outputs (FIQA_WORKSPACE)")
    fingerprint = luigi.Parameter(default="", description="left empty: computed from all that decides the output")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.fingerprint:
            return
        self.job = self._resolve()
        if self.recheck:
            with one_message():
                jobs.lock_workspace(self.job)
                recheck(self.job.store, self.stages())
        self.prepare()
        # The fingerprint becomes part of the task's identity, so that no scheduler takes another output for this.
        super().__init__(*args, **{**kwargs, "fingerprint": self.requested_stage().fingerprint})

    def prepare(self) -> None:
        """Keep what only this process knows, for the run may be in another one: the command line."""

    def requested_stage(self) -> StageSpec:
        """What is asked for."""
        return self.job.stages[self.last.stage]

    def _resolve(self) -> Job:
        """Resolve the data set."""
        set_up_logs()
        with one_message():
            if luigi.interface.core().workers > 1:
                check_locks()
            return jobs.resolve(
                self.dataset,
                workspace=Path(self.workspace),
                limit=self.limit,
                recheck=self.recheck,
                stage=self.last.stage,
                gpus=self.gpus,
                recogniser=self.recogniser,
            )

    def stages(self) -> tuple[StageSpec, ...]:
        """The last stage and all it rests on."""
        return self.job.stages[self.last.stage].closure()

    def complete(self) -> bool:
        """Whether every stage is there and `current` names it."""
        store = self.job.store
        return all(store.current(s.name) == s.fingerprint and store.is_complete(s) for s in reversed(self.stages()))

    def requires(self) -> list[Stage]:
        """The last stage, and every other that is not there; asked for only where something is missing.

        So this is where the run begins. Luigi asks a stage that is complete for nothing that it rests on.
        """
        self._begin()
        tasks = [task.of(self.job, luigi_processes()) for task in self.last.all_needs()]
        missing = [task for task in tasks if not task.complete()]
        if missing and not self._begun:
            names = ", ".join(task.stage for task in missing)
            seconds, but = sum_seconds(self.job, [task.spec for task in missing])
            known = (
                f"; about {describe_time_taken(seconds)} of computing by earlier runs{but}"
                if seconds >= _WORTH_SAYING
                else ""
            )
            text = "%s: %d of %d stages to make: %s%s"
            logger.info(text, self.job.store.root, len(missing), len(tasks), names, known)
        self._begun = True
        return [task for task in tasks if task in missing or task is tasks[-1]]

    def _begin(self) -> None:
        """Take the data set's folder, compare the space needed with what is free, and look at the device."""
        with one_message():
            jobs.lock_workspace(self.job)
            mend(self.job.store, self.stages())
            jobs.check_space(self.job, self.stages())
            jobs.require_device(self.job)
            jobs.require_head(self.job, self.stages())
            jobs.require_landmarker(self.job, self.stages())

    def run(self) -> None:
        """Point `current` at the stages that were asked for, and say what they hold."""
        for spec in self.stages():
            self.job.store.point_current(spec)
        with name_damage(*(self.job.store.folder(spec) for spec in self.stages())):
            self.print_result()

    def print_complete(self) -> None:
        """Say that nothing had to be done, and where it lies."""
        tell(f"nothing to do: {self._where()}")

    def print_result(self) -> None:
        """Say which images could not be read, and where the measures lie."""
        from pipeline.label_report.summary import print_unread  # noqa: PLC0415 - Polars is loaded by who needs it

        print_unread(self.job.store.folder(self.stages()[-1]))
        tell(self._where())

    def _where(self) -> str:
        """What is complete, and its folder."""
        name = self.requested_stage().name
        return f"{name} of {self.job.name} is complete in {self.job.store.root / name / CURRENT}"


def _make_publish_task(task: type[Stage]) -> type[PublishStage]:
    """The task that publishes a stage that reads pixels, named after it."""
    name = f"{task.__name__}All"
    text = f"{task.__doc__} `luigi --module pipeline {name} --dataset NAME`"
    return type(name, (PublishStage,), {"__doc__": text, "__module__": __name__, "last": task})


PIXEL_PUBLISH_TASKS = {stage: _make_publish_task(task) for stage, task in PIXEL_TASKS.items()}
"""The task that publishes every stage that reads pixels."""

# A task travels to the process that runs it by its module and its name.
globals().update({task.__name__: task for task in PIXEL_PUBLISH_TASKS.values()})


class AnchorsAll(PublishStage):
    """CCS, NNCCS and certainty ratio of every image: `luigi --module pipeline AnchorsAll --dataset NAME`."""

    last = Anchors

    def print_result(self) -> None:
        """Say which images could not be read, what looks wrong with the anchors, and where they lie."""
        from pipeline.label_report.summary import print_anchors  # noqa: PLC0415 - Polars is loaded by who needs it

        print_anchors(self.job)
        tell(self._where())


class LabelAll(PublishStage):
    """Every label of every image: `luigi --module pipeline LabelAll --dataset NAME --workers 2`."""

    last = Labels

    def prepare(self) -> None:
        """Find out which page belongs to the labels, if one is wanted, and what makes the labels again."""
        with one_message():
            self.command = find_command(self.job)
            self.page = report_spec(self.job) if report().page else None

    def run(self) -> None:
        """Point `current` at the stages, say what they hold, and draw their page."""
        super().run()
        if self.page is not None:
            draw_page(self.job, self.page)

    def print_result(self) -> None:
        """Say what the labels hold, and where they lie."""
        from pipeline.label_report.summary import print_summary  # noqa: PLC0415 - Polars is loaded by who needs it

        print_summary(self.job, self.command)


PublishStage.event_handler(luigi.Event.DEPENDENCY_PRESENT)(PublishStage.print_complete)
