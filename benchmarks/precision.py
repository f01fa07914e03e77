"""What another precision of the networks gains on one core, and what it costs: embeddings, anchors, classes, areas.

    python -m benchmarks.precision --dataset mixed.toml [--precisions float32,bfloat16,int8] [--images 2000]
        [--write docs/labels.md]

Every network answers for every image once in each precision; nothing is written into a workspace. Images a second are
measured in turns, in one process held to one core, and are told as multiples of float32's of the same run. int8 is
tried here and not offered by the factory: its ranges come from 128 faces of the embedded sample, and what is not int8
in it is bfloat16. The iresnet50 has random weights (benchmarks.iresnet): its rate is real, its cosine tells little.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from benchmarks.int8 import quantise
from benchmarks.published_way import NETWORK, write_network
from benchmarks.truth import replace_section
from data_manifests.weights.entry import MeshOutput
from data_manifests.weights.registry import load_registry
from labelers.anchors.similarities import certainty_ratio, leave_one_out_similarities, normalise
from labelers.faces import FaceBatch, decode_batch
from labelers.levels import binary_level, pose_level
from labelers.opening import open_labeler
from labelers.runtime.precision import Precision
from pipeline.config.job import resolve
from pipeline.execution.contract import quieten_process
from pipeline.stages.index import index_images
from training.evaluation.comparison import compare_identities
from training.evaluation.evaluate import Options, evaluate_methods

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from data_manifests.weights.entry import ModelEntry
    from labelers.labeler import Labeler

    Columns = Mapping[str, NDArray[np.floating]]

INT8 = "int8"
BASE = Precision.FLOAT32.value
RECOGNISER, FACTORS, POSE = "fr_feature", "factors_mini", "face_mesh"
FMRS = (1e-2, 1e-3)
CLASSES = ("occlusion", "expression", "lighting", "pose")
MARKS = ("<!-- precision: made by python -m benchmarks.precision -->", "<!-- end of precision -->")


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """N decoded images [N, 112, 112, 3] with their keys and people, in batches."""

    keys: NDArray[np.int32]
    identities: NDArray[np.int32]
    faces: FaceBatch

    def batches(self, size: int) -> list[FaceBatch]:
        """The images in batches."""
        whole = self.faces
        return [
            FaceBatch(keys=whole.keys[s], identities=whole.identities[s], images=whole.images[s])
            for s in (slice(start, start + size) for start in range(0, len(whole), size))
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="name or TOML file of the data set")
    parser.add_argument("--precisions", default="float32,bfloat16,int8", help="by commas; float32 is the first")
    parser.add_argument("--images", type=int, default=0, help="the first images only; 0 for all")
    parser.add_argument("--rounds", type=int, default=5, help="turns in which rates are measured")
    parser.add_argument("--write", type=Path, help="Markdown page whose marked section is replaced")
    given = parser.parse_args()
    precisions = given.precisions.split(",")
    if precisions[0] != BASE:
        parser.error(f"--precisions {given.precisions}: {BASE} has to be the first, for the others are held against it")
    quieten_process()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_network(folder)
        images = read_images(given.dataset, folder, given.images)
        labelers = open_all(precisions, folder)
        text = "\n\n".join([
            show_rates(measure_rates(labelers, images, given.rounds)),
            *show_costs({p: measure(labelers, p, images) for p in precisions}, images.identities),
        ])  # fmt: skip
    print(text)
    if given.write:
        replace_section(given.write, text, MARKS)


def read_images(dataset: str, folder: Path, limit: int) -> Images:
    """The images of a data set, decoded."""
    job = resolve(dataset, workspace=folder, limit=limit)
    table = index_images(job.manifest).table
    table = table.slice(0, limit or table.num_rows)
    keys, identities = table["key"].to_numpy(), table["identity"].to_numpy()
    faces, _ = decode_batch(keys, identities, job.source.read(table))
    assert len(faces) == len(keys), "an image could not be read"
    return Images(keys=keys, identities=identities, faces=faces)


def open_all(precisions: Sequence[str], folder: Path) -> dict[tuple[str, str], Labeler]:
    """The labeler of every network (name, precision)."""
    entries = [load_registry().get(name) for name in (NETWORK, RECOGNISER, FACTORS, POSE)]
    return {
        (entry.name, precision): open_one(entry, precision, folder)
        for entry in entries
        for precision in precisions
        if not (precision == INT8 and isinstance(entry.output, MeshOutput))  # not offered
    }


def open_one(entry: ModelEntry, precision: str, folder: Path) -> Labeler:
    """The labeler of a network."""
    if precision != INT8:
        return open_labeler(entry, "cpu", Precision(precision))
    sample = read_images("sample", folder, 0).faces.images
    return open_labeler(quantise(entry, sample, folder), "cpu", Precision.BFLOAT16)


def measure_rates(labelers: Mapping[tuple[str, str], Labeler], images: Images, rounds: int) -> dict[str, dict]:
    """Network -> precision -> images a second in every round."""
    rates: dict[str, dict[str, list[float]]] = {}
    for turn in range(rounds + 1):  # the first one warms up
        for (network, precision), labeler in labelers.items():
            count = 32 if network == NETWORK else 2048 if network == FACTORS else 128
            batches = images.batches(32 if network == NETWORK else 128)[: max(1, count // 128)]
            started = time.perf_counter()
            for batch in batches:
                labeler(batch)
            rate = sum(map(len, batches)) / (time.perf_counter() - started)
            if turn:
                rates.setdefault(network, {}).setdefault(precision, []).append(rate)
    return rates


def measure(labelers: Mapping[tuple[str, str], Labeler], precision: str, images: Images) -> dict[str, Columns]:
    """Network -> its columns over all images; the iresnet50 sees the first 64."""
    found = {}
    for (network, other), labeler in labelers.items():
        if other == precision:
            batches = images.batches(64 if network == NETWORK else 256)
            parts = [labeler(batch).columns for batch in (batches[:1] if network == NETWORK else batches)]
            found[network] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return found


def show_rates(rates: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Rates on one core, beside float32's."""
    precisions = list(next(iter(rates.values())))
    lines = [f"| images/s on one core | {' | '.join(precisions)} |", "|---" * (len(precisions) + 1) + "|"]
    for network, by in rates.items():
        cells = []
        for precision in precisions:
            if precision not in by:
                cells.append("")
                continue
            ratio = np.median(np.array(by[precision]) / np.array(by[BASE]))
            times = "" if precision == BASE else f", {ratio:.2f} times"
            cells.append(f"{np.median(by[precision]):,.1f}{times}")
        lines.append(f"| `{network}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def show_costs(found: Mapping[str, Mapping[str, Columns]], identities: NDArray[np.int32]) -> list[str]:
    """How far embeddings, anchors, classes and areas lie from float32's."""
    anchors = {p: anchor(by[RECOGNISER], identities) for p, by in found.items()}
    cosines = ["| cosine with float32's | median | 1 % | least |", "|---|---|---|---|"]
    ranks = ["| against float32 | Spearman of the certainty ratio | change of `quality`, median | largest | "
             + " | ".join(f"other {name}" for name in CLASSES) + " |", "|---" * (4 + len(CLASSES)) + "|"]  # fmt: skip
    areas = ["| recogniser in | FNMR | certainty ratio | norm | FNMR | certainty ratio | norm |", "|---" * 7 + "|"]
    base = found[BASE]
    for precision, by in found.items():
        if precision != BASE:
            for network in (RECOGNISER, NETWORK):
                cosine = row_cosines(base[network]["embedding"], by[network]["embedding"])
                cells = " | ".join(f"{v:.5f}" for v in (np.median(cosine), np.quantile(cosine, 0.01), cosine.min()))
                cosines.append(f"| `{network}`, {precision} | {cells} |")
            ranks.append(f"| {precision} | {compare_labels(base, by, anchors[BASE], anchors[precision])} |")
        areas.append(f"| {precision} | {show_areas(by[RECOGNISER], anchors[precision], identities)} |")
    head = "Area under the error-reject curve, pAUC / AUC; columns 2 to 4 at an FMR of 1e-2, 5 to 7 at 1e-3:"
    return ["\n".join(cosines), "\n".join(ranks), head, "\n".join(areas)]


def anchor(columns: Columns, identities: NDArray[np.int32]) -> NDArray[np.float32]:
    """The certainty ratio, as the anchors stage makes it; NaN where a person has one image."""
    ccs, nnccs = leave_one_out_similarities(columns["embedding"].astype(np.float32), identities)
    return certainty_ratio(ccs, nnccs).astype(np.float32)


def row_cosines(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cosine of every row with the same row."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def compare_labels(
    base: Mapping[str, Columns], by: Mapping[str, Columns], base_anchor: NDArray[np.float32], other: NDArray[np.float32]
) -> str:
    """Cells: rank correlation, changes of quality, shares of images of another class."""
    there = np.isfinite(base_anchor) & np.isfinite(other)
    rank = float(spearmanr(base_anchor[there], other[there]).statistic)
    quality = [normalise(a, float(a[there].min()), float(a[there].max()))[there] for a in (base_anchor, other)]
    change = np.abs(quality[0] - quality[1])
    before, after = classes(base), classes(by)
    shares = [f"{np.mean(before[name] != after[name]):.2%}" if name in after else "" for name in CLASSES]
    return " | ".join([f"{rank:.5f}", f"{np.median(change):.4f}", f"{change.max():.3f}", *shares])


def classes(by: Mapping[str, Columns]) -> dict[str, NDArray[np.int8]]:
    """Classes by the default thresholds."""
    names = {"occlusion": "p_obstructed", "expression": "p_exaggerated", "lighting": "p_extreme_lighting"}
    found = {factor: binary_level(by[FACTORS][column]) for factor, column in names.items()}
    return found | ({"pose": pose_level(by[POSE]["yaw_deg"])} if POSE in by else {})


def show_areas(columns: Columns, anchors: NDArray[np.float32], identities: NDArray[np.int32]) -> str:
    """Cells: FNMR and areas of both qualities at both FMRs, all pairs, by this precision's recogniser."""
    compared = compare_identities(columns["embedding"], np.isfinite(columns["norm"]), identities, FMRS)
    qualities = {"certainty_ratio": anchors, "norm": columns["norm"]}
    metrics, _, _ = evaluate_methods(compared, qualities, Options(fmrs=FMRS, replicates=1))
    rows = {(row["method"], row["fmr"]): row for row in metrics.to_pylist()}
    cells = []
    for fmr in FMRS:
        cells.append(f"{rows['norm', fmr]['fnmr']:.4f}")
        cells += [f"{rows[name, fmr]['pauc']:.3f} / {rows[name, fmr]['auc']:.3f}" for name in qualities]
    return " | ".join(cells)


if __name__ == "__main__":
    main()
