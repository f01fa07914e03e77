"""The tables of a report: text in cells, the best marked, and footnotes that say why a number is missing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Any

import polars as pl

from pipeline.evaluation.report.frames import distinct, show_rate
from pipeline.evaluation.report.method_order import Kind, kind_of, order
from training.evaluation.pairs.ranked_pairs import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from pipeline.evaluation.report.frames import OperatingPoint

    Areas = Mapping[str, tuple[str, int]]
    """Column of `metrics` -> heading and decimals."""

ABSENT = "-"
"""Stands where there is no number."""

SIGNS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_SUPERSCRIPTS = str.maketrans("0123456789", SIGNS)

AREAS = {"pauc": ("pAUC ↓", 3), "auc": ("AUC ↓", 3)}
"""Column of `metrics` -> heading and decimals, as in CLIB-FIQA Tables 1 to 3."""
_COLUMNS = {
    Protocol.FIXED.value: AREAS,
    Protocol.CR_FIQA.value: AREAS | {"auc_raw": ("raw AUC ↓", 4)},  # CR-FIQA Table I gives areas not normalised
}
_MOST_DIGITS = 4

MEAN = "Avg."
"""The group of the means."""

SURE = 10
"""A threshold above which fewer impostor pairs lie is marked."""
FEW = "too_few_errors"
SHOWN = ("ok", FEW)
"""The statuses of rows whose numbers are shown."""
_REFERENCE = "knows who is on the images, which no quality of a new face does: a reference, not ranked"


class Mark(StrEnum):
    """Rank of a number in its column."""

    PLAIN = "plain"
    BEST = "best"
    SECOND = "second"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number.

    Attributes:
        text: as it is shown.
        mark: its rank.
        interval: its confidence interval as text, or nothing.
        shade: -1 to 1, for a column that is coloured by its numbers.
        why: why there is no number, for a footnote.
    """

    text: str = ABSENT
    mark: Mark = Mark.PLAIN
    interval: str = ""
    shade: float = 0.0
    why: str = ""

    @property
    def absent(self) -> bool:
        """Whether there is no number."""
        return self.text.rstrip(SIGNS) == ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method (or benchmark) with its numbers."""

    name: str
    kind: Kind
    cells: tuple[Cell, ...]
    footnote: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportTable:
    """A table.

    Attributes:
        corner: what its rows are.
        columns: group (a recogniser, or nothing) and name of every column.
        rows: in order; groups of rows follow from their kinds.
        footnotes: from 1 on.
    """

    corner: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is no number at all."""
        return all(cell.absent for row in self.rows for cell in row.cells)

    @property
    def has_intervals(self) -> bool:
        """Whether any number has one."""
        return any(cell.interval for row in self.rows for cell in row.cells)

    @property
    def numbered(self) -> list[tuple[str, str]]:
        """The footnotes with their signs."""
        return [(_superscript(number), text) for number, text in enumerate(self.footnotes, 1)]

    @property
    def heads(self) -> list[tuple[str, int]]:
        """The groups of columns: name, and number of columns."""
        groups = [group for group, _ in self.columns]
        return [(group, groups.count(group)) for group in dict.fromkeys(groups)]

    def groups(self) -> Iterator[list[Row]]:
        """Rows that stand together: methods; baselines, references and `random`; `floor`."""
        for kinds in ({Kind.METHOD}, {Kind.BASELINE, Kind.REFERENCE, Kind.RANDOM}, {Kind.FLOOR}):
            rows = [row for row in self.rows if row.kind in kinds]
            if rows:
                yield rows


def rank_column(values: Mapping[str, float], digits: int, *, larger: bool = False) -> dict[str, Mark]:
    """Mark the best and the second best number as they are shown: equal text, equal mark.

    Args:
        values: of those that compete; one alone gets no mark.
        digits: decimals shown.
        larger: whether larger is better.
    """
    shown = {name: round(value, digits) for name, value in values.items() if isfinite(value)}
    if len(shown) < 2:
        return {}
    best, *others = sorted(set(shown.values()), reverse=larger)
    marks = {best: Mark.BEST} | ({others[0]: Mark.SECOND} if others else {})
    return {name: marks[value] for name, value in shown.items() if value in marks}


def build_area_table(metrics: pl.DataFrame, point: OperatingPoint) -> ReportTable:
    """The areas of one benchmark: methods down, recognisers and areas across.

    Args:
        metrics: rows of `metrics`; those of another operating point are passed over.
        point: protocol and false match rate.
    """
    rows = point.select(metrics)
    found = rows.rows_by_key(("recogniser", "method"), named=True, include_key=True, unique=True)
    methods = order(rows["method"])
    columns = {
        (recogniser, head): {
            method: show_area(found.get((recogniser, method)), recogniser, area, digits) for method in methods
        }
        for recogniser in distinct(rows, "recogniser")
        for area, (head, digits) in _COLUMNS[point.protocol].items()
    }
    unsure = {row["recogniser"]: explain_unsure(row) for row in rows.iter_rows(named=True)}
    heads = {column: unsure[column[0]] for column in columns}
    parts = {name: {method: row for (other, method), row in found.items() if other == name} for name in unsure}
    few = {name for name, own in parts.items() if any(row["status"] == FEW for row in own.values())}
    unranked = [column for column in columns if column[0] in few]
    return build_table(
        "method", columns, best=min, notes=_note_unscored(parts), heads=heads, unranked=unranked
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What stands side by side: the rows of one benchmark, or of one false match rate.

    Attributes:
        group: how it is called.
        rows: of `metrics`, one a method; of one recogniser and operating point.
    """

    group: str
    rows: pl.DataFrame


def build_across(columns: Sequence[Column], areas: Areas) -> ReportTable:
    """Areas as the papers print them: methods down; groups, and areas under each, across; the mean at the end.

    The mean, where there are several groups, is over those in which any method has a number, and only of methods that
    have one in each of them. It is not ranked where one of them is not.

    Args:
        columns: the groups.
        areas: column of `metrics` -> heading and decimals.
    """
    found = {column.group: {row["method"]: row for row in column.rows.iter_rows(named=True)} for column in columns}
    methods = order(method for rows in found.values() for method in rows)
    known = {name: rows for name, rows in found.items() if any(row["status"] in SHOWN for row in rows.values())}
    few = [name for name, rows in known.items() if any(row["status"] == FEW for row in rows.values())]
    cells: Columns = {}
    heads = {}
    for group, rows in found.items():
        for area, (head, digits) in areas.items():
            cells[group, head] = {method: show_area(rows.get(method), group, area, digits) for method in methods}
            heads[group, head] = explain_unsure(next(iter(rows.values()))) if rows else ""
    for area, (head, digits) in areas.items() if len(found) > 1 else ():
        cells[MEAN, head] = {
            method: _show_mean([rows.get(method) for rows in known.values()], area, digits) for method in methods
        }
        heads[MEAN, head] = _explain_mean(found, known, few)
    unranked = [column for column in cells if column[0] in few or (few and column[0] == MEAN)]
    return build_table(
        "method", cells, best=min, heads=heads, notes=_note_unscored(found), unranked=unranked
    )  # fmt: skip


def _explain_mean(found: Collection[str], known: Collection[str], few: Sequence[str]) -> str:
    """What to know of the mean over the groups `known` of those `found`, of which some rest on `few` errors."""
    left_out = [group for group in found if group not in known]
    notes = [f"over {len(known)} of {len(found)}, without {', '.join(left_out)}"] if left_out else []
    notes += [f"rests on {', '.join(few)}, with too few wrong pairs to rank methods"] if few else []
    return "; ".join(notes)


def _note_unscored(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Method -> how many images it gave no quality, by group; nothing where it gave all one."""
    unscored: dict[str, list[str]] = {}
    for group, rows in found.items():
        for method, row in rows.items():
            if row["unscored"]:
                unscored.setdefault(method, []).append(f"{row['unscored']:,} ({group})")
    return {
        method: f"images without a quality, which are rejected first: {', '.join(texts)}"
        for method, texts in unscored.items()
    }


def _show_mean(rows: Sequence[Mapping[str, Any] | None], area: str, digits: int) -> Cell:
    """A mean over groups; none where a group has no number."""
    numbers = [row[area] for row in rows if row is not None and row["status"] in SHOWN and isfinite(row[area])]
    if not numbers or len(numbers) < len(rows):
        return Cell()
    return Cell(text=f"{sum(numbers) / len(numbers):.{digits}f}")


def build_accuracy_table(accuracy: pl.DataFrame) -> ReportTable:
    """Verification accuracy in percent ± its standard deviation: benchmarks down, recognisers across."""
    found = accuracy.rows_by_key(("benchmark", "recogniser"), named=True, unique=True)
    columns = {
        ("", recogniser): {
            name: Cell(text=show_accuracy(found.get((name, recogniser)))) for name in distinct(accuracy, "benchmark")
        }
        for recogniser in distinct(accuracy, "recogniser")
    }
    return build_table("benchmark", columns)


def build_template_table(templates: pl.DataFrame) -> ReportTable:
    """TAR in percent of one benchmark, as CR-FIQA's Table II: larger is better."""
    found = templates.rows_by_key(("recogniser", "far", "method"), named=True, unique=True)
    columns = {
        (recogniser, f"FAR {show_rate(far)}"): {
            method: show_tar(found.get((recogniser, far, method)), recogniser, far)
            for method in order(templates["method"])
        }
        for recogniser in distinct(templates, "recogniser")
        for far in templates["far"].unique().sort()
    }
    heads = {}
    unranked = []
    for row in templates.unique(["recogniser", "far"], keep="first", maintain_order=True).iter_rows(named=True):
        place = row["recogniser"], f"FAR {show_rate(row['far'])}"
        heads[place] = explain_unsure_template(row)
        unranked += [place] * (row["status"] == FEW)
    return build_table("method", columns, best=max, heads=heads, unranked=unranked)


def explain_unsure_template(row: Mapping[str, Any]) -> str:
    """What to know of a column of true accept rates, by the first of its rows in `templates`; nothing of a sure one."""
    notes = []
    if row["status"] in SHOWN and row["far"] * row["impostors"] < SURE:
        notes.append(
            f"of {row['impostors']:,} impostor template pairs, {row['far'] * row['impostors']:.3g} may be accepted at "
            f"FAR {show_rate(row['far'])}: few to set a threshold"
        )
    if row["status"] == FEW:
        notes.append(
            f"of {row['genuine']:,} genuine template pairs, {row['errors']:,} are not accepted at FAR "
            f"{show_rate(row['far'])} by {row['method']}: too few to rank methods"
        )
    return f"{row['recogniser']}: {'; '.join(notes)}" if notes else ""


def build_correlation_table(correlations: pl.DataFrame) -> ReportTable:
    """Rank correlations of one benchmark: methods down, measures across, coloured."""
    found = correlations.rows_by_key(("method", "measure"), named=True, unique=True)
    columns = {
        ("", measure): {
            method: _show_correlation(found.get((method, measure))) for method in order(correlations["method"])
        }
        for measure in distinct(correlations, "measure")
    }
    return build_table("method", columns)


def explain_missing(row: Mapping[str, Any]) -> str:
    """Why a row of `metrics` shows no areas; nothing where it does."""
    rate = show_rate(row["fmr"])
    match row["status"]:
        case "ok" | "too_few_errors":
            return ""
        case "too_few_impostors":
            return f"{_count_impostors(row)}: too few to set a threshold"
        case "no_errors":
            return (
                f"{row['recogniser']} makes no error on {row['genuine']:,} genuine pairs at FMR {rate}: there is "
                "nothing to reject"
            )
        case other:
            return f"{row['recogniser']}: {other}"


def explain_unsure(row: Mapping[str, Any]) -> str:
    """What to know of a row of `metrics` that shows areas; nothing where enough pairs are behind it."""
    if row["status"] not in SHOWN:
        return ""
    few_impostors, few_errors = row["fmr"] * row["impostors"] < SURE, row["status"] == FEW
    notes = [f"{_count_impostors(row)}: few to set a threshold"] * few_impostors
    start = "" if few_impostors else f"{row['recogniser']}: "
    notes += [f"{start}{count_errors(row)} at FMR {show_rate(row['fmr'])}: too few to rank methods"] * few_errors
    return "; ".join(notes)


def describe_intervals(metrics: pl.DataFrame) -> str:
    """What the intervals of rows of `metrics` are."""
    rows = metrics.filter(pl.col("draws") > 0).unique(["draws", "drawn"], keep="first", maintain_order=True)
    of = " or ".join(f"{draws:,} draws of {drawn}" for draws, drawn in rows["draws", "drawn"].rows())
    return f"95 % bootstrap intervals (BCa, {of})"


def count_errors(row: Mapping[str, Any]) -> str:
    """How many genuine pairs of a row of `metrics` are wrong without rejection."""
    verb = "is" if row["errors"] == 1 else "are"
    return f"{row['errors']:,} of {row['genuine']:,} genuine pairs {verb} wrong"


def _count_impostors(row: Mapping[str, Any]) -> str:
    """How many impostor pairs set a threshold."""
    return (
        f"{row['recogniser']}: of {row['impostors']:,} impostor pairs, {row['fmr'] * row['impostors']:.3g} may match "
        f"at FMR {show_rate(row['fmr'])}"
    )


def show_accuracy(row: Mapping[str, Any] | None) -> str:
    """An accuracy with its standard deviation, in percent."""
    return ABSENT if row is None else f"{100 * row['accuracy']:.2f} ± {100 * row['std']:.2f}"


def show_signed(number: float, digits: int) -> str:
    """A number with its sign; zero is positive.

    >>> show_signed(-0.001, 2)
    '+0.00'
    """
    return f"{round(number, digits) + 0.0:+.{digits}f}"


Columns = dict[tuple[str, str], dict[str, Cell]]
"""Group and name of a column -> name of a row -> cell."""


def build_table(  # noqa: PLR0913 - each one is independent of the others
    corner: str,
    columns: Columns,
    *,
    best: Callable[..., float] | None = None,
    notes: Mapping[str, str] | None = None,
    heads: Mapping[tuple[str, str], str] | None = None,
    unranked: Collection[tuple[str, str]] = (),
) -> ReportTable:
    """The table, with the best numbers marked, and a footnote for each reason or note; equal texts share one.

    Where numbers are ranked, a footnote says of a reference that it is one.

    Args:
        corner: what its rows are.
        columns: the cells.
        best: `min` or `max`, where numbers are ranked.
        notes: row -> what a reader should know of it.
        heads: column -> likewise.
        unranked: columns in which none is marked.
    """
    footnotes: dict[str, str] = {}

    def refer(text: str) -> str:
        return footnotes.setdefault(text, _superscript(len(footnotes) + 1)) if text else ""

    marks = {
        column: _rank(cells, larger=best is max) if best and column not in unranked else {}
        for column, cells in columns.items()
    }
    names = [(group, name + refer(heads.get((group, name), "") if heads else "")) for group, name in columns]
    rows = []
    for name in next(iter(columns.values()), {}):
        cells = tuple(
            replace(
                found[name],
                text=found[name].text + refer(found[name].why),
                mark=marks[column].get(name, found[name].mark),
            )
            for column, found in columns.items()
        )
        kind = kind_of(name)
        known = _REFERENCE if best and kind is Kind.REFERENCE else ""
        footnote = refer("; ".join(filter(None, (known, notes.get(name, "") if notes else ""))))
        rows.append(Row(name=name, kind=kind, cells=cells, footnote=footnote))
    return ReportTable(corner=corner, columns=tuple(names), rows=tuple(rows), footnotes=tuple(footnotes))


def _rank(cells: Mapping[str, Cell], *, larger: bool) -> dict[str, Mark]:
    """Marks of one column, of the methods that compete."""
    shown = {name: cell.text for name, cell in cells.items() if kind_of(name).competes and not cell.absent}
    return rank_column({name: float(text) for name, text in shown.items()}, _MOST_DIGITS, larger=larger)


def _superscript(number: int) -> str:
    """A number as the sign of a footnote."""
    return str(number).translate(_SUPERSCRIPTS)


def show_area(row: Mapping[str, Any] | None, recogniser: str, area: str, digits: int) -> Cell:
    """One area with its interval, or the reason why there is none."""
    if row is None:
        return Cell(why=f"{recogniser}: not judged")
    if why := explain_missing(row):
        return Cell(why=why)
    if not isfinite(row[area]):
        return Cell(why=f"{recogniser}: a part of the curve keeps no pairs of one kind, so it has no area")
    ends = row.get(f"{area}_low"), row.get(f"{area}_high")
    known = all(end is not None and isfinite(end) for end in ends)
    interval = f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if known else ""
    return Cell(text=f"{row[area]:.{digits}f}", interval=interval)


def show_tar(row: Mapping[str, Any] | None, recogniser: str, far: float) -> Cell:
    """One rate in percent, or the reason why there is none."""
    if row is None:
        return Cell(why=f"{recogniser}: not judged")
    if row["status"] == "too_few_impostors":
        return Cell(
            why=f"{recogniser}: of {row['impostors']:,} impostor template pairs, {far * row['impostors']:.3g} may be "
            f"accepted at FAR {show_rate(far)}: too few to set a threshold"
        )
    return Cell(text=f"{100 * row['tar']:.2f}")


def _show_correlation(row: Mapping[str, Any] | None) -> Cell:
    """A correlation with its sign; none where one side does not vary."""
    if row is None or row["spearman"] is None or not isfinite(row["spearman"]):
        return Cell()
    return Cell(text=show_signed(row["spearman"], 2), shade=row["spearman"])
