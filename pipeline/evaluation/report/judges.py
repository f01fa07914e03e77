"""What a method loses by the errors of recognisers that did not make its labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from pipeline.evaluation.report.frames import distinct, list_points
from pipeline.evaluation.report.method_order import Kind, kind_of, order
from pipeline.evaluation.report.paper_tables import PaperTable
from pipeline.evaluation.report.tables import AREAS, Cell, build_table, show_signed
from training.evaluation.pairs.ranked_pairs import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.evaluation.report.frames import OperatingPoint
    from pipeline.evaluation.report.tables import Columns

_DIGITS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One method's mean areas over the benchmarks where it has numbers by every judge.

    Attributes:
        method: its name.
        benchmarks: how many.
        own: area -> by the errors of the recogniser in question.
        others: area -> the mean over the other judges.
    """

    method: str
    benchmarks: int
    own: Mapping[str, float]
    others: Mapping[str, float]

    def loss(self, area: str) -> float:
        """How much larger the area is by the others; both as they are shown."""
        return round(self.others[area], _DIGITS) - round(self.own[area], _DIGITS)


def judge(metrics: pl.DataFrame, point: OperatingPoint, recogniser: str) -> list[Judged]:
    """All methods by the errors of one recogniser, and by those of the others.

    Args:
        metrics: the table.
        point: protocol and false match rate.
        recogniser: one of several judges.
    """
    judges = metrics["recogniser"].n_unique()
    known = point.select(metrics).filter(pl.col("status") == "ok", *(pl.col(area).is_finite() for area in AREAS))
    whole = known.filter(pl.len().over("benchmark", "method") == judges)
    found = []
    for method in order(whole["method"]):
        rows = whole.filter(method=method)
        own, others = rows.filter(recogniser=recogniser), rows.filter(pl.col("recogniser") != recogniser)
        found.append(
            Judged(
                method=method,
                benchmarks=len(own),
                own={area: float(own[area].mean()) for area in AREAS},  # type: ignore[arg-type]
                others={area: float(others[area].mean()) for area in AREAS},  # type: ignore[arg-type]
            )
        )
    return found


def compare_judges(metrics: pl.DataFrame, makers: Mapping[str, str]) -> Iterator[PaperTable]:
    """For every judge that made labels, all methods by its errors and by those of the others.

    Args:
        metrics: the table.
        makers: method -> the recogniser of its labels.
    """
    for recogniser in _list_makers(metrics, makers):
        for point in _list_points(metrics):
            cells: Columns = {}
            judged = judge(metrics, point, recogniser)
            for area, (head, digits) in AREAS.items():
                cells[head, recogniser] = {j.method: Cell(text=f"{j.own[area]:.{digits}f}") for j in judged}
                cells[head, "the others"] = {j.method: Cell(text=f"{j.others[area]:.{digits}f}") for j in judged}
                cells[head, "loss"] = {j.method: Cell(text=show_signed(j.loss(area), digits)) for j in judged}
            most = max((j.benchmarks for j in judged), default=0)
            notes = {j.method: "; ".join(_list_notes(j, makers, most)) for j in judged}
            if judged:
                yield PaperTable(
                    recogniser="", protocol=Protocol.FIXED, rate=point.rate,
                    title=f"labels by {recogniser}: its errors and those of the others, FMR {point.rate}",
                    table=build_table("method", cells, notes=notes),
                )  # fmt: skip


def _list_notes(judged: Judged, makers: Mapping[str, str], most: int) -> Iterator[str]:
    """What to know of one row, of a table over so many benchmarks at most."""
    if judged.method in makers:
        yield f"its labels are by {makers[judged.method]}"
    elif kind_of(judged.method) is Kind.METHOD:
        yield "not known whose labels it learned from"
    if judged.benchmarks < most:
        yield f"over {judged.benchmarks} of {most} benchmarks"


def describe_losses(metrics: pl.DataFrame, makers: Mapping[str, str], point: OperatingPoint) -> Iterator[str]:
    """For every method whose labels a judge made, what it loses by the others, in a sentence.

    Args:
        metrics: the table.
        makers: method -> the recogniser of its labels.
        point: protocol and false match rate.
    """
    for recogniser in _list_makers(metrics, makers):
        for found in judge(metrics, point, recogniser):
            if makers.get(found.method) == recogniser:
                parts = (
                    f"{head.removesuffix(' ↓')} {show_signed(found.loss(area), digits)} ({found.own[area]:.{digits}f} "
                    f"by its errors, {found.others[area]:.{digits}f} by those of the others)"
                    for area, (head, digits) in AREAS.items()
                )
                yield f"{found.method}, labels by {recogniser}: {'; '.join(parts)}"


def _list_makers(metrics: pl.DataFrame, makers: Mapping[str, str]) -> list[str]:
    """The judges that made labels, where there are others."""
    judges = distinct(metrics, "recogniser")
    return [name for name in judges if name in makers.values()] if len(judges) > 1 else []


def _list_points(metrics: pl.DataFrame) -> list[OperatingPoint]:
    """The operating points of protocol `fixed`."""
    return [point for point in list_points(metrics) if point.protocol == Protocol.FIXED]
