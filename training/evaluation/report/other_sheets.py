"""The tables beside the areas: verification accuracy, templates, correlations."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from training.evaluation.report.lineup import Kind, kind_of, order
from training.evaluation.report.sheet import (
    ABSENT,
    Cell,
    Footnotes,
    Mark,
    Row,
    Sheet,
    rank_column,
    show_rate,
    show_signed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    Record = dict[str, Any]

_TAR_DIGITS = 2
"""Of TAR in percent, as in CR-FIQA's Table II."""


def build_accuracy_sheet(records: Sequence[Record]) -> Sheet:
    """Verification accuracy in percent ± its standard deviation: benchmarks down, recognisers across."""
    found = {(row["benchmark"], row["recogniser"]): row for row in records}
    recognisers = tuple(dict.fromkeys(row["recogniser"] for row in records))
    lines = []
    for benchmark in dict.fromkeys(row["benchmark"] for row in records):
        cells = tuple(Cell(text=show_accuracy(found.get((benchmark, recogniser)))) for recogniser in recognisers)
        lines.append(Row(name=benchmark, kind=Kind.METHOD, cells=cells))
    columns = tuple(("", recogniser) for recogniser in recognisers)
    return Sheet(corner="benchmark", columns=columns, rows=tuple(lines))


def show_accuracy(row: Record | None) -> str:
    """An accuracy with its spread, in percent."""
    return ABSENT if row is None else f"{100 * row['accuracy']:.2f} ± {100 * row['std']:.2f}"


def build_template_sheet(records: Sequence[Record]) -> Sheet:
    """TAR in percent of one benchmark, as CR-FIQA's Table II: larger is better."""
    found = {(row["recogniser"], row["far"], row["method"]): row for row in records}
    methods = order(row["method"] for row in records)
    rates = sorted({row["far"] for row in records})
    columns = [(name, rate) for name in dict.fromkeys(row["recogniser"] for row in records) for rate in rates]
    marks = {}
    for column in columns:
        ranked = {
            name: 100 * found[*column, name]["tar"]
            for name in methods
            if kind_of(name).competes and found.get((*column, name), {}).get("status") == "ok"
        }
        marks[column] = rank_column(ranked, _TAR_DIGITS, larger=True)
    footnotes = Footnotes()
    lines = [
        Row(
            name=method,
            kind=kind_of(method),
            cells=tuple(_show_tar(found.get((*c, method)), c, marks[c].get(method), footnotes) for c in columns),
        )
        for method in methods
    ]
    heads = tuple((recogniser, f"FAR {show_rate(rate)}") for recogniser, rate in columns)
    return Sheet(corner="method", columns=heads, rows=tuple(lines), footnotes=tuple(footnotes.texts))


def build_correlation_sheet(records: Sequence[Record]) -> Sheet:
    """Rank correlations of one benchmark: methods down, measures across, coloured."""
    found = {(row["method"], row["measure"]): row for row in records}
    measures = tuple(dict.fromkeys(row["measure"] for row in records))
    lines = [
        Row(
            name=method,
            kind=kind_of(method),
            cells=tuple(_show_correlation(found.get((method, measure))) for measure in measures),
        )
        for method in order(row["method"] for row in records)
    ]
    return Sheet(corner="method", columns=tuple(("", name) for name in measures), rows=tuple(lines))


def _show_tar(row: Record | None, column: tuple[str, float], mark: Mark | None, footnotes: Footnotes) -> Cell:
    """One rate in percent, or the reason why there is none."""
    recogniser, rate = column
    if row is None:
        return Cell(text=ABSENT + footnotes.refer(f"{recogniser}: not judged"))
    if row["status"] == "too_few_impostors":
        return Cell(
            text=ABSENT
            + footnotes.refer(
                f"{recogniser}: of {row['impostors']:,} impostor template pairs, {rate * row['impostors']:.3g} may be "
                f"accepted at FAR {show_rate(rate)}: too few to set a threshold"
            )
        )
    return Cell(text=f"{100 * row['tar']:.{_TAR_DIGITS}f}", mark=mark or Mark.PLAIN)


def _show_correlation(row: Record | None) -> Cell:
    """A correlation with its sign; none where one side does not vary."""
    if row is None or row["spearman"] is None or not isfinite(row["spearman"]):
        return Cell(text=ABSENT)
    return Cell(text=show_signed(row["spearman"], 2), shade=row["spearman"])
