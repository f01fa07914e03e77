"""Makes the crops of an alignment: missing parts are aligned, the table is joined, and a person is told the result."""

from __future__ import annotations

import json
import logging
import re
import shlex
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_manifests.manifest import FOLDER, Format
from data_manifests.storage.atomic import RunLock, remove_leftovers, write_atomically
from data_manifests.storage.parquet import write_table
from data_manifests.tables.stages import Status
from pipeline.alignment.crops import PART_PHOTOS, AlignError, AlignPhotos
from pipeline.execution.dispatch import run_parts
from pipeline.execution.progress import StageProgress
from pipeline.storage.shards import Part, cut
from pipeline.terminal import tell

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from data_manifests.manifest import Manifest
    from pipeline.alignment.crops import AlignFolder
    from pipeline.alignment.job import AlignJob
    from pipeline.alignment.plan import Survey

logger = logging.getLogger(__name__)

_HOPELESS = 8
"""When so many parts failed and none succeeded, the rest is not tried."""

_SHOWN = 3
"""Photos that are named for each cause of having no crop."""


def make_crops(job: AlignJob, processes: int, report: Callable[[float, str], None] | None = None) -> None:
    """Align the photos that are new or changed, remove crops of photos that are gone, and write table and manifest.

    Args:
        job: what to do.
        processes: how many processes align.
        report: takes (share done, line of text) for Luigi's pages.

    Raises:
        AlignError: if parts of the work failed; all others are done and stay.
        LockedError: if another run works in the folder.
    """
    from pipeline.alignment.plan import set_aside  # noqa: PLC0415 - Polars is loaded by who needs it

    lock = RunLock(job.folder.state, "name another --output")
    lock.acquire(" ".join(sys.argv))
    try:
        for place in (job.folder.crops, job.folder.state):
            remove_leftovers(place)
        set_aside(job.folder, job.made_from)
        survey = job.survey()
        _align(job, survey, processes, report)
        _finish(job)
    finally:
        lock.release()
    _tell(job, processes)


def _align(job: AlignJob, survey: Survey, processes: int, report: Callable[[float, str], None] | None) -> None:
    """Align the photos of a survey that are not done."""
    if survey.todo.is_empty():
        return
    digest = survey.write_plan(job.folder)
    rows = cut(len(survey.todo), -(-len(survey.todo) // PART_PHOTOS))
    parts = [Part(shard=0, start=r.start, stop=r.stop) for r in rows]
    work = AlignPhotos(
        photos=job.photos,
        folder=job.folder,
        digest=digest,
        settings=job.settings,
        entry=job.entry,
        made_from=job.made_from,
    )
    failed, done = [], len(survey.done)
    with StageProgress("alignment", len(survey.listing), done, report) as meter:
        for outcome in run_parts(work, parts, processes, lambda count: meter.show(done + count)):
            if outcome.error:
                failed.append(outcome)
                if outcome.is_general:
                    break
                logger.error("photos %d to %d failed\n%s", outcome.part.start + 1, outcome.part.stop, outcome.error)
                if len(failed) == _HOPELESS and not any(job.folder.parts()):
                    break
    if failed:
        raise AlignError(
            f"{len(failed)} of {len(parts)} parts failed: {failed[0].error.strip().splitlines()[-1]}. What was "
            "finished is kept; mend the cause and run the same command again"
        )


def _finish(job: AlignJob) -> None:
    """Show the whole table, after the crops that it does not name are gone, and clear away what waited for it."""
    survey = job.survey()
    for crop in survey.stale:
        (job.folder.crops / crop).unlink(missing_ok=True)
    job.folder.crops.mkdir(parents=True, exist_ok=True)
    write_table(job.folder.table, survey.join(job.made_from))
    if not job.has_landmarks and not job.folder.manifest.is_file():
        content = _render_manifest(job)
        write_atomically(job.folder.manifest, lambda file: file.write(content.encode()))
    for path in (*job.folder.parts(), *job.folder.plans()):
        path.unlink()
    _keep_from_git(job.folder)


def _keep_from_git(folder: AlignFolder) -> None:
    """In a git repository, have git leave the crops out: faces of people are not to be published by mistake."""
    place = folder.crops.parent
    if not any((parent / ".git").exists() for parent in (place, *place.parents)):
        return
    ignored = place / ".gitignore"
    before = ignored.read_text(encoding="utf-8") if ignored.is_file() else ""
    lines = [f"/{path.name}/" for path in (folder.crops, folder.state)]
    if lacking := [line for line in lines if line not in before.splitlines()]:
        after = "\n".join([before.rstrip("\n"), *lacking, ""]).lstrip("\n")
        write_atomically(ignored, lambda file: file.write(after.encode()))
        tell(f"faces of people are personal data: {ignored} keeps git from taking the crops")


def _render_manifest(job: AlignJob) -> str:
    """The manifest of the crops; what the photos' own manifest chooses is taken along."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", job.folder.crops.name).lstrip("._-") or "aligned"
    values = {"name": name, "format": Format.IMAGE_FOLDER.value, "root": job.folder.crops.name}
    values |= job.manifest.overrides() if job.manifest else {}
    lines = [f"{field} = {json.dumps(value, ensure_ascii=False)}" for field, value in values.items()]
    return "\n".join([f"# Aligned from {json.dumps(str(job.photos), ensure_ascii=False)} by AlignFaces.", *lines, ""])


def _tell(job: AlignJob, processes: int) -> None:
    """Say how many photos have a crop, why others have none, and what to run next."""
    from pipeline.alignment.plan import count_unread  # noqa: PLC0415 - as above

    table = pq.read_table(job.folder.table, columns=["path", "status"])
    lost = Counter(table["status"].to_pylist())
    aligned = lost.pop(Status.OK.value, 0)
    tell(f"{aligned:,} of {table.num_rows:,} photos are aligned; their crops lie in {job.folder.crops}")
    if lost:
        causes = "; ".join(f"{count:,} {cause}: {_name_first(table, cause)}" for cause, count in lost.most_common())
        tell(f"warning: {table.num_rows - aligned:,} have no crop ({causes})")
    if unread := count_unread(job.photos):
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in unread.most_common())
        tell(f"warning: left out, since this format is not read: {kinds}; convert them to PNG or JPEG")
    tell(f"where each face was found: {job.folder.table}")
    tell(f"next: {_next_command(job, processes)}")


def _name_first(table: pa.Table, cause: str) -> str:
    """The first photos of a status."""
    paths = table.filter(pc.equal(table["status"].cast("string"), cause))["path"]
    return ", ".join([*paths[:_SHOWN].to_pylist(), *(["…"] if len(paths) > _SHOWN else [])])


def _next_command(job: AlignJob, processes: int) -> str:
    """What makes labels of the crops; of templates, which have no persons to compare, the embeddings."""
    task, dataset = ("LabelAll", str(job.folder.manifest))
    if job.manifest and job.has_landmarks:
        task, dataset = ("EmbeddingsAll", _name_of(job.manifest))
    words = ["luigi", "--module", "pipeline", task, "--dataset", dataset, "--workers", str(processes)]
    return shlex.join(words)


def _name_of(manifest: Manifest) -> str:
    """By which a manifest is asked for: its name where it is shipped, else its file."""
    return manifest.name if manifest.file.parent == FOLDER else str(manifest.file)
