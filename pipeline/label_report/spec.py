"""What decides a page: the labels, the code that draws it, and the command that it gives."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from pipeline.label_report.command import find_command
from pipeline.storage.fingerprint import DIGITS, StageSpec
from pipeline.storage.store import PAGE

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.job import Job
    from pipeline.storage.store import Store

STAGE = "report"
"""Its folder in the workspace."""

_CODE = ("pipeline.label_report", "training.pages")
_SUFFIXES = (".py", ".j2", ".css", ".js")


def report_spec(job: Job) -> StageSpec:
    """The page of a job's labels, as a stage.

    Call it where the command line is known: the settings that were given there are part of the page's command.
    """
    command = find_command(job)
    return StageSpec(
        name=STAGE,
        version=1,
        data=job.stages["labels"].data,
        parameters={"code": code_hash(), "command": command.text, "bare": dict(command.bare)},
        upstream=(job.stages["labels"],),
    )


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Twelve digits of the SHA-256 of all files that draw a page: a change of any makes pages stale."""
    total = hashlib.sha256()
    for package in _CODE:
        folder = files(package)
        for name in sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(_SUFFIXES)):
            total.update(f"{package}/{name}\n".encode() + folder.joinpath(name).read_bytes())
    return total.hexdigest()[:DIGITS]


def page_file(store: Store, spec: StageSpec) -> Path:
    """Where the page lies, or will lie."""
    return store.folder(spec) / PAGE
