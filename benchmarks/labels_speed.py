"""LabelAll as a whole beside the rates of its kernels on one core, measured in the same run.

    python -m benchmarks.labels_speed [--dataset mixed.toml] [--workers 2]

The ideal is the sum over stages of images / rate, divided by the cores. Weights are fetched before the clock starts.
Beside the kernels that are networks stand the multiply-adds of an image (MMAC: millions), the rate that this comes to
(two FLOP each), and its share of a float32 matrix product on one core in ONNX Runtime: a cliff shows there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_manifests.weights.files import fetch
from labelers.anchors.centres import accumulate
from labelers.anchors.nearest import open_search
from labelers.anchors.similarities import measure_anchors
from labelers.faces import decode_batch
from labelers.opening import read_models
from labelers.runtime.arithmetic import core_rate, count_arithmetic
from labelers.runtime.device import Device
from labelers.runtime.entry_input import input_spec
from pipeline.config.job import Job, resolve, workspace_root
from pipeline.config.pixel_stages import PIXEL_STAGES
from pipeline.execution.contract import quieten_process
from pipeline.stages.index import index_images
from pipeline.stages.labeler_factories import for_stage
from pipeline.stages.measure import SLICE_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
KERNEL_IMAGES = 512
ROUNDS = 3
LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Images a second of one kernel on one core."""

    stage: str
    images_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="sample", help="name or TOML file of the data set")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    job = resolve(options.dataset, workspace=workspace_root())
    for entry in job.models.values():
        fetch(entry)
    quieten_process()
    rates = {rate.stage: rate.images_per_second for rate in measure_kernels(job)}
    costs, product = count_kernels(job), core_rate()
    with tempfile.TemporaryDirectory() as name:
        wall = time_labels(Path(name), options.dataset, options.workers)
        receipts = read_receipts(Path(name))
    print(f"float32 matrix product on one core: {2 * product / 1e9:,.0f} GFLOP/s")
    print_table(rates, costs, product, receipts, wall, min(options.workers, os.cpu_count() or 1))


def measure_kernels(job: Job, device: str = "cpu") -> list[Rate]:
    """The rate of each kernel on some hundred images, one thread or one GPU, model already loaded."""
    table = index_images(job.manifest).table.slice(0, KERNEL_IMAGES)
    keys, identities = table["key"].to_numpy(), table["identity"].to_numpy()
    stored = job.source.read(table)
    faces, _ = decode_batch(keys, identities, stored)
    rates = [rate_of("read and decode", len(faces), lambda: decode_batch(keys, identities, job.source.read(table)))]
    settings = job.settings.model_copy(update={"device": device})
    factories = {stage.name: for_stage(stage, settings, job.models) for stage in PIXEL_STAGES}
    embeddings = np.zeros((0, 0), np.float32)
    for stage, factory in factories.items():
        labeler = factory.open()
        pieces = [decode_batch(keys[s], identities[s], stored[s])[0] for s in slices(len(keys))]
        rates.append(rate_of(stage, len(faces), lambda labeler=labeler, pieces=pieces: [labeler(p) for p in pieces]))
        if stage == "embeddings":
            embeddings = np.concatenate([labeler(p).columns["embedding"] for p in pieces]).astype(np.float32)
    centres = accumulate([(embeddings, identities)])
    search = open_search(centres, Device(device))
    rates.append(rate_of("anchors", len(faces), lambda: measure_anchors(embeddings, identities, search)))
    return rates


def count_kernels(job: Job) -> dict[str, int]:
    """Multiply-adds of an image in every stage whose networks run in ONNX Runtime."""
    counts = {}
    for stage in PIXEL_STAGES:
        if stage.role and (models := read_models(entry := job.models[stage.role])):
            spec = input_spec(entry)
            counts[stage.name] = sum(count_arithmetic(model, input=spec).multiply_adds for _, model in models)
    return counts


def slices(count: int) -> list[slice]:
    """The slices in which a worker measures."""
    return [slice(start, start + SLICE_ROWS) for start in range(0, count, SLICE_ROWS)]


def rate_of(stage: str, images: int, work: Callable[[], Any]) -> Rate:
    """The median rate of a few rounds, after one that warms up."""
    work()
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return Rate(stage=stage, images_per_second=images / float(np.median(seconds)))


def time_labels(workspace: Path, dataset: str, workers: int, *settings: str) -> float:
    """Seconds of LabelAll from nothing, as a user runs it; every stage is printed when it is done."""
    command = [sys.executable, "-m", "luigi", "--module", "pipeline", "LabelAll"]
    command += ["--dataset", dataset, "--workers", str(workers), *settings]
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "FIQA_WORKSPACE": str(workspace)}, stdout=subprocess.DEVNULL
    )
    seen: set[str] = set()
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_SECONDS)
        for stage, receipt in read_receipts(workspace).items():
            if stage not in seen:
                seen.add(stage)
                print(f"{time.monotonic() - started:8.1f} s: {stage}, {receipt['wall_seconds']:.1f} s", flush=True)
    if process.returncode:
        sys.exit(f"LabelAll ended with {process.returncode}")
    return time.monotonic() - started


def read_receipts(workspace: Path) -> dict[str, dict[str, Any]]:
    """The receipt of each stage."""
    receipts = [json.loads(p.read_text()) for p in workspace.rglob("run-*.json")]
    return {receipt["stage"]: receipt for receipt in receipts}


def print_table(  # noqa: PLR0917
    rates: dict[str, float],
    costs: dict[str, int],
    product: float,
    receipts: dict[str, dict[str, Any]],
    wall: float,
    cores: int,
) -> None:
    """Kernels beside stages, and the whole beside its ideal."""
    images = receipts["index"]["rows_computed"]
    print(
        f"{'stage':<16}{'kernel images/s, one core':>28}{'MMAC':>8}{'GFLOP/s':>9}{'of product':>12}"
        f"{'stage images/s':>18}{'seconds':>10}"
    )
    for stage in dict.fromkeys([*rates, *receipts]):
        rate = f"{rates[stage]:,.0f}" if stage in rates else ""
        arithmetic = " " * 29
        if stage in costs:
            reached = rates[stage] * costs[stage]
            arithmetic = f"{costs[stage] / 1e6:>8,.0f}{2 * reached / 1e9:>9,.1f}{reached / product:>12.2f}"
        receipt = receipts.get(stage)
        speed = f"{receipt['images_per_second']:,.0f}" if receipt else ""
        seconds = f"{receipt['wall_seconds']:.1f}" if receipt else ""
        print(f"{stage:<16}{rate:>28}{arithmetic}{speed:>18}{seconds:>10}")
    reads = 4 * images / rates["read and decode"]
    ideal = (reads + sum(images / rate for stage, rate in rates.items() if stage != "read and decode")) / cores
    print(f"whole: {wall:.1f} s for {images:,} images; ideal on {cores} cores {ideal:.1f} s; ratio {wall / ideal:.2f}")


if __name__ == "__main__":
    pa.set_cpu_count(1)
    main()
