"""What the commands share: options, consoles, and the job that a data set stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipeline.job import resolve, workspace_root

if TYPE_CHECKING:
    from pipeline.job import Job

console = Console()

Dataset = Annotated[
    str, typer.Option("--dataset", help="Name of a manifest, or path of a TOML file; default: luigi.cfg's.")
]
Limit = Annotated[int, typer.Option("--limit", help="The label set of the first N images only; 0: all.")]


def job_of(dataset: str, limit: int = 0, stage: str = "") -> Job:
    """The job of a data set in the workspace of the environment, for a stage that it must be able to have."""
    return resolve(dataset, workspace=workspace_root(), limit=limit, stage=stage)


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
