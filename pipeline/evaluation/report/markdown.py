"""The tables of an evaluation as Markdown, laid out like those of the papers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.evaluation.report.findings import build_matrices
from pipeline.evaluation.report.frames import distinct, list_benchmarks, list_points, read_frames, select_benchmark
from pipeline.evaluation.report.side_by_side import Known, list_side_by_side
from pipeline.evaluation.report.tables import (
    Mark,
    build_accuracy_table,
    build_area_table,
    build_correlation_table,
    build_template_table,
    count_errors,
    describe_intervals,
)
from training.evaluation.pairs.ranked_pairs import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import polars as pl
    import pyarrow as pa

    from pipeline.evaluation.report.frames import OperatingPoint
    from pipeline.evaluation.report.paper_tables import PaperTable
    from pipeline.evaluation.report.tables import Cell, ReportTable, Row

_INTRODUCTION = """\
# Evaluation of face image quality

pAUC and AUC are areas under the error-reject curve up to a rejection of 0.3 and of 0.95, divided by the area without
rejection: smaller is better, and rejecting pairs at random gives about 1. Best **bold**, second best *italic*;
`random`, `floor` (the similarity of the pair itself) and what knows who is on the images do not compete, and where too
few pairs are wrong nothing does."""

_CR_FIQA = """\
Protocol `cr_fiqa` rejects genuine and impostor pairs together and sets the threshold anew at every rate, as CR-FIQA's
published script does, so that even `random` may fall under 1. Raw AUC is the area of CR-FIQA's Table I."""
_TESTS = """\
Area of the row less that of the column on the same bootstrap draws, under 0 where the row is better; p is two-sided, of
each test by itself. **Bold** are those of which one in twenty at most is expected to be chance (Benjamini-Hochberg over
the table)."""
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
    known = known or Known()
    parts = [_INTRODUCTION] + [_CR_FIQA] * (Protocol.CR_FIQA in frames["metrics"]["protocol"])
    if known.warnings:
        parts.append("\n".join(f"- **Warning**: {escape(text)}" for text in known.warnings))
    for benchmark in list_benchmarks(frames.values()):
        own = select_benchmark(frames, benchmark)
        sections = list(_write_benchmark(own))
        if sections:
            parts += [f"## {escape(benchmark)}", *sections]
    parts += _write_paper_tables(list_side_by_side(frames, known))
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


def _write_benchmark(own: Mapping[str, pl.DataFrame]) -> Iterator[str]:
    """The sections of one benchmark."""
    for point in list_points(own["metrics"]):
        yield f"### {_name(point)}"
        yield from _write_areas(own["metrics"], point)
    if own["templates"].height:
        table = build_template_table(own["templates"])
        yield from ("### Templates: true accept rate in percent", _write_with_notes(table))
    matrices = list(_write_matrices(own))
    if matrices:
        yield from ("### Every method against every other", _TESTS, *matrices)
    if own["correlations"].height:
        table = build_correlation_table(own["correlations"])
        yield from ("### Rank correlation with measures", _write_with_notes(table))


def _write_paper_tables(tables: Iterable[PaperTable]) -> list[str]:
    """The tables as the papers print them, where anything stands side by side."""
    found = [table for table in tables if table.several and not table.table.empty]
    parts = [part for table in found for part in (f"### {escape(table.title)}", _write_with_notes(table.table))]
    return ["## Side by side", *parts] if parts else []


def _write_matrices(own: Mapping[str, pl.DataFrame]) -> Iterator[str]:
    """The paired tests of one benchmark."""
    for point in list_points(own["metrics"]):
        for recogniser in distinct(own["metrics"], "recogniser") if point.protocol == Protocol.FIXED else ():
            tests = own["comparisons"].filter(recogniser=recogniser, fmr=point.fmr)
            judged = point.select(own["metrics"].filter(recogniser=recogniser))
            for area, table in build_matrices(tests, judged).items():
                yield f"{area}, {escape(recogniser)}, {point.title}:"
                yield _write_table(
                    table,
                    lambda row, column: " ".join(
                        filter(None, (_mark(row.cells[column]), escape(row.cells[column].interval)))
                    ),
                )


def _write_areas(metrics: pl.DataFrame, point: OperatingPoint) -> Iterator[str]:
    """The areas of one benchmark at one operating point: the table of the numbers, then that of their intervals."""
    table, rows = build_area_table(metrics, point), point.select(metrics)
    each = rows.unique("recogniser", keep="first", maintain_order=True)
    yield "Without rejection: " + "; ".join(
        f"{escape(row['recogniser'])}, {count_errors(row)}" for row in each.iter_rows(named=True)
    ) + "."  # fmt: skip
    if table.empty:
        yield "Left out:\n\n" + "\n".join(f"- {escape(text)}" for text in table.footnotes)
        return
    yield _write_with_notes(table)
    if table.has_intervals:
        yield f"{describe_intervals(rows)}:"
        yield _write_table(table, lambda row, column: row.cells[column].interval)


def _name(point: OperatingPoint) -> str:
    """A heading."""
    return point.title.replace("cr_fiqa", "`cr_fiqa`")


def _write_with_notes(table: ReportTable) -> str:
    """A table with its marks and footnotes."""
    text = _write_table(table, lambda row, column: _mark(row.cells[column]), footnotes=True)
    notes = [f"{sign} {escape(note)}" for sign, note in table.numbered]
    return "\n\n".join([text, *notes])


def _mark(cell: Cell) -> str:
    """The text of a cell with its mark."""
    return _MARKS[cell.mark].format(cell.text)


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


def _join(lines: Iterable[Iterable[str]]) -> str:
    """The lines of a table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
