"""What the terminal says when an evaluation is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from rich.table import Table

from pipeline.evaluation.makers import find_makers
from pipeline.evaluation.report.frames import OperatingPoint, read_frames
from pipeline.evaluation.report.judges import describe_losses
from pipeline.evaluation.report.tables import explain_unsure
from pipeline.storage.store import PAGE
from pipeline.terminal import tell
from training.evaluation.pairs.ranked_pairs import Protocol

if TYPE_CHECKING:
    from pipeline.evaluation.plan import Plan

_USUAL = 1e-3
"""The false match rate that is shown where it was asked for (CLIB-FIQA's Tables 1 to 3)."""


def print_outcome(plan: Plan) -> None:
    """Show the areas at one false match rate, what is missing, and where the rest lies."""
    protocol = plan.request.protocols[0]
    read = pq.read_table(plan.folder / "metrics.parquet")
    rows = [r for r in read.to_pylist() if r["protocol"] == protocol]
    known = {row["fmr"] for row in rows if row["status"] == "ok"}
    fmr = _USUAL if _USUAL in known else max(known or plan.request.fmrs)
    table = Table(
        "benchmark", "recogniser", "method", "pAUC", "AUC", "", title=f"FMR {fmr:g}, {protocol}: smaller is better"
    )
    for row in rows:
        if row["fmr"] == fmr:
            numbers = (f"{row[name]:.3f}" if row["status"] == "ok" else "-" for name in ("pauc", "auc"))
            few = "few impostor pairs" if explain_unsure(row) else ""
            status = few if row["status"] == "ok" else row["status"].replace("_", " ")
            table.add_row(row["benchmark"], row["recogniser"], row["method"], *numbers, status)
    if table.row_count:
        tell(table)
    metrics = read_frames({"metrics": read})["metrics"]
    for sentence in describe_losses(metrics, find_makers(plan), OperatingPoint(protocol=Protocol.FIXED, fmr=fmr)):
        tell(sentence)
    for name, what in plan.missing.items():
        tell(f"left out: {name}; {what}")
    tell(f"all tables and pictures: {plan.folder / PAGE}")
