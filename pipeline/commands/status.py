"""`status`: what the workspace holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from pipeline.commands.common import console, human_bytes
from pipeline.job import workspace_root
from pipeline.store import CURRENT, RECEIPTS


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status)


def status() -> None:
    """Show every data set: stages, rows, causes of nulls, speed, size. Example: python -m pipeline status.

    The workspace is the folder `workspace` here, or the one that FIQA_WORKSPACE names.
    """
    root = workspace_root()
    folders = sorted(p.parent for p in root.glob(f"*/{RECEIPTS}"))
    if not folders:
        console.print(f"{root} holds no labels yet; `make labels` makes those of the sample")
    for folder in folders:
        console.print(stage_table(folder))
        labels = folder / "labels" / CURRENT
        if labels.exists():
            console.print(f'open the labels: polars.scan_parquet("{labels}")', highlight=False, soft_wrap=True)


def stage_table(folder: Path) -> Table:
    """The stages of one data set."""
    table = Table(title=str(folder))
    for name in ("stage", "current", "rows not ok", "images/s", "finished", "size"):
        table.add_column(name, no_wrap=name in {"stage", "finished", "size"})
    for stage in sorted(p.name for p in (folder / RECEIPTS).iterdir() if p.is_dir()):
        link = folder / stage / CURRENT
        name = link.readlink().name if link.is_symlink() else ""
        receipt = newest_receipt(folder / RECEIPTS / stage / name) if name else {}
        made = sorted(p for p in (folder / stage).glob("*") if p.is_dir() and not p.is_symlink())
        table.add_row(
            stage,
            (name or "not finished") + (f" (+{len(made) - 1} older)" if len(made) > 1 else ""),
            _not_ok(receipt.get("status", {})),
            f"{receipt['images_per_second']:,.0f}" if receipt.get("images_per_second") else "",
            receipt.get("finished", "")[:16].replace("T", " "),
            human_bytes(sum(f.stat().st_size for p in made for f in p.iterdir())),
        )
    return table


def newest_receipt(folder: Path) -> dict[str, Any]:
    """The figures of the last run that computed something, or of the last run."""
    receipts = [json.loads(p.read_text()) for p in sorted(folder.glob("run-*.json"))]
    worked = [r for r in receipts if r["rows_computed"]]
    newest: dict[str, Any] = (worked or receipts or [{}])[-1]
    return newest


def _not_ok(counts: dict[str, int]) -> str:
    """Rows by cause, those that are ok left out."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()) if name != "ok")
