"""What decides a page, and writing it, in a folder that is whole or absent, and points `current` at it.

<workspace>/<data set>/report/<fingerprint>/index.html
<workspace>/<data set>/report/current                       the page of the labels last asked for
<workspace>/<data set>/_receipts/report/<fingerprint>/      what made it, and the figures of the run
"""

from __future__ import annotations

import hashlib
import logging
import time
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from data_manifests.storage.atomic import write_atomically
from data_manifests.storage.shard_file import name_damage
from data_manifests.tables.scores import CONFIDENCE
from pipeline.label_report.command import Command, find_command
from pipeline.logs import wants_trace
from pipeline.storage.fingerprint import DIGITS, StageSpec
from pipeline.storage.receipts import labels_of_training, write_receipt
from pipeline.storage.store import CURRENT, PAGE, QUALITY_MODEL
from pipeline.terminal import tell

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.job import Job
    from pipeline.storage.store import Store

logger = logging.getLogger(__name__)

STAGE = "report"
"""Its folder in the workspace."""

_CODE = ("pipeline.label_report", "pipeline.pages")
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
        parameters={
            "code": code_hash(),
            "command": command.text,
            "bare": dict(command.bare),
            "robust": command.robust,
            "trained": find_model(job),
        },
        upstream=(job.stages["labels"],),
    )


def find_model(job: Job) -> str:
    """The fingerprint of the last quality model, if it was trained from the labels of the job and kept confidences."""
    run = job.store.current(QUALITY_MODEL)
    if run is None:
        return ""
    folder = job.store.root / QUALITY_MODEL / run
    of_these = labels_of_training(folder) == job.stages["labels"].fingerprint
    return run if of_these and (folder / CONFIDENCE.name).is_dir() else ""


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


def draw_page(job: Job, spec: StageSpec) -> None:
    """Make the page at the end of a labelling, and say where it lies.

    The labels are whole by then: whatever goes wrong with their page is one warning that names the cause.
    """
    try:
        print_place(make_page(job, spec))
    except Exception as error:
        logger.warning(
            "the labels are there, but their page could not be made: %s: %s; once that is mended: "
            "luigi --module pipeline LabelReport", type(error).__name__, error, exc_info=wants_trace(),
        )  # fmt: skip


def print_place(page: Path) -> None:
    """Say where a page lies."""
    current = page.parent.parent / CURRENT / page.name
    tell(f"look at the labels: {current}")


def make_page(job: Job, spec: StageSpec) -> Path:
    """Make the page of a job's labels unless it is there, and point `current` at it.

    Args:
        job: whose labels; they have to be complete.
        spec: of the page.

    Returns:
        The page.

    Raises:
        DiskFullError: if no space is left; nothing stays behind.
    """
    path = page_file(job.store, spec)
    if not path.is_file():
        # A run that draws nothing loads no plots.
        from pipeline.label_report.labels_table import LabelTable  # noqa: PLC0415
        from pipeline.label_report.page import render_labels  # noqa: PLC0415

        started = time.monotonic()
        parameters = spec.parameters
        command = Command(text=parameters["command"], bare=parameters["bare"], robust=parameters["robust"])
        with name_damage(*(job.store.folder(stage) for stage in job.stages["labels"].closure())):
            text = render_labels(job, command, parameters["trained"]).encode()
        job.store.remember(spec)
        write_atomically(path, lambda file: file.write(text))
        figures = {"rows": LabelTable(folder=job.store.folder(job.stages["labels"])).rows, "bytes": len(text)}
        write_receipt(job.store, spec, figures, time.monotonic() - started, 1)
    job.store.point_current(spec)
    return path
