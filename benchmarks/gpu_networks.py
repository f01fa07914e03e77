"""Every network on a GPU beside the processor: the same values? And how near to the GPU's arithmetic?

    python -m benchmarks.gpu_networks --dataset faces.toml [--device cuda] [--images 64] [--json networks.json]

Takes the networks whose weights are at hand (FIQA_MODELS) and an iresnet50 with random weights. What one gives on the
device, in every precision that is asked for, stands beside what it gives on the processor in float32.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.labels_speed import slices
from benchmarks.published_way import NETWORK, write_network
from benchmarks.speed_probe import matrix_rate
from data_manifests.storage.atomic import write_atomically
from data_manifests.tables.stages import Status
from data_manifests.weights.entry import Kind
from data_manifests.weights.files import WeightsError, find
from data_manifests.weights.registry import load_registry
from labelers.faces import decode_batch
from labelers.opening import open_labeler, read_models
from labelers.runtime.arithmetic import count_arithmetic
from labelers.runtime.device import Device
from labelers.runtime.entry_input import input_spec
from labelers.runtime.precision import Precision
from pipeline.config.job import resolve
from pipeline.execution.contract import quieten_process
from pipeline.stages.index import index_images

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from data_manifests.weights.entry import ModelEntry
    from labelers.faces import FaceBatch
    from labelers.labeler import Labeler, Measures

ALL = (NETWORK, "fr_feature", "w600k_r50", "face_mesh", "fr_pose", "fsanet", "factors_mini")
PRECISIONS = {Device.CPU: (Precision.FLOAT32,), Device.CUDA: (Precision.FLOAT32, Precision.FLOAT16)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="name or TOML file of the data set")
    parser.add_argument("--device", type=Device, choices=list(Device), default=Device.CUDA)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--networks", nargs="+", default=ALL, choices=ALL)
    parser.add_argument("--precisions", nargs="+", type=Precision, choices=list(Precision))
    parser.add_argument("--seconds", type=float, default=0.5, help="for which a network is repeated")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    quieten_process()
    with tempfile.TemporaryDirectory() as name:
        if NETWORK in given.networks and NETWORK not in load_registry().entries:
            write_network(Path(name))
        faces = read_faces(given.dataset, given.images, Path(name))
        precisions = given.precisions or PRECISIONS[given.device]
        products = {p: product_rate(given.device, p) for p in precisions}
        print(", ".join(f"products in {kind}: {rate / 1e12:,.3g} TFLOP/s" for kind, rate in products.items()))
        lines: list[dict[str, Any]] = []
        for entry in find_networks(given.networks):
            for line in measure_network(entry, faces, given, products):
                print(line, flush=True)
                lines.append(line)
                save({"product_flops": {str(k): v for k, v in products.items()}, "networks": lines}, given.json)


def save(figures: dict[str, Any], path: Path | None) -> None:
    """Write the figures as they stand: what takes too long later costs nothing but itself."""
    if path is not None:
        write_atomically(path, lambda file: file.write(json.dumps(figures, indent=1).encode()))


def read_faces(dataset: str, images: int, folder: Path) -> list[FaceBatch]:
    """The first images of a data set, in the slices in which a worker measures."""
    job = resolve(dataset, workspace=folder / "none", limit=images)
    table = index_images(job.manifest).table.slice(0, images)
    keys, identities, stored = table["key"].to_numpy(), table["identity"].to_numpy(), job.source.read(table)
    return [decode_batch(keys[s], identities[s], stored[s])[0] for s in slices(len(keys))]


def product_rate(device: Device, precision: Precision) -> float:
    """FLOP a second of matrix products in that precision, all of the device or one core."""
    kinds = {Precision.FLOAT16: torch.float16}
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision is Precision.TF32
    try:
        return matrix_rate(torch.device(device.value), kinds.get(precision, torch.float32))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def find_networks(names: Sequence[str]) -> Iterator[ModelEntry]:
    """Those of the networks whose weights are here."""
    registry = load_registry()
    for name in names:
        entry = registry.get(name, *Kind)
        try:
            find(entry)
        except WeightsError as error:
            print(f"{name} is left out: {error}")
        else:
            yield entry


def measure_network(
    entry: ModelEntry, faces: list[FaceBatch], given: argparse.Namespace, products: dict[Precision, float]
) -> Iterator[dict[str, Any]]:
    """A network in every precision: its agreement with the processor, its rate, and the rate that arithmetic allows."""
    expected = [open_labeler(entry, Device.CPU)(batch) for batch in faces]
    multiply_adds = sum(
        count_arithmetic(model, input=input_spec(entry)).multiply_adds for _, model in read_models(entry)
    )
    for precision, flops in products.items():
        line: dict[str, Any] = {"network": entry.name, "precision": precision.value}
        try:
            labeler = open_labeler(entry, given.device, precision)
            line |= compare(expected, [labeler(batch) for batch in faces])
            line["images_per_second"] = rate_of(labeler, faces, given.seconds)
        except Exception as error:  # what one network cannot do costs the others nothing
            yield line | {"error": f"{type(error).__name__}: {error}"}
            continue
        line["arithmetic_bound"] = flops / (2 * multiply_adds)
        yield line


def compare(expected: list[Measures], found: list[Measures]) -> dict[str, float]:
    """How far values lie apart: cosines of embeddings, differences of everything else, share of equal causes."""
    pairs = list(zip(expected, found, strict=True))
    status = [a == b for left, right in pairs for a, b in zip(left.status, right.status, strict=True)]
    figures: dict[str, float] = {"same_status": float(np.mean(status))}
    both = np.concatenate([[a == b == Status.OK for a, b in zip(x.status, y.status, strict=True)] for x, y in pairs])
    for name in expected[0].columns:
        left, right = (
            np.concatenate([m.columns[name] for m in side])[both].astype(np.float64)
            for side in zip(*pairs, strict=True)
        )
        if left.ndim > 1:
            cosines = (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
            figures |= {"least_cosine": float(cosines.min()), "median_cosine": float(np.median(cosines))}
        else:
            figures[f"largest_difference_{name}"] = float(np.abs(left - right).max())
    return figures


def rate_of(labeler: Labeler, faces: list[FaceBatch], seconds: float) -> float:
    """Images a second of a labeler that is open, on images that are decoded."""
    images, started = 0, time.perf_counter()
    while not images or time.perf_counter() - started < seconds:
        images += sum(len(labeler(batch).status) for batch in faces)
    return images / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
