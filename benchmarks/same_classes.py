"""Whether labels made on a GPU are of the same class as those made on the processor.

    python -m benchmarks.same_classes --dataset faces.toml [--device cuda] [--precision float16] [--json classes.json]

LabelAll runs twice, once on each; every factor's share of images of the same class is printed, and how far the quality
lies apart.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import polars as pl

from benchmarks.labels_speed import time_labels
from data_manifests.tables.stages import Factor
from labelers.runtime.device import Device
from labelers.runtime.precision import Precision

AIM = 0.995


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="name or TOML file of the data set")
    parser.add_argument("--device", type=Device, choices=list(Device), default=Device.CUDA)
    parser.add_argument("--precision", type=Precision, choices=list(Precision), default=Precision.FLOAT32)
    parser.add_argument("--pose", default="face_mesh")
    parser.add_argument("--limit", type=int, default=0, help="the first images only")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    words = ["--models-pose", given.pose, "--limit", str(given.limit), "--report-page", "false"]
    tables = []
    with tempfile.TemporaryDirectory() as name:
        for device, precision in dict.fromkeys(((Device.CPU, Precision.FLOAT32), (given.device, given.precision))):
            workspace = Path(name, device.value)
            settings = ["--execution-device", device.value, "--models-precision", precision.value]
            time_labels(workspace, given.dataset, given.workers, *words, *settings)
            (current,) = workspace.glob("*/labels/current")
            tables.append(pl.read_parquet(current, glob=False))
    left, right = tables[0], tables[-1]
    same = {factor.value: float(left[factor.value].eq_missing(right[factor.value]).mean()) for factor in Factor}
    difference = (left["quality"] - right["quality"]).abs().max()
    for name, share in same.items():
        print(f"{name:<12}{share:8.2%}  {'kept' if share >= AIM else 'MISSED'} (aim {AIM:.1%})")
    print(f"quality differs by {difference} at most; {len(left):,} images, {given.precision} on {given.device}")
    if given.json:
        figures = {"images": len(left), "precision": given.precision.value, "same_class": same, "aim": AIM}
        given.json.write_text(json.dumps(figures | {"largest_difference_quality": difference}, indent=1))


if __name__ == "__main__":
    main()
