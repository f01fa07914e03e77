"""`status`: what the workspace holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from data_manifests.durations import describe_time_taken
from data_manifests.storage.json_files import read_json
from data_manifests.tables.scores import MODEL_TABLES, STAGE_TABLES
from data_manifests.tables.stages import TABLES
from pipeline.commands.common import console, folder_bytes, human_age, human_bytes
from pipeline.config.job import workspace_root
from pipeline.label_report.output import STAGE as REPORT
from pipeline.storage.footers import count_rows, read_footer, stamp_of
from pipeline.storage.integrity import CHECKED
from pipeline.storage.receipts import read_runs
from pipeline.storage.store import CURRENT, EVALUATION, PAGE, RECEIPTS, Store

_ORDER = (*TABLES, REPORT, *MODEL_TABLES)
"""The stages as they are made; others follow by name."""

_MAKERS = ("model", "network", "tower", "name")
"""What the network behind an output is called in the output's description."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status)


def status() -> None:
    """Show what is there: rows, networks, causes of nulls, time, age, size.

    Example: python -m pipeline status

    `checked` counts the shards whose content a run with --recheck compared with what was written, and says when.
    The workspace is the folder `workspace` here, or the one that FIQA_WORKSPACE names. A stage's row speaks of the
    output that was asked for last, and +1 of an older one beside it; its time is that of all runs that made it, its
    size that of older outputs too.
    """
    root = workspace_root()
    folders = sorted(p.parent for p in root.glob(f"*/{RECEIPTS}") if p.is_dir())
    if not folders:
        console.print(f"{root} holds no labels yet; `make labels` makes those of the sample")
    for folder in folders:
        console.print(stage_table(folder))
        if (labels := folder / "labels" / CURRENT).exists():
            _say(f'open the labels: polars.scan_parquet("{labels}")')
        if (page := folder / REPORT / CURRENT / PAGE).exists():
            _say(f"look at the labels: {page}")
    if (root / RECEIPTS).is_dir():
        console.print(stage_table(root))
        if (page := root / EVALUATION / CURRENT / PAGE).exists():
            _say(f"look at the evaluation: {page}")


def _say(line: str) -> None:
    """Print a line with a path, which stays whole."""
    console.print(line, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The output of a stage that was asked for last.

    Attributes:
        name: its fingerprint.
        maker: the network behind it, if there is one.
        rows: of its tables; None where it has none.
        integrity: of its shards, in words: how many are damaged, whose content was compared, and when.
        not_ok: rows by cause, those that are ok left out.
        seconds: of all runs that made it.
        images: computed in these runs.
        finished: when the last of them ended; None where that is not known.
    """

    name: str
    maker: str
    rows: int | None
    integrity: str
    not_ok: dict[str, int]
    seconds: float
    images: int
    finished: datetime | None


def stage_table(folder: Path) -> Table:
    """The stages of one data set, or the evaluations of a workspace."""
    table = Table(title=str(folder), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("stage", "current", "network", "rows", "not ok", "time", "images/s", "age", "size", "checked"):
        table.add_column(
            name,
            no_wrap=name not in {"network", "not ok", "checked"},
            overflow="fold",
            justify="right" if name in {"rows", "time", "images/s", "age", "size"} else "left",
        )
    for stage in sorted((p.name for p in (folder / RECEIPTS).iterdir() if p.is_dir()), key=_place):
        made = [p for p in (folder / stage).glob("*") if p.is_dir() and not p.is_symlink()]
        older = f" +{len(made) - 1}" if len(made) > 1 else ""
        size = human_bytes(sum(map(folder_bytes, made)))
        output = read_output(Store(root=folder), stage)
        if output is None:
            is_made = any(next(folder.glob("*.parquet"), None) for folder in made)
            text = "made, but the run did not end" if is_made else "not finished"
            table.add_row(stage, f"{text}{older}", *[""] * 6, size, "")
            continue
        table.add_row(
            stage,
            output.name + older,
            output.maker,
            "" if output.rows is None else f"{output.rows:,}",
            ", ".join(f"{name} {count:,}" for name, count in sorted(output.not_ok.items())),
            describe_time_taken(output.seconds) if output.seconds else "",
            f"{output.images / output.seconds:,.0f}" if _is_by_image(stage) and output.seconds else "",
            human_age(datetime.now(UTC) - output.finished) if output.finished else "",
            size,
            output.integrity,
        )
    return table


def describe_integrity(store: Store, stage: str, name: str, files: list[Path]) -> str:
    """How many shards of an output are damaged by their footers, whose content was compared by `--recheck`, and when.

    Args:
        store: of the data set.
        stage: of the output.
        name: its fingerprint.
        files: its shards.
    """
    damaged = sum(bool(read_footer(file, stage, name, stamp_of(file)).why) for file in files)
    told = [f"{damaged} of {len(files)} damaged: run its task again"] if damaged else []
    try:
        checked = read_json(store.root / RECEIPTS / stage / name / CHECKED)
        age = human_age(datetime.now(UTC) - datetime.fromisoformat(checked["when"]))
        told.append(f"{int(checked['shards'])} of {len(files)}, {age} ago")
    except (OSError, ValueError, KeyError, TypeError):
        told.append("never")
    return "; ".join(told)


def _place(stage: str) -> tuple[int, str]:
    """Where a stage stands among the others."""
    return (_ORDER.index(stage) if stage in _ORDER else len(_ORDER)), stage


def _is_by_image(stage: str) -> bool:
    """Whether a stage has a row for every image."""
    return stage in STAGE_TABLES and STAGE_TABLES[stage].per_image


def read_output(store: Store, stage: str) -> Output | None:
    """The output that `current` names; None where it names none."""
    name = store.current(stage)
    if name is None:
        return None
    runs = read_runs(store.root / RECEIPTS / stage / name)
    # A run that found everything made took part in nothing.
    worked = [run for run in runs if run.get("rows_computed")] or runs
    newest: dict[str, Any] = worked[-1] if worked else {}
    made_from = (store.recall(stage, name) or {}).get("parameters", {})
    precision = [made_from["precision"]] if "precision" in made_from else []
    files = sorted((store.root / stage / name).glob("*.parquet"))
    return Output(
        name=name,
        maker=" ".join([next((str(made_from[key]) for key in _MAKERS if key in made_from), ""), *precision]).strip(),
        rows=sum(count_rows(file) or 0 for file in files) if files and stage != EVALUATION else None,
        integrity=describe_integrity(store, stage, name, files) if stage in STAGE_TABLES else "",
        not_ok={cause: count for cause, count in newest.get("status", {}).items() if cause != "ok"},
        seconds=sum(run["wall_seconds"] for run in worked),
        images=sum(run.get("rows_computed", 0) for run in worked),
        finished=datetime.fromisoformat(newest["finished"]) if newest else None,
    )
