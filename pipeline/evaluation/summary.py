"""What the terminal says when an evaluation is there."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from rich.table import Column, Table

from pipeline.evaluation.makers import find_makers
from pipeline.evaluation.output import WARNINGS
from pipeline.evaluation.report.frames import OperatingPoint, read_frames
from pipeline.evaluation.report.judges import describe_losses
from pipeline.evaluation.report.tables import FEW, SHOWN, SURE
from pipeline.storage.store import PAGE
from pipeline.terminal import tell
from training.evaluation.pairs.ranked_pairs import Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.evaluation.plan import Plan

_USUAL = 1e-3
"""The false match rate that is shown where it was asked for (CLIB-FIQA's Tables 1 to 3)."""


def print_outcome(plan: Plan) -> None:
    """Show the areas at one false match rate, what is missing, and where the rest lies."""
    protocol = plan.request.protocols[0]
    read = pq.read_table(plan.folder / "metrics.parquet")
    rows = [r for r in read.to_pylist() if r["protocol"] == protocol]
    known = {row["fmr"] for row in rows if row["status"] in SHOWN}
    fmr = _USUAL if _USUAL in known else max(known or plan.request.fmrs)
    heads = (Column(name, overflow="fold") for name in ("benchmark", "recogniser", "method"))
    table = Table(
        *heads, "pAUC", "AUC", "wrong", "note",
        title=f"FMR {fmr:g}, {protocol}: smaller is better; wrong: genuine pairs without rejection",
    )  # fmt: skip
    shown = (row for row in rows if row["fmr"] == fmr)
    for names, group in groupby(shown, lambda row: (row["benchmark"], row["recogniser"])):
        table.add_section()
        for place, row in enumerate(group):
            numbers = (f"{row[name]:.3f}" if row["status"] in SHOWN else "-" for name in ("pauc", "auc"))
            # What is the same of all methods is said once.
            first = (*names, f"{row['errors']}/{row['genuine']}", _describe_status(row)) if not place else ("",) * 4
            table.add_row(*first[:2], row["method"], *numbers, *first[2:])
    if table.row_count:
        tell(table)
    metrics = read_frames({"metrics": read})["metrics"]
    for sentence in describe_losses(metrics, find_makers(plan), OperatingPoint(protocol=Protocol.FIXED, fmr=fmr)):
        tell(sentence)
    if any(row["fmr"] == fmr and row["status"] == FEW for row in rows):
        tell(
            f"by fewer than {plan.request.fewest_errors} wrong pairs no method is ranked or compared: take a larger "
            "false match rate or a harder benchmark, or lower --fewest-errors"
        )
    for text in json.loads((read.schema.metadata or {}).get(WARNINGS.encode(), b"[]")):
        tell(f"warning: {text}")
    for name, what in plan.missing.items():
        tell(f"left out: {name}; {what}")
    tell(f"all tables and pictures: {plan.folder / PAGE}")


def _describe_status(row: Mapping[str, Any]) -> str:
    """What to know of a row of `metrics`, in few words."""
    notes = [] if row["status"] == "ok" else [row["status"].replace("_", " ")]
    notes += ["few impostor pairs"] * (row["status"] in SHOWN and row["fmr"] * row["impostors"] < SURE)
    return ", ".join(notes)
