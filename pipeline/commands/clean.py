"""`clean`: removes outputs of earlier settings."""

from __future__ import annotations

import glob
import shutil
from pathlib import Path
from typing import Annotated

import typer

from data_manifests.storage.atomic import RunLock
from pipeline.commands.common import console, folder_bytes, human_bytes
from pipeline.config.job import workspace_root
from pipeline.storage.store import CURRENT, QUALITY_MODEL, RECEIPTS, STAGING
from pipeline.tasks.on_top import ON_TOP
from pipeline.tasks.training import FACTOR_NET

_REMOVED = ".removed-"
"""Begins the name of an output that is being removed."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("clean")(clean)


def clean(
    keep: Annotated[int, typer.Option("--keep", min=0, help="Older outputs to keep of each stage.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, remove nothing.")] = False,
    dataset: Annotated[str, typer.Option("--dataset", help="Folder of one data set; default: all.")] = "",
) -> None:
    """Remove old outputs; `current` always stays.

    Example: python -m pipeline clean --keep 2 --dry-run

    Old are outputs of settings that were not asked for last, pages too, and parts of runs that were not finished.
    Trainings stay: remove the folders of those that you no longer need.
    """
    root = workspace_root()
    freed = 0
    for folder in sorted(p.parent for p in root.glob(f"{glob.escape(dataset) or '*'}/{RECEIPTS}")):
        lock = RunLock(folder)
        lock.acquire("python -m pipeline clean")
        for old in [*old_outputs(folder, keep), *old_staging(folder)]:
            size = folder_bytes(old)
            freed += size
            console.print(f"{'would remove' if dry_run else 'removed'} {old} ({human_bytes(size)})", soft_wrap=True)
            if not dry_run:
                remove_output(folder, old)
        lock.release()
    console.print(f"{human_bytes(freed)} {'would be' if dry_run else 'are'} freed")


def old_outputs(folder: Path, keep: int) -> list[Path]:
    """The outputs of a data set that are neither current nor among the `keep` newest others of their stage."""
    found = []
    stages = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(("_", "."))]
    for stage in sorted(p for p in stages if p.name not in {QUALITY_MODEL, FACTOR_NET, ON_TOP}):
        link = stage / CURRENT
        current = link.readlink().name if link.is_symlink() else None
        others = [p for p in stage.iterdir() if p.is_dir() and not p.is_symlink() and p.name != current]
        found += [p for p in others if p.name.startswith(_REMOVED)]  # a clean that was interrupted
        others = [p for p in others if not p.name.startswith(".")]
        others.sort(key=lambda p: p.stat().st_mtime, reverse=True)
        found += others[keep:]
    return found


def old_staging(folder: Path) -> list[Path]:
    """Parts of unfinished outputs, but for the newest of each stage, which its next run would use."""
    found = []
    for stage in (folder / STAGING).glob("*"):
        waiting = sorted(stage.iterdir(), key=lambda p: p.stat().st_mtime, reverse=True)
        found += waiting[1:]
    return found


def remove_output(folder: Path, output: Path) -> None:
    """Remove an output with its receipts and its staging."""
    stage, fingerprint = output.parent.name, output.name.removeprefix(_REMOVED)
    # A folder that is half removed must not look whole, so it loses its name first.
    doomed = output.with_name(f"{_REMOVED}{fingerprint}")
    if output != doomed:
        shutil.rmtree(doomed, ignore_errors=True)
        output.rename(doomed)
    shutil.rmtree(doomed)
    for tree in (RECEIPTS, STAGING):
        shutil.rmtree(folder / tree / stage / fingerprint, ignore_errors=True)
