"""Writes an evaluation: its tables, and what a person reads, in a folder that is whole or absent.

<workspace>/evaluation/<fingerprint>/<table>.parquet, report.md, index.html
<workspace>/evaluation/current                          the evaluation last asked for
<workspace>/_receipts/evaluation/<fingerprint>/         what made it, and the figures of the run
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.storage.atomic import sync_folder, write_atomically
from data_manifests.storage.parquet import write_table
from pipeline.storage.receipts import machine, versions
from pipeline.storage.store import PAGE, write_json
from training.evaluation.report.gallery import Face, pick_faces
from training.evaluation.report.lineup import distinct
from training.evaluation.report.markdown import escape, render_markdown
from training.evaluation.report.page import PageInput, render_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from pipeline.evaluation.judging import JudgedBenchmark, Outcome
    from pipeline.evaluation.plan import Plan

REPORT = "report.md"
_SHOWN = 12
"""Digits of a hash that are shown."""


def write_outcome(plan: Plan, outcome: Outcome) -> None:
    """Write an evaluation beside its place, and put it there in one step.

    Raises:
        DiskFullError: if no space is left.
    """
    notes = _describe(plan, outcome)
    page = render_page(
        PageInput(
            tables=outcome.tables,
            gallery={
                each.benchmark.name: _show_faces(each, outcome.tables["qualities"]) for each in outcome.benchmarks
            },
            left_out=outcome.left_out,
            notes=notes,
        )
    )
    report = render_markdown(outcome.tables) + _list_notes(notes)
    staging = plan.store.staging(plan.spec)
    shutil.rmtree(staging, ignore_errors=True)
    metadata = {"stage": plan.spec.name, "fingerprint": plan.spec.fingerprint}
    for name, table in outcome.tables.items():
        write_table(staging / f"{name}.parquet", table.replace_schema_metadata(metadata | {"table": name}))
    for name, text in ((REPORT, report), (PAGE, page)):
        _write_text(staging / name, text)
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    staging.replace(plan.folder)
    sync_folder(plan.folder.parent)


def write_receipt(plan: Plan, seconds: Mapping[str, float], wall_seconds: float) -> None:
    """Keep what a run did."""
    now = datetime.now(UTC)
    receipt = {
        "stage": plan.spec.name,
        "fingerprint": plan.spec.fingerprint,
        "finished": now.isoformat(timespec="seconds"),
        "wall_seconds": round(wall_seconds, 3),
        "figures": {name: round(value, 3) for name, value in seconds.items()},
        "versions": versions(),
        "machine": machine(),
    }
    write_json(plan.store.receipts(plan.spec) / f"run-{now.strftime('%Y%m%dT%H%M%S.%fZ')}.json", receipt)


def _write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def _show_faces(judged: JudgedBenchmark, qualities: pa.Table) -> dict[str, tuple[Sequence[Face], Sequence[Face]]]:
    """The faces that every method rejects first and last."""
    name = judged.benchmark.name
    gallery: dict[str, tuple[Sequence[Face], Sequence[Face]]] = {}
    for method in distinct({"qualities": qualities}, "qualities", "method"):
        ends = pick_faces(qualities, name, method)
        if any(ends):
            first, last = (_read_faces(judged, end) for end in ends)
            gallery[method] = first, last
    return gallery


def _read_faces(judged: JudgedBenchmark, chosen: Sequence[tuple[int, float]]) -> list[Face]:
    """Faces by key and quality, with what is known of them; those that cannot be read are passed over."""
    images = judged.images
    rows = np.searchsorted(images.keys, np.array([key for key, _ in chosen], np.int32))
    stored = judged.benchmark.job.source.read(images.index.take(rows))
    return [
        Face(
            key=key,
            encoded=encoded,
            quality=quality,
            labels={
                name: None if np.isnan(values[row]) else float(values[row]) for name, values in judged.measures.items()
            },
        )
        for row, (key, quality), encoded in zip(rows.tolist(), chosen, stored, strict=True)
        if isinstance(encoded, bytes)
    ]


def _describe(plan: Plan, outcome: Outcome) -> dict[str, dict[str, str]]:
    """What the numbers rest on, and what a reader should know: heading -> name -> text."""
    asked = plan.asked
    settings = {
        "evaluation": plan.spec.fingerprint,
        "false match rates": ", ".join(f"{fmr:g}" for fmr in asked.fmrs),
        "protocols": ", ".join(asked.protocols),
        "bootstrap draws": f"{asked.replicates:,}",
    }
    if asked.limit:
        settings["limit"] = f"the first {asked.limit:,} images of every benchmark"
    notes = {"Left out, or to be known": {str(n): text for n, text in enumerate(outcome.notes, start=1)}}
    return {
        **({} if not outcome.notes else notes),
        "Settings": settings,
        "Methods": {method.name: _describe_method(plan, method.name) for method in plan.methods},
        "Benchmarks": {
            each.name: ", ".join(f"{spec.name} {spec.fingerprint}" for _, spec in each.needed())
            for each in plan.benchmarks
        },
        "Versions": versions(),
    }


def _describe_method(plan: Plan, name: str) -> str:
    """What a method is, without a path of this machine."""
    method = next(method for method in plan.methods if method.name == name)
    if name in plan.openers:
        opener = plan.openers[name]
        files = zip(opener.network.files, opener.hashes, strict=True)
        listed = ", ".join(f"{file.name} (SHA-256 {sha256[:_SHOWN]})" for file, sha256 in files)
        return f"{opener.network.kind} network {listed}"
    if name in plan.tables and method.path is not None:
        return f"list {method.path.name} (SHA-256 {plan.tables[name][:_SHOWN]})"
    return method.kind.value


def _list_notes(notes: Mapping[str, Mapping[str, str]]) -> str:
    """The notes as Markdown."""
    sections = [
        f"\n## {heading}\n\n" + "\n".join(f"- {escape(name)}: {escape(text)}" for name, text in entries.items())
        for heading, entries in notes.items()
    ]
    return "\n".join(sections) + "\n"
