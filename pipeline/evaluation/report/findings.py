"""Paired tests as a table: every method against every other one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from scipy.stats import false_discovery_control

from pipeline.evaluation.report.method_order import Kind, kind_of, order
from pipeline.evaluation.report.tables import Cell, Mark, build_table, show_signed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.evaluation.report.tables import Columns, ReportTable

SIGNIFICANCE = 0.05
"""Of the differences of a table that are called one, the share that may be expected to be none.

Benjamini and Hochberg (JRSS B 1995). To hold every single one of dozens of tests, as Holm does, takes smaller p-values
than a thousand draws can give.
"""

AREA_NAMES = {"pauc": "pAUC", "auc": "AUC"}


def build_matrices(comparisons: pl.DataFrame, metrics: pl.DataFrame) -> dict[str, ReportTable]:
    """The tests of one benchmark, recogniser and false match rate: name of the area -> methods against methods.

    A cell is the area of the row's method less that of the column's, and its p-value; `floor` is not tested. Tests
    without a p-value, for want of bootstrap draws or of errors, are left out, and a table without any.

    Args:
        comparisons: rows of the table, each pair of methods once, in either order.
        metrics: rows of that table; where the areas rest on too few pairs, nothing is tested.
    """
    found: dict[str, ReportTable] = {}
    if "ok" not in metrics["status"]:
        return found
    for area, name in AREA_NAMES.items():
        rows = comparisons.filter(
            pl.col("area") == area, pl.col("difference").is_finite(), pl.col("p_value").is_finite()
        )
        tests = {
            (row["method"], row["other"]): (row["difference"], row["p_value"])
            for row in rows.iter_rows(named=True)
            if Kind.FLOOR not in (kind_of(row["method"]), kind_of(row["other"]))
        }
        if tests:
            found[name] = _build_matrix(tests)
    return found


def _build_matrix(tests: Mapping[tuple[str, str], tuple[float, float]]) -> ReportTable:
    """One table of (method, other) -> difference and p-value."""
    sure = dict(zip(tests, false_discovery_control([p for _, p in tests.values()]), strict=True))
    methods = order(name for pair in tests for name in pair)
    columns: Columns = {}
    for other in methods:
        cells = columns["", other] = {}
        for method in methods:
            pair, sign = ((method, other), 1) if (method, other) in tests else ((other, method), -1)
            cells[method] = Cell()
            if pair in tests:
                difference, p_value = tests[pair]
                mark = Mark.BEST if sure[pair] < SIGNIFICANCE else Mark.PLAIN
                cells[method] = Cell(text=show_signed(sign * difference, 3), interval=show_p(p_value), mark=mark)
    return build_table("less →", columns)


def show_p(p_value: float) -> str:
    """A p-value with three decimals."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
