"""`plan`: what a goal would run, and which changed field makes it run."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from pipeline.commands.common import Dataset, Limit, console, job_of
from pipeline.fingerprint import StageSpec, changes
from pipeline.store import Store
from pipeline.tasks.goals import Goal


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(plan)


def plan(
    goal: Annotated[str, typer.Argument(help="LabelAll, BlurAll, PoseAll, FactorsAll, EmbeddingsAll or AnchorsAll.")],
    dataset: Dataset = "",
    limit: Limit = 0,
) -> None:
    """Show what a goal would run and why. Example: python -m pipeline plan LabelAll --dataset ms1mv2.

    To try other settings, put them into a file of the form of luigi.cfg, and name it in LUIGI_CONFIG_PATH.
    """
    last = goal_class(goal).last.stage
    job = job_of(dataset, limit, last)
    table = Table("stage", "fingerprint", "state", "why", title=f"{goal} of {job.name}")
    runs = 0
    for spec in job.stages[last].closure():
        state, why = judge(job.store, spec)
        runs += state != "done"
        table.add_row(spec.name, spec.fingerprint, state, why)
    console.print(table)
    console.print(f"{runs} stages would run" if runs else "nothing would run")


def goal_class(name: str) -> type[Goal]:
    """The goal of that name."""
    known: dict[str, type[Goal]] = {cls.__name__: cls for cls in Goal.__subclasses__()}
    if name not in known:
        raise typer.BadParameter(f"{name} is not a goal: choose one of {', '.join(sorted(known))}")
    return known[name]


def judge(store: Store, spec: StageSpec) -> tuple[str, str]:
    """The state of a stage and why it would run."""
    current = store.current(spec.name)
    if store.is_complete(spec):
        if current == spec.fingerprint:
            return "done", ""
        return "done", "made earlier; `current` will name it" if current else "`current` will name it"
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
