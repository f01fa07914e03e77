"""LabelAll with its networks on a GPU: the rate of every stage, beside its kernel alone, and what MS1MV2 would take.

    python -m benchmarks.gpu_speed [--dataset faces.toml] [--images 50000] [--device cuda] [--precision float16]

Needs no data: without `--dataset` the images are those of the embedded sample, again and again, as an MS1MV2 of that
many images. The recogniser is an iresnet50 with random weights and 85,742 class centres are compared, both as costly as
real ones.

LabelAll runs twice, on a tenth of the images and on all. What an image more costs is the slope between the two, for
every stage: so the start of processes and models counts once, and in the projection too. Beside it stands the rate of
the stage's labeler alone, in one process, on images that are decoded already; on a processor times the cores; and for
the anchors that of the products of all embeddings with all centres and nothing else. A stage may be faster than that on
a GPU, which several processes share. `--device cpu` shows that the script itself works.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import make_ms1mv2
from benchmarks.labels_speed import measure_kernels, rate_of, read_receipts, time_labels
from benchmarks.nearest_speed import bare_products
from benchmarks.published_way import CLASSES, NETWORK, write_head, write_network
from data_manifests.weights.entry import Kind
from data_manifests.weights.files import fetch
from data_manifests.weights.registry import load_registry
from labelers.anchors.head import load_head
from labelers.runtime.device import Device
from labelers.runtime.precision import Precision
from pipeline.config.job import resolve
from pipeline.storage.shards import MAX_PART_ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.config.job import Job

STAGES = ("index", "blur", "pose", "factors", "embeddings", "centres", "anchors", "anchor_range", "labels")
ON_GPU = ("pose", "factors", "embeddings", "anchors")
BESIDE = ("blur",)
"""Stages that a run on a GPU computes at the same time, on the processor."""
FIRST = 10
"""The share of the images in the first run is one in so many."""
AIM_MINUTES = 15

Receipts = dict[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", help="TOML file of a data set in MS1MV2's layout; default: the sample, repeated")
    parser.add_argument("--images", type=int, default=50_000, help="to which the sample is repeated")
    parser.add_argument("--device", choices=list(Device), type=Device, default=Device.CUDA)
    parser.add_argument("--precision", choices=list(Precision), type=Precision, default=Precision.FLOAT32)
    parser.add_argument("--recogniser", default=NETWORK, help="of models.toml; default: iresnet50 with random weights")
    parser.add_argument("--pose", default="face_mesh", help="or fr_pose, fsanet; face_landmarker cannot use a GPU")
    parser.add_argument("--classes", type=int, default=CLASSES, help="class centres")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.recogniser == NETWORK and NETWORK not in load_registry().entries:
            write_network(folder)
        dataset = given.dataset or make_data(folder / "made", given.images)
        job = find_job(dataset, folder, given)
        head = write_head(folder, job, given.recogniser, given.classes)
        rates = {rate.stage: rate.images_per_second for rate in measure_kernels(job, given.device)}
        rates["anchors"] = anchor_rate(head, given.device)
        print("the kernels alone:", {stage: round(rate) for stage, rate in rates.items()}, flush=True)
        settings = words_for(given, head)
        images = job.manifest.images or 0
        runs = []
        for count in (images // FIRST, images):
            workspace = folder / f"workspace-{count}"
            limit = ["--limit", str(count)] if count < images else []
            wall = time_labels(workspace, dataset, given.workers, *settings, *limit)
            runs.append((count, wall, read_receipts(workspace)))
            print(f"LabelAll of {count:,} images: {wall:.1f} s")
    figures = summarise(runs, rates, given)
    print_figures(figures)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


def make_data(folder: Path, images: int) -> str:
    """A data set of that many images; its manifest."""
    make_ms1mv2.main(["--output", str(folder), "--images", str(images), "--name", "speed"])
    return str(folder / "speed.toml")


def find_job(dataset: str, folder: Path, given: argparse.Namespace) -> Job:
    """The data set with the costly networks, their weights at hand."""
    job = resolve(dataset, workspace=folder / "other")
    registry = load_registry()
    names = {"recognition": given.recogniser, "pose": given.pose, "factors": "factors_mini"}
    models = {role: registry.get(name, *Kind) for role, name in names.items()}
    for entry in models.values():
        fetch(entry)
    settings = job.settings.model_copy(update={"device": given.device, "precision": given.precision})
    return replace(job, models=models, settings=settings)


def words_for(given: argparse.Namespace, head: Path) -> list[str]:
    """The settings of LabelAll on the command line."""
    settings = {
        "--models-recognition": given.recogniser,
        "--models-pose": given.pose,
        "--models-factors": "factors_mini",
        "--models-precision": given.precision.value,
        "--anchors-centres": "head",
        "--anchors-head": str(head),
        "--execution-device": given.device.value,
        "--report-page": "false",
    }
    return [word for pair in settings.items() for word in pair]


def anchor_rate(head: Path, device: Device) -> float:
    """Rows a second of nothing but the products with all centres, which lie on the device; all cores or the GPU."""
    embeddings = np.random.default_rng(1).standard_normal((MAX_PART_ROWS, 512), np.float32)
    ways = bare_products(embeddings, load_head(head, dimension=512), device)
    return max(rate_of("anchors", MAX_PART_ROWS, work).images_per_second for work in ways)


def summarise(
    runs: Sequence[tuple[int, float, Receipts]], rates: Mapping[str, float], given: argparse.Namespace
) -> dict[str, Any]:
    """Every stage with what an image more costs, and the whole of MS1MV2."""
    (few, _, first), (images, wall, last) = runs
    cores = min(given.workers, os.cpu_count() or 1)
    on_gpu = given.device is Device.CUDA
    stages = []
    for stage in STAGES:
        seconds, before = last[stage]["wall_seconds"], first[stage]["wall_seconds"]
        slope = max(0.0, seconds - before) / (images - few)
        kernel = rates.get(stage)
        scale = 1 if on_gpu and stage in ON_GPU else cores
        stages.append(
            {
                "stage": stage,
                "seconds": seconds,
                "images_per_second": 1 / slope if slope else None,
                "ideal": kernel * (1 if stage == "anchors" else scale) if kernel else None,
                "projected_seconds": seconds + slope * (make_ms1mv2.IMAGES - images),
            }
        )
    started = wall - sum(stage["seconds"] for stage in stages if not (on_gpu and stage["stage"] in BESIDE))
    chain = sum(stage["projected_seconds"] for stage in stages if not (on_gpu and stage["stage"] in BESIDE))
    return {
        "images": images,
        "first_images": few,
        "wall_seconds": wall,
        "workers": given.workers,
        "precision": given.precision.value,
        "recogniser": given.recogniser,
        "pose": given.pose,
        "classes": given.classes,
        "stages": stages,
        "projected_minutes": (max(0.0, started) + chain) / 60,
        "aim_minutes": AIM_MINUTES,
    }


def print_figures(figures: dict[str, Any]) -> None:
    """The stages as a table, and the whole."""
    print(f"{'stage':<16}{'seconds':>10}{'images/s':>12}{'kernel':>12}{'MS1MV2, min':>14}")
    for stage in figures["stages"]:
        numbers = [f"{stage[name]:>12,.0f}" if stage[name] else " " * 12 for name in ("images_per_second", "ideal")]
        print(
            f"{stage['stage']:<16}{stage['seconds']:>10.1f}{''.join(numbers)}{stage['projected_seconds'] / 60:>14.1f}"
        )
    print(
        f"LabelAll of {figures['images']:,} images: {figures['wall_seconds']:.1f} s; MS1MV2 by this: "
        f"{figures['projected_minutes']:.1f} minutes (aim {AIM_MINUTES})"
    )


if __name__ == "__main__":
    main()
