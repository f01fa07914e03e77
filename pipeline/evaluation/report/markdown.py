"""The tables of an evaluation as Markdown, laid out like those of the papers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.evaluation.report.findings import AREA_NAMES, list_findings, show_interval, show_p
from pipeline.evaluation.report.frames import list_benchmarks, list_points, read_frames, select_benchmark, show_rate
from pipeline.evaluation.report.side_by_side import Known, list_side_by_side
from pipeline.evaluation.report.tables import (
    Mark,
    build_accuracy_table,
    build_area_table,
    build_correlation_table,
    build_template_table,
    show_signed,
)
from training.evaluation.pairs.ranked_pairs import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import polars as pl
    import pyarrow as pa

    from pipeline.evaluation.report.findings import Finding
    from pipeline.evaluation.report.frames import OperatingPoint
    from pipeline.evaluation.report.paper_tables import PaperTable
    from pipeline.evaluation.report.tables import ReportTable, Row

_INTRODUCTION = """\
# Evaluation of face image quality

pAUC and AUC are areas under the error-reject curve up to a rejection of 0.3 and of 0.95, divided by the area without
rejection: smaller is better, and rejecting pairs at random gives about 1. Best **bold**, second best *italic*; `random`
and `floor` (the similarity of the pair itself) do not compete."""

_CR_FIQA = """\
Protocol `cr_fiqa` rejects genuine and impostor pairs together and sets the threshold anew at every rate, as CR-FIQA's
published script does, so that even `random` may fall under 1. Raw AUC is the area of CR-FIQA's Table I."""
_TESTS = """\
Difference of the areas on the same bootstrap draws, under 0 where the method is better; p is two-sided, of each test by
itself."""
_NOT_SHOWN = {"curves", "qualities", "losses"}
_MARKS = {Mark.PLAIN: "{}", Mark.BEST: "**{}**", Mark.SECOND: "*{}*"}


def render_markdown(tables: Mapping[str, pa.Table], known: Known | None = None) -> str:
    """All tables of an evaluation.

    Args:
        tables: by name, as `data_manifests.tables.evaluation` has them; an absent table is passed over. `curves`,
            `qualities` and `losses` are not shown.
        known: what is known beside them.

    Raises:
        ReportError: if a table has other columns, or does not say which benchmark or recogniser a row is of.
    """
    frames = read_frames({name: table for name, table in tables.items() if name not in _NOT_SHOWN})
    metrics = frames["metrics"]
    findings = list_findings(frames["comparisons"], metrics)
    parts = [_INTRODUCTION] + [_CR_FIQA] * (Protocol.CR_FIQA in metrics["protocol"])
    for benchmark in list_benchmarks(frames.values()):
        own = select_benchmark(frames, benchmark)
        sections = list(_write_benchmark(own, [found for found in findings if found.benchmark == benchmark]))
        if sections:
            parts += [f"## {escape(benchmark)}", *sections]
    parts += _write_paper_tables(list_side_by_side(frames, known or Known()))
    if frames["accuracy"].height:
        table = build_accuracy_table(frames["accuracy"])
        parts += ["## Verification accuracy in percent, ± standard deviation over the folds", _write_with_notes(table)]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    r"""Text that Markdown shows as it is, on one line.

    >>> escape("a|b*c")
    'a\\|b\\*c'
    """
    return re.sub(r"([\\|*`<>\[\]~]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


def _write_benchmark(own: Mapping[str, pl.DataFrame], findings: Sequence[Finding]) -> Iterator[str]:
    """The sections of one benchmark."""
    for point in list_points(own["metrics"]):
        yield f"### {_name(point)}"
        yield from _write_areas(build_area_table(own["metrics"], point))
    if own["templates"].height:
        table = build_template_table(own["templates"])
        yield from ("### Templates: true accept rate in percent", _write_with_notes(table))
    if findings:
        yield from (f"### Tests of {escape(findings[0].method)}", _TESTS, _write_findings(findings))
    if own["correlations"].height:
        table = build_correlation_table(own["correlations"])
        yield from ("### Rank correlation with measures", _write_with_notes(table))


def _write_paper_tables(tables: Iterable[PaperTable]) -> list[str]:
    """The tables as the papers print them, where anything stands side by side."""
    found = [table for table in tables if table.several and not table.table.empty]
    parts = [part for table in found for part in (f"### {escape(table.title)}", _write_with_notes(table.table))]
    return ["## Side by side", *parts] if parts else []


def _write_areas(table: ReportTable) -> Iterator[str]:
    """The areas at one operating point: the table of the numbers, then that of their intervals."""
    if table.empty:
        yield "Left out:\n\n" + "\n".join(f"- {escape(text)}" for text in table.footnotes)
        return
    yield _write_with_notes(table)
    if table.has_intervals:
        yield "95 % bootstrap intervals:"
        yield _write_table(table, lambda row, column: row.cells[column].interval)


def _name(point: OperatingPoint) -> str:
    """A heading."""
    return point.title.replace("cr_fiqa", "`cr_fiqa`")


def _write_with_notes(table: ReportTable) -> str:
    """A table with its marks and footnotes."""
    text = _write_table(
        table, lambda row, column: _MARKS[row.cells[column].mark].format(row.cells[column].text), footnotes=True
    )
    notes = [f"{sign} {escape(note)}" for sign, note in table.numbered]
    return "\n\n".join([text, *notes])


def _write_table(table: ReportTable, show: Callable[[Row, int], str], *, footnotes: bool = False) -> str:
    """A table; an empty row stands between the groups of its rows."""
    single = len(table.heads) == 1
    heads = [name if single or not group else f"{group} {name}" for group, name in table.columns]
    corner = f"{table.corner} ({table.heads[0][0]})" if single and table.heads[0][0] else table.corner
    lines = [[escape(text) for text in (corner, *heads)], ["---"] + ["---:"] * len(heads)]
    for number, group in enumerate(table.groups()):
        if number:
            lines.append([""] * (len(heads) + 1))
        for row in group:
            name = escape(row.name) + (row.footnote if footnotes else "")
            lines.append([name, *(show(row, column) for column in range(len(heads)))])
    return _join(lines)


def _write_findings(findings: Iterable[Finding]) -> str:
    """The paired tests."""
    lines = [
        ["recogniser", "FMR", "area", "against", "difference", "95 % interval", "p"],
        ["---", "---:", "---", "---", "---:", "---:", "---:"],
    ]
    lines += (
        [
            escape(found.recogniser), show_rate(found.fmr), AREA_NAMES[found.area], escape(found.other),
            show_signed(found.difference, 3), show_interval(found.low, found.high),
            show_p(found.p_value).removeprefix("p = ").removeprefix("p "),
        ]
        for found in findings
    )  # fmt: skip
    return _join(lines)


def _join(lines: Iterable[Iterable[str]]) -> str:
    """The lines of a table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
