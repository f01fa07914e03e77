"""The tables of an evaluation as Markdown, laid out like those of the papers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from training.evaluation.error_reject import Protocol
from training.evaluation.report.findings import AREA_NAMES, list_findings, show_interval, show_p
from training.evaluation.report.lineup import check_tables, list_benchmarks
from training.evaluation.report.metric_sheets import Choice, average, build_metric_sheet, list_choices
from training.evaluation.report.other_sheets import build_accuracy_sheet, build_correlation_sheet, build_template_sheet
from training.evaluation.report.sheet import Mark, show_rate, show_signed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from training.evaluation.report.findings import Finding
    from training.evaluation.report.sheet import Row, Sheet

    Record = dict[str, Any]

_INTRODUCTION = """\
# Evaluation of face image quality

pAUC and AUC are areas under the error-reject curve up to a rejection of 0.3 and of 0.95, divided by the area without
rejection: smaller is better, and a quality that tells nothing has 1. Best **bold**, second best *italic*; `random` and
`floor` (the similarity of the pair itself) do not compete."""

_CR_FIQA = """\
Protocol `cr_fiqa` rejects genuine and impostor pairs together and sets the threshold anew at every rate, as CR-FIQA's
published script does, so that even `random` may fall under 1. Raw AUC is the area of CR-FIQA's Table I."""
_TESTS = """\
Difference of the areas on the same bootstrap draws, under 0 where the method is better; p is two-sided, of each test by
itself."""
_MARKS = {Mark.PLAIN: "{}", Mark.BEST: "**{}**", Mark.SECOND: "*{}*"}


def render_markdown(tables: Mapping[str, pa.Table]) -> str:
    """All tables of an evaluation.

    Args:
        tables: by name, as `data_manifests.tables.evaluation` has them; an absent table is passed over. `curves` and
            `qualities` are not shown.

    Raises:
        ReportError: if a table has other columns, or does not say which benchmark or recogniser a row is of.
    """
    check_tables(tables)
    records = {name: tables[name].to_pylist() for name in tables if name not in {"curves", "qualities"}}
    metrics = records.get("metrics", [])
    findings = list_findings(records.get("comparisons", []), metrics)
    parts = [_INTRODUCTION] + [_CR_FIQA] * any(row["protocol"] == Protocol.CR_FIQA for row in metrics)
    for benchmark in list_benchmarks({name: tables[name] for name in records}):
        own = {name: [row for row in rows if row["benchmark"] == benchmark] for name, rows in records.items()}
        sections = list(_write_benchmark(own, [found for found in findings if found.benchmark == benchmark]))
        if sections:
            parts += [f"## {escape(benchmark)}", *sections]
    parts += _write_averages(metrics)
    if records.get("accuracy"):
        sheet = build_accuracy_sheet(records["accuracy"])
        parts += ["## Verification accuracy in percent, ± standard deviation over the folds", _write_sheet(sheet)]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    r"""Text that Markdown shows as it is, on one line.

    >>> escape("a|b*c")
    'a\\|b\\*c'
    """
    return re.sub(r"([\\|*`<>\[\]~]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


def _write_benchmark(records: Mapping[str, Sequence[Record]], findings: Sequence[Finding]) -> Iterator[str]:
    """The sections of one benchmark."""
    metrics = records.get("metrics", [])
    for choice in list_choices(metrics):
        yield from _write_metrics(build_metric_sheet(metrics, choice), choice)
    if records.get("templates"):
        sheet = build_template_sheet(records["templates"])
        yield from ("### Templates: true accept rate in percent", _write_sheet(sheet))
    if findings:
        yield from (f"### Tests of {escape(findings[0].method)}", _TESTS, _write_findings(findings))
    if records.get("correlations"):
        sheet = build_correlation_sheet(records["correlations"])
        yield from ("### Rank correlation with measures", _write_sheet(sheet))


def _write_averages(metrics: Sequence[Record]) -> list[str]:
    """The means over the benchmarks, where there are several."""
    parts = []
    for choice in list_choices(metrics):
        means, notes = average(metrics, choice)
        if means:
            parts += [f"### {_name(choice)}", _write_sheet(build_metric_sheet(means, choice)), *map(escape, notes)]
    return ["## Average", *parts] if parts else []


def _write_metrics(sheet: Sheet, choice: Choice) -> Iterator[str]:
    """The areas at one rate: the table of the numbers, then that of their intervals."""
    yield f"### {_name(choice)}"
    if sheet.empty:
        yield "Left out:\n\n" + "\n".join(f"- {escape(text)}" for text in sheet.footnotes)
        return
    yield _write_sheet(sheet)
    if sheet.has_intervals:
        yield "95 % bootstrap intervals:"
        yield _write_table(sheet, lambda row, column: row.cells[column].interval)


def _name(choice: Choice) -> str:
    """A heading."""
    return choice.title.replace("cr_fiqa", "`cr_fiqa`")


def _write_sheet(sheet: Sheet) -> str:
    """A table with its marks and footnotes."""
    table = _write_table(
        sheet, lambda row, column: _MARKS[row.cells[column].mark].format(row.cells[column].text), footnotes=True
    )
    notes = [f"{sign} {escape(text)}" for sign, text in sheet.numbered]
    return "\n\n".join([table, *notes])


def _write_table(sheet: Sheet, show: Callable[[Row, int], str], *, footnotes: bool = False) -> str:
    """A table; an empty row stands between the groups of its rows."""
    single = len(sheet.heads) == 1
    heads = [name if single or not group else f"{group} {name}" for group, name in sheet.columns]
    corner = f"{sheet.corner} ({sheet.heads[0][0]})" if single and sheet.heads[0][0] else sheet.corner
    lines = [[escape(text) for text in (corner, *heads)], ["---"] + ["---:"] * len(heads)]
    for number, group in enumerate(sheet.groups()):
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
