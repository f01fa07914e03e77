"""`plan`: what a task would run, and which changed field makes it run."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from pipeline.commands.common import Dataset, Limit, choose_from, console, job_of
from pipeline.commands.costs import cost_table, sum_costs
from pipeline.commands.settings import with_settings
from pipeline.config.job import Job
from pipeline.config.settings import report
from pipeline.label_report.output import page_file, report_spec
from pipeline.stages.forecast import forecast
from pipeline.storage.fingerprint import StageSpec, changes
from pipeline.storage.store import Store
from pipeline.tasks.label_report import LabelReport
from pipeline.tasks.publish import LabelAll, PublishStage

PUBLISH_TASKS: dict[str, type[PublishStage]] = {
    cls.__name__: cls for cls in sorted(PublishStage.__subclasses__(), key=lambda c: c.__name__)
}

_ELSEWHERE = {
    "EvaluateQuality": "the stages of a benchmark are those of EmbeddingsAll with --dataset BENCHMARK, and of PoseAll, "
    "BlurAll and FactorsAll; the command itself ends at once where its evaluation is there",
    "TrainOnTop": "the tables that it reads are those of AnchorsAll; from them it takes minutes",
    "TrainQuality": "the labels that it trains from are those of LabelAll; it trains where there is no model of these "
    "labels and options yet",
}
"""Tasks that publish no stage, and what can be asked instead."""

_DONE = "done"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(with_settings(plan))


def plan(
    task: Annotated[str, typer.Argument(help=f"One of: {', '.join(PUBLISH_TASKS)}.")],
    dataset: Dataset = "",
    limit: Limit = 0,
) -> None:
    """Show what a task would run and why, and what it would cost.

    Example: python -m pipeline plan LabelAll --labels-blur-hazy 0.3

    It computes nothing. What a run costs is judged by the receipts of runs under the same settings on this machine, of
    this data set or of its first images (--limit).
    """
    wanted = publish_task(task)
    job = job_of(dataset, limit, wanted.last.stage)
    table = Table("stage", "fingerprint", "state", "why", title=f"{task} of {job.name}")
    stages = job.stages[wanted.last.stage].closure()
    lines = [explain_state(job.store, spec, is_whole=job.store.is_complete(spec)) for spec in stages]
    for spec, (state, why) in zip(stages, lines, strict=True):
        table.add_row(spec.name, spec.fingerprint, state, why)
    is_drawn = False
    if wanted is LabelReport or (wanted is LabelAll and report().page):
        # LabelAll draws when it has made something, or has another output for `current` to name.
        draws = wanted is LabelReport or any(line != (_DONE, "") for line in lines)
        spec, state, why = plan_page(job, draws=draws)
        is_drawn = draws and state != _DONE
        table.add_row(spec.name, spec.fingerprint, state, why)
    console.print(table)
    forecasts = forecast(job, stages)
    if any(found.run for found in forecasts):
        console.print(cost_table(forecasts))
    for line in sum_costs(job, forecasts, task):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(_sum_up(sum(state != _DONE for state, _ in lines), len(lines), is_drawn=is_drawn))


def _sum_up(runs: int, stages: int, *, is_drawn: bool) -> str:
    """What would happen, in one line."""
    if not runs:
        return "the page alone would be drawn" if is_drawn else "nothing would run"
    return f"{runs} of {stages} stages would run" + (", and then the page would be drawn" if is_drawn else "")


def plan_page(job: Job, *, draws: bool) -> tuple[StageSpec, str, str]:
    """The page of a job's labels, its state, and why it would be drawn, or would not although it is not there."""
    spec = report_spec(job)
    state, why = explain_state(job.store, spec, is_whole=page_file(job.store, spec).is_file())
    if state != _DONE and not draws:
        return spec, "not drawn", f"{LabelAll.__name__} has nothing to do; {LabelReport.__name__} draws it"
    return spec, state, why


def publish_task(name: str) -> type[PublishStage]:
    """The task of that name."""
    if name in PUBLISH_TASKS:
        return PUBLISH_TASKS[name]
    remedy = _ELSEWHERE.get(name) or choose_from(name, PUBLISH_TASKS)
    raise typer.BadParameter(f"{name} is not a task of one data set: {remedy}")


def explain_state(store: Store, spec: StageSpec, *, is_whole: bool) -> tuple[str, str]:
    """The state of a stage, whose output is there or not, and why it would run."""
    current = store.current(spec.name)
    if is_whole:
        if current == spec.fingerprint:
            return _DONE, ""
        return _DONE, "made earlier; `current` will name it" if current else "`current` will name it"
    present = len(store.present_shards(spec))
    parts = len(store.present_parts(spec))
    state = f"runs; {present} shards and {parts} parts are there" if present or parts else "runs"
    return state, why_stale(store, spec, current)


def why_stale(store: Store, spec: StageSpec, current: str | None) -> str:
    """Which field differs from the output that `current` names."""
    if current is None:
        return "never made" if not store.present_shards(spec) else "not finished"
    if current == spec.fingerprint:
        return "shards are missing"
    before = store.recall(spec.name, current)
    if before is None:
        return "what made the current output is not known"
    return "; ".join(changes(before, spec.describe()))
