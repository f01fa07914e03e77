"""Writes an evaluation: its tables, and what a person reads, in a folder that is whole or absent.

<workspace>/evaluation/<fingerprint>/<table>.parquet, report.md, index.html
<workspace>/evaluation/<fingerprint>/tables/*.tex, *.csv  what a paper prints
<workspace>/evaluation/current                          the evaluation last asked for
<workspace>/_receipts/evaluation/<fingerprint>/         what made it, and the figures of the run
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from data_manifests.storage.atomic import sync_folder, write_atomically
from data_manifests.storage.parquet import write_table
from pipeline.evaluation.makers import find_makers
from pipeline.evaluation.report.frames import distinct, read_frames
from pipeline.evaluation.report.gallery import read_gallery
from pipeline.evaluation.report.markdown import escape, render_markdown
from pipeline.evaluation.report.page import PageInput, render_page
from pipeline.evaluation.report.paper_tables import write_csv, write_latex
from pipeline.evaluation.report.side_by_side import Known, list_side_by_side
from pipeline.evaluation.report.tables import build_template_table
from pipeline.evaluation.request import TemplateWeight
from pipeline.storage.receipts import versions
from pipeline.storage.store import PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.evaluation.evaluate import Outcome
    from pipeline.evaluation.plan import Plan
    from pipeline.evaluation.request import EvaluationRequest

REPORT, TABLES = "report.md", "tables"
WARNINGS = "warnings"
"""What the tables' metadata has of an evaluation: its warnings, as JSON."""
_SHOWN = 12
"""Digits of a hash that are shown."""

_WEIGHTS = {TemplateWeight.NORM: "their norm", TemplateWeight.DETECTOR: "the detector's score of the face"}


def write_outcome(plan: Plan, outcome: Outcome) -> None:
    """Write an evaluation beside its place, and put it there in one step.

    Raises:
        DiskFullError: if no space is left.
    """
    notes = _describe(plan, outcome)
    frames = read_frames({name: table for name, table in outcome.tables.items() if name != "curves"})
    published = {each.name: each.published for each in plan.benchmarks if each.published}
    known = Known(published=published, makers=find_makers(plan), warnings=outcome.warnings)
    page = render_page(
        PageInput(
            tables=outcome.tables,
            gallery={each.benchmark.name: read_gallery(each, frames["qualities"]) for each in outcome.benchmarks},
            left_out=outcome.left_out,
            notes=notes,
            known=known,
        )
    )
    report = render_markdown(outcome.tables, known) + _list_notes(notes)
    staging = plan.store.staging(plan.spec)
    shutil.rmtree(staging, ignore_errors=True)
    metadata = {"stage": plan.spec.name, "fingerprint": plan.spec.fingerprint, WARNINGS: json.dumps(outcome.warnings)}
    for name, table in outcome.tables.items():
        write_table(staging / f"{name}.parquet", table.replace_schema_metadata(metadata | {"table": name}))
    printed = {paper.name: paper.table for paper in list_side_by_side(frames, known)}
    templates = frames["templates"]
    for name in distinct(templates, "benchmark"):
        printed[f"{name}-true-accept-rate"] = build_template_table(templates.filter(benchmark=name))
    for name, printed_table in printed.items():
        _write_text(staging / TABLES / f"{name}.csv", write_csv(printed_table))
        _write_text(staging / TABLES / f"{name}.tex", write_latex(printed_table))
    _write_text(staging / REPORT, report)
    _write_text(staging / PAGE, page)
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    staging.replace(plan.folder)
    sync_folder(plan.folder.parent)


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def _describe(plan: Plan, outcome: Outcome) -> dict[str, dict[str, str]]:
    """What the numbers rest on, and what a reader should know: heading -> name -> text."""
    request = plan.request
    settings = {
        "evaluation": plan.spec.fingerprint,
        "false match rates": ", ".join(f"{fmr:g}" for fmr in request.fmrs),
        "protocols": ", ".join(request.protocols),
        "intervals": _describe_intervals(request),
        "fewest errors": f"{request.fewest_errors:,} wrong pairs: by fewer, methods are neither ranked nor compared",
    }
    if plan.benchmarks[0].job.settings.flip:
        settings["embeddings"] = "each the sum of those of a face and of its mirror image"
    if any(benchmark.template_weights is not None for benchmark in plan.benchmarks):
        factors = " and ".join(_WEIGHTS[weight] for weight in sorted(request.template_weights))
        settings["templates"] = f"sums of unit embeddings{' times ' if factors else ''}{factors}"
    if request.limit:
        settings["limit"] = f"the first {request.limit:,} images of every benchmark"
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


def _describe_intervals(request: EvaluationRequest) -> str:
    """What the intervals are."""
    if not request.replicates:
        return "none were asked for"
    return (
        f"95 %, BCa (bias-corrected and accelerated bootstrap, Efron 1987), {request.replicates:,} draws of the "
        "genuine pairs of a list, or of people with all their pairs where known people or templates are compared"
    )


def _describe_method(plan: Plan, name: str) -> str:
    """What a method is, without a path of this machine."""
    method = next(method for method in plan.methods if method.name == name)
    sources = plan.sources
    if name in sources.on_top:
        recogniser = sources.on_top[name].recogniser["parameters"]["model"]
        return f"linear in {recogniser}'s embedding and norm (SHA-256 {sources.hashes[name][:_SHOWN]})"
    if name in sources.factories:
        factory = sources.factories[name]
        files = zip(factory.network.files, factory.hashes, strict=True)
        listed = ", ".join(f"{file.name} (SHA-256 {sha256[:_SHOWN]})" for file, sha256 in files)
        return f"{factory.network.kind} network {listed}"
    if name in sources.hashes and method.path is not None:
        column = f"#{method.column}" * bool(method.column)
        return f"list {method.path.name}{column} (SHA-256 {sources.hashes[name][:_SHOWN]})"
    return f"{method.kind} by {method.recogniser}" if method.recogniser else method.kind.value


def _list_notes(notes: Mapping[str, Mapping[str, str]]) -> str:
    """The notes as Markdown."""
    sections = [
        f"\n## {heading}\n\n" + "\n".join(f"- {escape(name)}: {escape(text)}" for name, text in entries.items())
        for heading, entries in notes.items()
    ]
    return "\n".join(sections) + "\n"
