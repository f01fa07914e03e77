"""What a run did: rows, causes of nulls, seconds by step, speed, versions and machine."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
from collections import Counter
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from data_manifests.storage.environment import peak_bytes, version_of
from data_manifests.storage.json_files import DamagedFileError, read_json, write_json
from data_manifests.tables.scores import STAGE_TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.storage.fingerprint import StageSpec
    from pipeline.storage.store import Store

logger = logging.getLogger(__name__)

NOTE = "note_"
"""Begins the name of a figure that counts what a labeler noted."""

PACKAGES = (
    "fiqa-factory", "luigi", "mediapipe", "numba", "numpy", "onnxruntime-gpu", "opencv-python", "openvino",
    "polars", "pyarrow", "simplejpeg",
)  # fmt: skip
"""Packages whose version can change a number."""


def write_receipt(  # noqa: PLR0913 - what was done, how long it took, and where
    store: Store,
    spec: StageSpec,
    figures: Mapping[str, float],
    wall_seconds: float,
    processes: int,
    *,
    gpus: int = 0,
    cluster: str = "",
    peak: int = 0,
    start: tuple[float, int] = (0.0, 0),
) -> None:
    """Keep the figures of one run of a stage beside its description.

    Args:
        store: where tables lie.
        spec: the stage.
        figures: `rows`, and what was measured beside.
        wall_seconds: of the run.
        processes: that computed.
        gpus: that they shared; 0 where the processor computed.
        cluster: address of the Dask cluster that computed instead; empty for this machine.
        peak: the most bytes that one of the processes held; at least what this one has held.
        start: seconds until the first rows were done, while processes started, and how many rows those were.
    """
    rows = int(figures.get("rows", 0))
    receipt: dict[str, Any] = {
        "stage": spec.name,
        "fingerprint": spec.fingerprint,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows_computed": rows,
        "wall_seconds": round(wall_seconds, 3),
        "start_seconds": round(start[0], 3),
        "start_rows": start[1],
        "images_per_second": round(rows / wall_seconds, 1) if wall_seconds else None,
        "processes": processes,
        "gpus": gpus,
        "cluster": cluster,
        "peak_process_bytes": max(peak, peak_bytes()),
        "status": count_status(store, spec),
        "figures": {name: round(value, 3) for name, value in sorted(figures.items()) if name != "rows"},
        "versions": versions(),
        "machine": machine(),
        "host": platform.node(),
        "commit": commit(),
    }
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    write_json(store.receipts(spec) / f"run-{stamp}.json", receipt)


def count_status(store: Store, spec: StageSpec) -> dict[str, int]:
    """How many rows have each status, over the shards that are there."""
    counts: Counter[str] = Counter()
    table = STAGE_TABLES.get(spec.name)
    if table is None or "status" not in table.names:
        return {}
    for shard in sorted(store.present_shards(spec)):
        status = store.read(spec, shard, ["status"])["status"]
        for entry in pc.value_counts(status.combine_chunks().cast("string")):
            counts[entry["values"].as_py()] += entry["counts"].as_py()
    return dict(counts)


def labels_of_training(run: Path) -> str:
    """The fingerprint of the labels that a training learned from; empty where its folder does not tell."""
    try:
        return str(read_json(run / "config.json")["data"]["labels_fingerprint"])
    except (OSError, DamagedFileError, KeyError, TypeError):
        return ""


def read_receipts(store: Store, spec: StageSpec) -> list[dict[str, Any]]:
    """The receipts of all runs that took part in a stage, oldest first."""
    return read_runs(store.receipts(spec))


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The receipts in a folder, oldest first; those that are damaged are left out, with a warning."""
    found = []
    for path in sorted(folder.glob("run-*.json")):
        try:
            receipt = read_json(path)
            receipt |= {
                "rows_computed": int(receipt.get("rows_computed", 0)),
                "start_seconds": float(receipt.get("start_seconds", 0)),
                "start_rows": int(receipt.get("start_rows", 0)),
                "status": dict(receipt.get("status", {})),
            }
            found.append(
                {**receipt, "wall_seconds": float(receipt["wall_seconds"]), "figures": dict(receipt["figures"])}
            )
            datetime.fromisoformat(receipt["finished"])
        except (OSError, DamagedFileError, KeyError, TypeError, ValueError) as error:
            why = error if isinstance(error, DamagedFileError) else f"{path} is damaged ({error!r}): remove it"
            logger.warning("%s; the figures of that run are left out", why)
    return found


def sum_notes(store: Store, spec: StageSpec) -> dict[str, int]:
    """What the labeler noted, over all runs that took part in a stage."""
    notes: Counter[str] = Counter()
    for receipt in read_receipts(store, spec):
        for name, count in receipt["figures"].items():
            if name.startswith(NOTE):
                notes[name.removeprefix(NOTE)] += int(count)
    return dict(notes)


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of the packages that make numbers, and of Python."""
    return {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}}


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit of this code, with a + where files differ from it; empty where it is no git checkout."""
    root = Path(__file__).resolve().parents[2]
    words = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    if not (root / ".git").exists():
        return ""
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


@lru_cache(maxsize=1)
def machine() -> dict[str, str | int]:
    """The processor, by which bytes are promised equal, and its cores."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {"processor": processor, "architecture": platform.machine(), "cores": os.cpu_count() or 1}
