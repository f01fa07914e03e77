"""The tables of the papers as they are printed: methods down, benchmarks or false match rates across, the mean last.

For every recogniser and false match rate the layout of CLIB-FIQA's Tables 1 to 3, for every benchmark and their mean at
several rates that of its Table 4, for the protocol `cr_fiqa` that of CR-FIQA's Table I, whose areas are not normalised.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from pipeline.evaluation.report.frames import distinct, list_points
from pipeline.evaluation.report.tables import AREAS, SHOWN, SIGNS, Column, Mark, ReportTable, build_across
from training.evaluation.pairs.ranked_pairs import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_RAW_AREA = {"auc_raw": ("", 4)}
_LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "\\": r"\textbackslash{}",
          "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "↓": r"$\downarrow$", "±": r"$\pm$"}  # fmt: skip
_LATEX_MARKS = {Mark.PLAIN: "{}", Mark.BEST: r"\textbf{{{}}}", Mark.SECOND: r"\underline{{{}}}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """A table with its heading.

    Attributes:
        recogniser: whose errors are counted; empty where those of several are.
        protocol: which pairs are rejected; empty for templates.
        rate: the false match rate; empty where several stand side by side.
        title: for a reader.
        table: the numbers.
        beside_paper: whether a paper's numbers stand beside ours.
    """

    recogniser: str
    protocol: str
    rate: str
    title: str
    table: ReportTable
    beside_paper: bool = False

    @property
    def several(self) -> bool:
        """Whether anything stands side by side."""
        return self.beside_paper or len(self.table.heads) > 1

    @property
    def name(self) -> str:
        """For a file."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.title)


def list_paper_tables(metrics: pl.DataFrame) -> Iterator[PaperTable]:
    """All tables that an evaluation has the numbers for."""
    points = list_points(metrics)
    for recogniser in distinct(metrics, "recogniser"):
        own = metrics.filter(recogniser=recogniser)
        benchmarks = distinct(own, "benchmark")
        fixed = [point for point in points if point.protocol == Protocol.FIXED]
        for point in fixed:
            columns = [Column(group=name, rows=point.select(own).filter(benchmark=name)) for name in benchmarks]
            yield PaperTable(
                recogniser=recogniser, protocol=point.protocol, rate=point.rate,
                title=f"{recogniser}, FMR {point.rate}", table=build_across(columns, AREAS),
            )  # fmt: skip
        parts = {name: own.filter(benchmark=name) for name in benchmarks}
        if len(benchmarks) > 1:
            means = [take_means(point.select(own)) for point in fixed]
            parts |= {"mean of the benchmarks": pl.concat(means)} if means else {}
        for name, part in parts.items() if len(fixed) > 1 else ():
            columns = [Column(group=p.title, rows=part.filter(fmr=p.fmr, protocol=p.protocol)) for p in fixed]
            yield PaperTable(
                recogniser=recogniser, protocol=Protocol.FIXED, rate="", title=f"{recogniser}, {name}",
                table=build_across(columns, AREAS),
            )  # fmt: skip
        columns = [
            Column(group=f"{name}, {point.rate}", rows=point.select(own).filter(benchmark=name))
            for name in benchmarks
            for point in points
            if point.protocol == Protocol.CR_FIQA
        ]
        if columns:
            yield PaperTable(
                recogniser=recogniser, protocol=Protocol.CR_FIQA, rate="",
                title=f"{recogniser}, protocol cr_fiqa, areas not normalised", table=build_across(columns, _RAW_AREA),
            )  # fmt: skip


def take_means(rows: pl.DataFrame) -> pl.DataFrame:
    """The mean areas over benchmarks, of methods that have a number in each in which any has one.

    Args:
        rows: of `metrics`, of one recogniser and operating point.

    Returns:
        Rows as those, with the fewest impostor pairs of a benchmark, the pairs of that with the fewest wrong ones, and
        `benchmarks`, how many the mean is over.
    """
    known = rows.filter(pl.col("status").is_in(SHOWN))
    means = known.group_by("method", maintain_order=True).agg(
        pl.first("recogniser", "protocol", "fmr"),
        pl.col("status", "genuine", "errors").sort_by("errors").first(),
        pl.min("impostors"),
        pl.sum("unscored"),
        pl.mean("pauc", "auc", "pauc_raw", "auc_raw"),
        pl.col("benchmark").n_unique().alias("benchmarks"),
    )
    return means.filter(benchmarks=known["benchmark"].n_unique())


def write_csv(table: ReportTable) -> str:
    """A table for a spreadsheet: numbers as they are printed, an empty field where there is none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([table.corner, *(f"{group} {name}".strip().rstrip(SIGNS) for group, name in table.columns)])
    for row in table.rows:
        writer.writerow([row.name, *("" if cell.absent else cell.text.rstrip(SIGNS) for cell in row.cells)])
    return file.getvalue()


def write_latex(table: ReportTable) -> str:
    """A table for a paper, for the package booktabs: the best number bold, the second best underlined."""
    lines = [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    groups = [rf"\multicolumn{{{count}}}{{c}}{{{_escape(group)}}}" for group, count in table.heads]
    lines.append(" & ".join(["", *groups]) + r" \\")
    if any(name for _, name in table.columns):
        lines.append(" & ".join([_escape(table.corner), *(_escape(name) for _, name in table.columns)]) + r" \\")
    for rows in table.groups():
        lines.append(r"\midrule")
        for row in rows:
            cells = (_LATEX_MARKS[cell.mark].format(_escape(cell.text)) for cell in row.cells)
            lines.append(" & ".join([_escape(row.name + row.footnote), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {_escape(sign)} {_escape(note)}" for sign, note in table.numbered]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    """Text that LaTeX shows as it is."""
    found = "".join(_LATEX.get(letter, letter) for letter in text)
    return re.sub(f"[{SIGNS}]+", lambda m: "$^{" + "".join(str(SIGNS.index(s)) for s in m[0]) + "}$", found)
