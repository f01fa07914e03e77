"""LabelAll with its networks on a GPU: images a second of every stage, beside the ideal, and what MS1MV2 would take.

    python -m benchmarks.gpu_speed [--images 50000] [--device cuda] [--pose face_mesh] [--workers 16]

Needs no data: the images are those of the embedded sample, again and again, as an MS1MV2 of that many images. The
recogniser is an iresnet50 with random weights and 85,742 class centres are compared, both as costly as real ones. The
ideal of a stage is the rate of its labeler alone on images that are decoded already, with its model open; that of a
stage on the processor is the rate of one core times the cores; that of the anchors is the rate of the products of all
embeddings with all centres and nothing else. `--device cpu` shows that the script itself works.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import make_ms1mv2
from benchmarks.labels_speed import measure_kernels, rate_of, read_receipts, time_labels
from benchmarks.nearest_speed import bare_products
from benchmarks.published_way import NETWORK, prepare
from data_manifests.weights import fetch
from labelers.device import Device
from labelers.heads import load_head
from pipeline.job import resolve
from pipeline.shards import MAX_PART_ROWS

STAGES = ("index", "blur", "pose", "factors", "embeddings", "centres", "anchors", "anchor_range", "labels")
ON_GPU = ("pose", "factors", "embeddings", "anchors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--device", choices=list(Device), type=Device, default=Device.CUDA)
    parser.add_argument("--pose", default="face_mesh", help="or fr_pose, fsanet; face_landmarker cannot use a GPU")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest, head = make_data(folder, given.images, given.pose)
        job = resolve(str(manifest), workspace=folder / "other")
        for entry in job.models.values():
            fetch(entry)
        rates = {rate.stage: rate.images_per_second for rate in measure_kernels(job, given.device)}
        rates["anchors"] = anchor_rate(head, given.device)
        settings = ("--execution-device", given.device.value)
        wall = time_labels(folder / "workspace", str(manifest), given.workers, *settings)
        receipts = read_receipts(folder / "workspace")
    lines = []
    for stage in STAGES:
        receipt = receipts[stage]
        cores = 1 if stage in ON_GPU and given.device is Device.CUDA else min(given.workers, os.cpu_count() or 1)
        ideal = rates[stage] * cores if stage in rates else None
        speed = receipt["images_per_second"]
        lines.append({"stage": stage, "images_per_second": speed, "ideal": ideal, "seconds": receipt["wall_seconds"]})
    whole = given.images / wall
    print(f"{machine(given.device)}, {given.images:,} images, {given.workers} workers, networks on {given.device}")
    print(f"{'stage':<16}{'images/s':>12}{'ideal':>12}{'share':>8}{'5.8 M':>10}")
    for line in lines:
        ideal = line["ideal"]
        beside = f"{ideal:>12,.0f}{line['images_per_second'] / ideal:>8.2f}" if ideal else " " * 20
        hours = make_ms1mv2.IMAGES / line["images_per_second"] / 3600 if line["images_per_second"] else 0.0
        print(f"{line['stage']:<16}{line['images_per_second']:>12,.0f}{beside}{hours:>8.2f} h")
    print(f"LabelAll        {whole:>12,.0f}{'':>20}{make_ms1mv2.IMAGES / whole / 3600:>8.2f} h")
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(given.device), "whole": whole, "stages": lines}, indent=1))


def make_data(folder: Path, images: int, pose: str) -> tuple[Path, Path]:
    """A data set of that many images with the costly networks; its manifest, and the head."""
    make_ms1mv2.main(["--output", str(folder / "speed"), "--images", str(images), "--name", "speed"])
    head = prepare(folder)
    manifest = next(path for path in folder.rglob("*.toml") if path.name != "models.toml")
    lines = [f'recognition_model = "{NETWORK}"', f'pose_model = "{pose}"', 'centres = "head"', f'head = "{head}"']
    manifest.write_text("\n".join([manifest.read_text().rstrip(), *lines, ""]))
    return manifest, head


def anchor_rate(head: Path, device: Device) -> float:
    """Rows a second of nothing but the products with all centres, which lie on the device; all cores or the GPU."""
    embeddings = np.random.default_rng(1).standard_normal((MAX_PART_ROWS, 512), np.float32)
    ways = bare_products(embeddings, load_head(head, dimension=512), device)
    return max(rate_of("anchors", MAX_PART_ROWS, work).images_per_second for work in ways)


def machine(device: Device) -> str:
    """The GPU's name, or the processor's."""
    if device is Device.CUDA:
        words = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{len(models)} x {models[0].partition(': ')[2]}"


if __name__ == "__main__":
    main()
