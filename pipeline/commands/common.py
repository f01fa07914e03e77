"""What the commands share: options, consoles, and the job that a data set stands for."""

from __future__ import annotations

import difflib
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.config.job import Job, JobError, resolve, workspace_root
from pipeline.label_report.command import find_command
from pipeline.terminal import make_console

if TYPE_CHECKING:
    from collections.abc import Collection

_PIPED_WIDTH = 10_000
"""Columns where no terminal says how many there are: a program that reads tables wants them whole."""

console = make_console()
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = _PIPED_WIDTH

Dataset = Annotated[
    str,
    typer.Option(
        "--dataset",
        help="A manifest's name or TOML file, a folder of images or a .rec; default: luigi.cfg's.",
    ),
]
Limit = Annotated[int, typer.Option("--limit", help="The label set of the first N images only; 0: all.")]


def job_of(dataset: str, limit: int = 0, stage: str = "") -> Job:
    """The job of a data set in the workspace of the environment, for a stage that it must be able to have."""
    return resolve(dataset, workspace=workspace_root(), limit=limit, stage=stage)


def require_labels(job: Job) -> None:
    """See that a job has labels.

    Raises:
        JobError: if it has none; names the command that makes them.
    """
    if not job.store.is_complete(job.stages["labels"]):
        command = find_command(job).with_thresholds(job.settings.labels.model_dump())
        raise JobError(f"{job.name} has no labels under these settings yet: run {command}")


def choose_from(name: str, known: Collection[str]) -> str:
    """What to say of a name that is not known: the nearest one that is, or all.

    >>> choose_from("LabelAl", ["LabelAll", "PoseAll"])
    'did you mean LabelAll?'
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"


def human_bytes(count: float) -> str:
    """A size as a person reads it.

    >>> human_bytes(4_900_000)
    '4.9 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_age(age: timedelta) -> str:
    """How long ago something was, as a person says it.

    >>> human_age(timedelta(hours=50))
    '2 days'
    """
    for unit, seconds in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if (count := age.total_seconds() / seconds) >= 2:
            return f"{count:.0f} {unit}"
    return f"{age.total_seconds():.0f} s"


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
