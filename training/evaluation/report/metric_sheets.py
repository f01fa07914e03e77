"""The areas, laid out like the tables of the papers: methods down, recognisers and areas across."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from training.evaluation.error_reject import Protocol
from training.evaluation.report.lineup import kind_of, order
from training.evaluation.report.sheet import ABSENT, Cell, Footnotes, Mark, Row, Sheet, rank_column, show_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Area:
    """A column of `metrics` as it is shown."""

    column: str
    head: str
    digits: int


_NORMALISED = (
    _Area(column="pauc", head="pAUC ↓", digits=3),
    _Area(column="auc", head="AUC ↓", digits=3),
)
_RAW = _Area(column="auc_raw", head="raw AUC ↓", digits=4)
_SHOWN = {
    Protocol.FIXED.value: _NORMALISED,  # CLIB-FIQA Tables 1 to 3
    Protocol.CR_FIQA.value: (*_NORMALISED, _RAW),  # CR-FIQA Table I gives areas that are not normalised
}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Choice:
    """Which errors are counted: all that a table of areas has in common, but for the benchmark."""

    protocol: str
    fmr: float

    @property
    def rate(self) -> str:
        """The false match rate as text."""
        return show_rate(self.fmr)

    @property
    def title(self) -> str:
        """For headings."""
        return f"FMR {self.rate}" + ("" if self.protocol == Protocol.FIXED else f", protocol {self.protocol}")


def list_choices(metrics: Iterable[Record]) -> list[Choice]:
    """The choices of an evaluation: protocol `fixed` first, large rates first."""
    found = {Choice(protocol=row["protocol"], fmr=row["fmr"]) for row in metrics}
    return sorted(found, key=lambda choice: (choice.protocol != Protocol.FIXED, choice.protocol, -choice.fmr))


def build_metric_sheet(records: Sequence[Record], choice: Choice) -> Sheet:
    """The areas of one benchmark.

    Args:
        records: rows of `metrics`; those of another choice are passed over.
        choice: protocol and false match rate.
    """
    rows = [row for row in records if (row["protocol"], row["fmr"]) == (choice.protocol, choice.fmr)]
    found = {(row["recogniser"], row["method"]): row for row in rows}
    methods = order(row["method"] for row in rows)
    recognisers = tuple(dict.fromkeys(row["recogniser"] for row in rows))
    areas = _SHOWN[choice.protocol]
    columns = tuple((recogniser, area) for recogniser in recognisers for area in areas)
    footnotes = Footnotes()
    marks = {column: _rank(found, methods, *column) for column in columns}
    lines = []
    for method in methods:
        cells = tuple(
            _show(found.get((recogniser, method)), recogniser, area, marks[recogniser, area].get(method), footnotes)
            for recogniser, area in columns
        )
        note = _describe_unscored([row for row in rows if row["method"] == method])
        sign = footnotes.refer(note) if note else ""
        lines.append(Row(name=method, kind=kind_of(method), cells=cells, footnote=sign))
    return Sheet(
        corner="method",
        columns=tuple((recogniser, area.head) for recogniser, area in columns),
        rows=tuple(lines),
        footnotes=tuple(footnotes.texts),
    )


def average(metrics: Sequence[Record], choice: Choice) -> tuple[list[Record], list[str]]:
    """Mean areas over the benchmarks of a recogniser, as the papers' last column.

    Only benchmarks count whose numbers are not left out, and only methods that have a number in each of them.

    Returns:
        Rows like those of `metrics` without intervals, none for a recogniser with fewer than two benchmarks; and for
        every recogniser a line that says which benchmarks count.
    """
    rows = [row for row in metrics if (row["protocol"], row["fmr"]) == (choice.protocol, choice.fmr)]
    means: list[Record] = []
    notes = []
    for recogniser in dict.fromkeys(row["recogniser"] for row in rows):
        fit = [row for row in rows if row["recogniser"] == recogniser and row["status"] == "ok"]
        benchmarks = tuple(dict.fromkeys(row["benchmark"] for row in fit))
        if len(benchmarks) < 2:
            continue
        notes.append(f"{recogniser}: mean over {', '.join(benchmarks)}")
        for method in dict.fromkeys(row["method"] for row in fit):
            own = [row for row in fit if row["method"] == method]
            if len(own) == len(benchmarks):
                areas = {name: sum(row[name] for row in own) / len(own) for name in ("pauc", "auc", "auc_raw")}
                head = {"recogniser": recogniser, "method": method, "protocol": choice.protocol, "fmr": choice.fmr}
                means.append(head | areas | {"status": "ok", "unscored": 0})
    return means, notes


def explain(row: Record) -> str:
    """Why the numbers of a row of `metrics` are left out; nothing where they are not."""
    rate = show_rate(row["fmr"])
    match row["status"]:
        case "ok":
            return ""
        case "too_few_impostors":
            resting = row["fmr"] * row["impostors"]
            return (
                f"{row['recogniser']}: of {row['impostors']:,} impostor pairs, {resting:.3g} may match at FMR {rate}: "
                "too few to set a threshold"
            )
        case "no_errors":
            return (
                f"{row['recogniser']} makes no error on {row['genuine']:,} genuine pairs at FMR {rate}: there is "
                "nothing to reject"
            )
        case other:
            return f"{row['recogniser']}: {other}"


def _describe_unscored(rows: Sequence[Record]) -> str:
    """How many images a method gave no quality."""
    counts = [f"{row['unscored']:,} ({row['recogniser']})" for row in rows if row["unscored"]]
    return f"images without a quality, which are rejected first: {', '.join(counts)}" if counts else ""


def _rank(
    found: dict[tuple[str, str], Record], methods: Sequence[str], recogniser: str, area: _Area
) -> dict[str, Mark]:
    """Marks of one column; chance and the bound do not compete."""
    values = {}
    for method in methods:
        row = found.get((recogniser, method))
        if row is not None and row["status"] == "ok" and kind_of(method).competes:
            values[method] = row[area.column]
    return rank_column(values, area.digits)


def _show(row: Record | None, recogniser: str, area: _Area, mark: Mark | None, footnotes: Footnotes) -> Cell:
    """One number, or the reason why there is none."""
    if row is None:
        return Cell(text=ABSENT + footnotes.refer(f"{recogniser}: not judged"))
    why = explain(row)
    if not why and not isfinite(row[area.column]):
        why = f"{recogniser}: a part of the curve keeps no pairs of one kind, so it has no area"
    if why:
        return Cell(text=ABSENT + footnotes.refer(why))
    low, high = row.get(f"{area.column}_low"), row.get(f"{area.column}_high")
    known = low is not None and high is not None and isfinite(low) and isfinite(high)
    return Cell(
        text=f"{row[area.column]:.{area.digits}f}",
        mark=mark or Mark.PLAIN,
        interval=f"[{low:.{area.digits}f}, {high:.{area.digits}f}]" if known else "",
    )
