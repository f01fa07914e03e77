"""What the terminal says when an evaluation is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from rich.table import Table

from pipeline.storage.store import PAGE
from pipeline.terminal import make_console

if TYPE_CHECKING:
    from pipeline.evaluation.plan import Plan

_USUAL = 1e-3
"""The false match rate that is shown where it was asked for (CLIB-FIQA's Tables 1 to 3)."""


def print_outcome(plan: Plan) -> None:
    """Show the areas at one false match rate, what is missing, and where the rest lies."""
    console = make_console()
    protocol = plan.request.protocols[0]
    rows = [r for r in pq.read_table(plan.folder / "metrics.parquet").to_pylist() if r["protocol"] == protocol]
    known = {row["fmr"] for row in rows if row["status"] == "ok"}
    fmr = _USUAL if _USUAL in known else max(known or plan.request.fmrs)
    table = Table(
        "benchmark", "recogniser", "method", "pAUC", "AUC", "", title=f"FMR {fmr:g}, {protocol}: smaller is better"
    )
    for row in rows:
        if row["fmr"] == fmr:
            numbers = (f"{row[name]:.3f}" if row["status"] == "ok" else "-" for name in ("pauc", "auc"))
            status = "" if row["status"] == "ok" else row["status"].replace("_", " ")
            table.add_row(row["benchmark"], row["recogniser"], row["method"], *numbers, status)
    if table.row_count:
        console.print(table)
    for name, what in plan.missing.items():
        console.print(f"left out: {name}; {what}", highlight=False, soft_wrap=True)
    console.print(f"all tables and pictures: {plan.folder / PAGE}", highlight=False, soft_wrap=True)
