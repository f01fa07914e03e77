"""The papers' own numbers beside those of an evaluation of the same benchmarks, recogniser and methods.

A benchmark is the same where its manifest says so in `published`. A method is the same where its name has the letters
and digits of the published one, in any case: `ser_fiq` is SER-FIQ. Of a recogniser the first word decides:
`adaface_r50` is AdaFace. What was taken for what stands below each table.
"""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from pipeline.evaluation.report.frames import distinct, show_rate
from pipeline.evaluation.report.method_order import order
from pipeline.evaluation.report.paper_tables import PaperTable, take_means
from pipeline.evaluation.report.tables import (
    ABSENT,
    MEAN,
    Cell,
    build_table,
    explain_unsure,
    explain_unsure_template,
    show_area,
    show_signed,
    show_tar,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.evaluation.report.frames import Frames
    from pipeline.evaluation.report.tables import Columns

    Rows = Mapping[tuple[str, str, float], Mapping[str, Any]]
    """Published name of the benchmark, our name of the method, and rate -> a row of `metrics` or `templates`."""

_TAR = "tar"
_AREAS = {"pauc": ("pAUC", 3), "auc": ("AUC", 3), "auc_raw": ("raw AUC", 4), _TAR: ("true accept rate in percent", 2)}
"""Area -> its name, and decimals as printed."""


class PublishedTable(BaseModel):
    """The numbers of one recogniser in one table of a paper.

    Attributes:
        paper: short name.
        table: its number there.
        recogniser: whose errors are counted.
        trained_on: its training set.
        protocol: ours for the same number; empty for templates.
        area: column of `metrics`, or `tar`.
        rates: false match rates, or false accept rates.
        benchmarks: by their published names; `Avg.` is the mean over the others of its paper.
        rows: method -> values: of all rates of the first benchmark, then of the second.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: str
    table: str
    recogniser: str
    trained_on: str
    protocol: Literal["fixed", "cr_fiqa", ""]
    area: Literal["pauc", "auc", "auc_raw", "tar"]
    rates: tuple[float, ...]
    benchmarks: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]

    def value(self, method: str, benchmark: str, rate: float) -> float:
        """One number."""
        place = self.benchmarks.index(benchmark) * len(self.rates) + self.rates.index(rate)
        return self.rows[method][place]

    def find(self, method: str) -> str | None:
        """The published name of one of our methods; None where none is called so."""
        return next((theirs for theirs in self.rows if _plain(theirs) == _plain(method)), None)


@functools.cache
def read_published() -> tuple[PublishedTable, ...]:
    """All tables, in the order of the papers."""
    text = files("pipeline.evaluation.report").joinpath("published.toml").read_text("utf-8")
    return tuple(PublishedTable.model_validate(table) for table in tomllib.loads(text)["table"])


def compare_published(frames: Frames, benchmarks: Mapping[str, str]) -> Iterator[PaperTable]:
    """Our numbers, the published ones, and the difference.

    Args:
        frames: the tables of an evaluation.
        benchmarks: our benchmarks that are published ones -> their published names.
    """
    for table in read_published():
        rows = frames["templates"].rename({"far": "fmr"}) if table.area == _TAR else frames["metrics"]
        rows = rows if table.area == _TAR else rows.filter(protocol=table.protocol)
        rows = rows.filter(pl.col("benchmark").is_in(list(benchmarks)))
        for recogniser in distinct(rows, "recogniser"):
            if _plain(re.split(r"[^A-Za-z0-9]", recogniser)[0]) == _plain(table.recogniser):
                yield from _compare(table, recogniser, rows.filter(recogniser=recogniser), benchmarks)


def _compare(
    table: PublishedTable, recogniser: str, rows: pl.DataFrame, benchmarks: Mapping[str, str]
) -> Iterator[PaperTable]:
    """The tables of one recogniser: benchmarks across, one table a rate; or rates across where there is no other."""
    methods = {name: theirs for name in order(rows["method"]) if (theirs := table.find(name))}
    found = _find_rows(table, rows, benchmarks)
    ours = {name: benchmarks[name] for name in distinct(rows, "benchmark")}
    source = _describe(table, recogniser, ours, methods)
    area, _ = _AREAS[table.area]
    kind = "FAR" if table.area == _TAR else "FMR"
    if len(table.benchmarks) == 1:
        across = {"": {f"{kind} {show_rate(rate)}": (table.benchmarks[0], rate) for rate in table.rates}}
    else:
        across = {show_rate(rate): {name: (name, rate) for name in table.benchmarks} for rate in table.rates}
    for rate, groups in across.items():
        cells: Columns = {}
        heads: dict[tuple[str, str], str] = {}
        for group, place in groups.items():
            own = {name: found.get((place[0], name, place[1])) for name in methods}
            if any(own.values()):
                cells |= _show_group(table, recogniser, group, place, own)
                few = next(row for row in own.values() if row)
                of_templates = table.area == _TAR
                heads[group, "ours"] = (
                    explain_unsure_template({**few, "far": few["fmr"]}) if of_templates else explain_unsure(few)
                )
                heads[group, "published"] = source
        if cells:
            yield PaperTable(
                recogniser=recogniser, protocol=table.protocol, rate=rate, beside_paper=True,
                title=f"{recogniser} beside {table.paper}, {table.table}: {area}{rate and f', {kind} {rate}'}",
                table=build_table("method", cells, heads=heads),
            )  # fmt: skip


def _show_group(
    table: PublishedTable,
    recogniser: str,
    group: str,
    place: tuple[str, float],
    own: Mapping[str, Mapping[str, Any] | None],
) -> Columns:
    """Three columns: our number, the published one, and the difference.

    Args:
        table: the published table.
        recogniser: of ours.
        group: how the columns are headed.
        place: published benchmark and rate.
        own: our methods -> the row of `metrics` or `templates`.
    """
    digits = _AREAS[table.area][1]
    cells: Columns = {(group, name): {} for name in ("ours", "published", "difference")}
    for name, row in own.items():
        value = table.value(table.find(name) or "", *place)
        if table.area == _TAR:
            shown = show_tar(row, recogniser, place[1])
        else:
            shown = replace(show_area(row, recogniser, table.area, digits), interval="")
        difference = ABSENT if shown.absent else show_signed(float(shown.text) - value, digits)
        cells[group, "ours"][name] = shown
        cells[group, "published"][name] = Cell(text=f"{value:.{digits}f}")
        cells[group, "difference"][name] = Cell(text=difference)
    return cells


def _find_rows(table: PublishedTable, rows: pl.DataFrame, benchmarks: Mapping[str, str]) -> Rows:
    """Our rows by published benchmark; also the means where we have all benchmarks that the paper's are over."""
    found = {(benchmarks[row["benchmark"]], row["method"], row["fmr"]): row for row in rows.iter_rows(named=True)}
    if MEAN in table.benchmarks:
        needed = {name for other in read_published() if other.paper == table.paper for name in other.benchmarks}
        needed -= {MEAN}
        own = rows.filter(pl.col("benchmark").replace(benchmarks).is_in(list(needed)))
        for rate in table.rates:
            means = take_means(own.filter(fmr=rate))
            means = means.filter(benchmarks=len(needed))
            found |= {(MEAN, row["method"], rate): row for row in means.iter_rows(named=True)}
    return found


def _describe(table: PublishedTable, recogniser: str, benchmarks: Mapping[str, str], methods: Mapping[str, str]) -> str:
    """Where the published numbers are from, and what was taken for what."""
    pairs = {"benchmarks, as their manifests say": benchmarks, "methods": methods}
    listed = [f"{what}: {', '.join(f'{a} as {b}' for a, b in names.items())}" for what, names in pairs.items()]
    return (
        f"{table.paper}, {table.table}. Taken for the same: {recogniser} as its {table.recogniser}, trained on "
        f"{table.trained_on}; {'; '.join(listed)}"
    )


def _plain(name: str) -> str:
    """The letters and digits of a name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
