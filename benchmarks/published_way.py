"""LabelAll beside the published script's way of working: the same networks, images, cores, in one run.

    python -m benchmarks.published_way --dataset mixed.toml [--images 2000] [--one-by-one 60]
        [--precision bfloat16] [--pose face_mesh]

The published script takes one image at a time through everything: decode, Sobel, head pose, the factors' network, an
iresnet50, and the training head of 85,742 classes as a full forward pass, its columns normalised each time. What it
does beside that is left out: the face detector it runs on crops that are aligned already (23 ms), and its larger
factors' network (30 ms); here both sides run the same ones. All libraries may use all cores on either side.

The recogniser is an iresnet50 with random weights (benchmarks.iresnet), the head random columns: both cost what real
ones do. LabelAll is timed as a user runs it, from nothing, start of Python included, and the other way before and after
it, so that a machine that grows faster or slower favours neither.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from benchmarks.iresnet import write_iresnet50
from benchmarks.labels_speed import time_labels
from data_manifests.storage.atomic import sha256_of
from data_manifests.weights.entry import Kind
from data_manifests.weights.registry import load_registry
from labelers.blur.scores import sobel
from labelers.faces import FaceBatch, decode
from labelers.opening import open_labeler
from pipeline.config.job import resolve
from pipeline.stages.index import index_images

if TYPE_CHECKING:
    from pipeline.config.job import Job

AIM = 6.5
CLASSES = 85_742
NETWORK = "iresnet50_random"
ENTRY = """[{name}]
kind = "recognition"
version = 1
licence = "none: random weights"
batch = 16
files = [{{ name = "{name}.onnx", bytes = {bytes}, sha256 = "{sha256}" }}]
input = {{ width = 112, height = 112, colour = "rgb", mean = [127.5, 127.5, 127.5], std = [127.5, 127.5, 127.5] }}
output = {{ kind = "embedding", dimension = 512 }}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="name or TOML file of the data set")
    parser.add_argument("--images", type=int, default=2000, help="how many LabelAll labels")
    parser.add_argument("--one-by-one", type=int, default=60, help="how many the other way takes")
    parser.add_argument("--precision", default="float32", help="of LabelAll's networks; the other way keeps float32")
    parser.add_argument("--pose", default="face_landmarker", help="pose model of LabelAll; likewise")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_network(folder)
        job = resolve(given.dataset, workspace=folder / "none", limit=given.one_by_one)
        head = write_head(folder, job, NETWORK)
        settings = {"--models-recognition": NETWORK, "--anchors-centres": "head", "--anchors-head": str(head)}
        settings |= {"--models-precision": given.precision, "--models-pose": given.pose}
        words = [word for pair in settings.items() for word in pair]
        words += ["--limit", str(given.images)]
        other = [take_one_by_one(job, folder / f"{NETWORK}.onnx", np.load(head))]
        seconds = time_labels(folder / "workspace", given.dataset, given.workers, *words)
        other.append(take_one_by_one(job, folder / f"{NETWORK}.onnx", np.load(head)))
    ours, theirs = given.images / seconds, 2 / sum(1 / rate for rate, _ in other)
    print(
        f"LabelAll: {seconds:.1f} s for {given.images:,} images, {ours:.1f} images/s, {given.workers} workers,", end=" "
    )
    print(f"{given.precision}, {given.pose}; load of the machine {os.getloadavg()[1]:.1f}")
    print(
        f"one image at a time: {theirs:.2f} images/s ({' before, '.join(f'{rate:.2f}' for rate, _ in other)} after)",
        end=" ",
    )
    print(f"of {given.one_by_one}; milliseconds an image after:")
    print("  " + ", ".join(f"{name} {1e3 * value:.1f}" for name, value in other[1][1].items()))
    print(f"ratio {ours / theirs:.1f} (aim {AIM}): {'kept' if ours / theirs >= AIM else 'MISSED'}")


def write_network(folder: Path) -> None:
    """Write the network and its registry entry into a folder, and add it to those that are searched."""
    path = folder / f"{NETWORK}.onnx"
    write_iresnet50(path)
    entry = ENTRY.format(name=NETWORK, bytes=path.stat().st_size, sha256=sha256_of(path))
    (folder / "models.toml").write_text(entry)
    os.environ["FIQA_MODELS"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("FIQA_MODELS", "")]))


def write_head(folder: Path, job: Job, recogniser: str, classes: int = CLASSES) -> Path:
    """Write random class centres, but for that of the first person: a head that fits nobody is refused."""
    first = index_images(job.manifest).table.slice(0, 1)
    identities, (encoded,) = first["identity"].to_numpy(), job.source.read(first)
    face = FaceBatch(keys=first["key"].to_numpy(), identities=identities, images=decode(encoded)[None])
    network = open_labeler(load_registry().get(recogniser, Kind.RECOGNITION), "cpu")
    centres = np.random.default_rng(1).standard_normal((512, classes), np.float32)
    centres[:, identities[0]] = network(face).columns["embedding"][0]
    head = folder / "head.npy"
    np.save(head, centres)
    return head


def take_one_by_one(job: Job, network: Path, head: np.ndarray) -> tuple[float, dict[str, float]]:
    """Images a second of the other way, and seconds an image by part; models are open before the clock starts."""
    import onnxruntime  # noqa: PLC0415 - after the environment is set

    table = index_images(job.manifest).table.slice(0, job.limit + 1)
    identities = table["identity"].to_numpy()
    stored = job.source.read(table)
    pose = open_labeler(job.models["pose"], "cpu")
    factors = open_labeler(job.models["factors"], "cpu")
    recogniser = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    name = recogniser.get_inputs()[0].name
    kernel = torch.from_numpy(head)
    spent = dict.fromkeys(("decode", "sobel", "pose", "factors", "recogniser", "head"), 0.0)
    for place, encoded in enumerate(stored):
        if place == 1:  # the first one warms up
            spent = dict.fromkeys(spent, 0.0)
        clock = [time.perf_counter()]
        pixels = decode(encoded)
        face = FaceBatch(
            keys=np.array([place], np.int32), identities=identities[place : place + 1], images=pixels[None]
        )
        clock.append(time.perf_counter())
        sobel(pixels)
        clock.append(time.perf_counter())
        pose(face)
        clock.append(time.perf_counter())
        factors(face)
        clock.append(time.perf_counter())
        blob = cv2.dnn.blobFromImage(pixels, 1 / 127.5, (112, 112), (127.5, 127.5, 127.5))
        embedding = torch.from_numpy(recogniser.run(None, {name: blob})[0])
        clock.append(time.perf_counter())
        with torch.no_grad():
            columns = torch.nn.functional.normalize(kernel, dim=0)
            cosines = (torch.nn.functional.normalize(embedding) @ columns).clamp(-1, 1)
            own = cosines[0, int(identities[place])].item()
            cosines[0, int(identities[place])] = -1
            _ = own / (cosines.max().item() + 1 + 1e-9)
        clock.append(time.perf_counter())
        for part, seconds in zip(spent, np.diff(clock), strict=True):
            spent[part] += float(seconds)
    images = len(stored) - 1
    return images / sum(spent.values()), {part: seconds / images for part, seconds in spent.items()}


if __name__ == "__main__":
    main()
