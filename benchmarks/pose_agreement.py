"""Pose models against MediaPipe's FaceLandmarker: images a second on one core, and how far their angles differ.

    python -m benchmarks.pose_agreement --datasets natural.toml mixed.toml [--images 1000] [--write docs/labels.md]

All models take turns on the same images, slice by slice, in one process held to one core. Models whose weights are not
there are left out. Nothing is written into a workspace.
"""

from __future__ import annotations

import argparse
import os
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.truth import replace_section
from data_manifests.manifest import load_manifest
from data_manifests.tables.stages import Status
from data_manifests.weights.entry import POSE_KINDS
from data_manifests.weights.files import WeightsMissingError
from data_manifests.weights.registry import load_registry
from labelers.faces import FaceBatch, decode_batch
from labelers.levels import pose_level
from labelers.opening import open_labeler
from labelers.pose.labeler import Angle
from pipeline.config.job import resolve, workspace_root
from pipeline.execution.contract import quieten_process
from pipeline.stages.index import index_images
from pipeline.stages.measure import SLICE_ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from labelers.labeler import Labeler

REFERENCE = "face_landmarker"
MARKS = ("<!-- pose: made by python -m benchmarks.pose_agreement -->", "<!-- end of pose -->")
HEADER = (
    "| model | images/s | times | yaw, median and 95 % | pitch | roll | same class | no face |",
    "|---|---|---|---|---|---|---|---|",
)
NOTE = (
    f"Differences from `{REFERENCE}` are in degrees, at the median and at 95 %, over images in which both see a face;"
    " the class is that of the yaw (10 and 25 degrees). `no face`: images in which neither sees one, the model alone"
    f" sees none, `{REFERENCE}` alone sees none. Images a second on one core, in turns, in one run."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a model says of N images.

    Attributes:
        degrees: float32 [N, 3], yaw, pitch and roll; NaN where it sees no face.
        seconds: that it took.
    """

    degrees: NDArray[np.float32]
    seconds: float

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Images [N] in which it sees no face."""
        return np.isnan(self.degrees[:, 0])

    @property
    def rate(self) -> float:
        """Images a second."""
        return len(self.degrees) / self.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["sample"], help="names or TOML files of data sets")
    parser.add_argument("--images", type=int, default=1000, help="of each data set, spread over it")
    parser.add_argument("--models", nargs="+", help="pose models; default: all whose weights are there")
    parser.add_argument("--write", type=Path, help="Markdown page whose marked section is replaced")
    options = parser.parse_args()
    quieten_process()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    labelers = open_models(options.models or load_registry().names(*POSE_KINDS))
    sections = []
    for dataset in options.datasets:
        slices = read_faces(dataset, options.images)
        answers = ask(labelers, slices)
        sections.append(describe(load_manifest(dataset, workspace=workspace_root()).name, answers))
        print(f"\n{sections[-1]}", flush=True)
    print(f"\n{NOTE}")
    if options.write:
        replace_section(options.write, "\n\n".join([*sections, textwrap.fill(NOTE, 120)]), MARKS)


def open_models(names: tuple[str, ...] | list[str]) -> dict[str, Labeler]:
    """The labelers of these models, the reference first."""
    labelers = {}
    for name in dict.fromkeys([REFERENCE, *names]):
        try:
            labelers[name] = open_labeler(load_registry().get(name, *POSE_KINDS), "cpu")
        except WeightsMissingError as error:
            if name == REFERENCE:
                raise
            print(f"left out: {error}")
    return labelers


def read_faces(dataset: str, images: int) -> list[FaceBatch]:
    """Decoded images that lie evenly over a data set, in the slices in which a worker measures; those that decode."""
    job = resolve(dataset, workspace=workspace_root(), stage="pose")
    table = index_images(job.manifest).table
    table = table.take(np.unique(np.linspace(0, len(table) - 1, images).astype(int)))
    keys, identities = table["key"].to_numpy(), table["identity"].to_numpy()
    faces, status = decode_batch(keys, identities, job.source.read(table))
    rows = np.flatnonzero([state is Status.OK for state in status])
    parts = np.split(rows, range(SLICE_ROWS, len(rows), SLICE_ROWS))
    return [FaceBatch(keys=keys[part], identities=identities[part], images=faces.images[part]) for part in parts]


def ask(labelers: Mapping[str, Labeler], slices: list[FaceBatch]) -> dict[str, Answers]:
    """Let all models take turns, after one slice that warms them up."""
    degrees: dict[str, list[NDArray[np.float32]]] = {name: [] for name in labelers}
    seconds = dict.fromkeys(labelers, 0.0)
    for labeler in labelers.values():
        labeler(slices[0])
    for faces in slices:
        for name, labeler in labelers.items():
            started = time.perf_counter()
            measures = labeler(faces)
            seconds[name] += time.perf_counter() - started
            degrees[name].append(np.stack([measures.columns[angle] for angle in Angle], axis=1))
    return {
        name: Answers(degrees=np.concatenate(parts).astype(np.float32), seconds=seconds[name])
        for name, parts in degrees.items()
    }


def describe(name: str, answers: Mapping[str, Answers]) -> str:
    """A table of one data set."""
    reference = answers[REFERENCE]
    lines = [f"`{name}`, {len(reference.degrees):,} images:", "", *HEADER]
    nobody = reference.missing.sum()
    lines.append(f"| `{REFERENCE}` | {reference.rate:,.0f} | 1 | | | | | {nobody:,} |")
    lines += [compare(model, one, reference) for model, one in answers.items() if model != REFERENCE]
    return "\n".join(lines)


def compare(model: str, one: Answers, reference: Answers) -> str:
    """A model's row: differences in degrees, over the images in which both see a face."""
    both = ~one.missing & ~reference.missing
    spread = np.percentile(np.abs(one.degrees - reference.degrees)[both], [50, 95], axis=0)
    cells = [f"{median:.2f}, {high:.2f}" for median, high in spread.T]
    same = (pose_level(one.degrees[both, 0]) == pose_level(reference.degrees[both, 0])).mean()
    missing = (one.missing & reference.missing, one.missing & ~reference.missing, ~one.missing & reference.missing)
    nobody = ", ".join(f"{rows.sum():,}" for rows in missing)
    times = one.rate / reference.rate
    return f"| `{model}` | {one.rate:,.0f} | {times:.2f} | {' | '.join(cells)} | {same:.1%} | {nobody} |"


if __name__ == "__main__":
    main()
