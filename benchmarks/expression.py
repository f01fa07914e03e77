"""How far a network's expression agrees with MediaPipe's jawOpen, and how far jawOpen agrees with itself.

    python -m benchmarks.expression --rec natural/train.rec --networks factors_mini

The records are undamaged faces, aligned to the ArcFace template. An expression is held for exaggerated where jawOpen
exceeds 0.3. The last rows show what no network can be expected to exceed: jawOpen of the mirrored face, judged alike.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from data_manifests.recordio.record_file import RecordFile
from data_manifests.weights.entry import Kind
from data_manifests.weights.files import find
from data_manifests.weights.registry import load_registry
from labelers.faces import FaceBatch, decode
from labelers.opening import open_labeler
from labelers.pose.landmarker import PADDING, block_network
from training.factor_net.config import Head
from training.factor_net.metrics import THRESHOLD, measure_head

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPEN, BORDER = 0.3, 0.1
"""From which jawOpen on an expression is exaggerated, and how near to it a face is left out in every second row."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rec", type=Path, required=True, help="undamaged, aligned faces")
    parser.add_argument("--networks", required=True, help="of models.toml, by commas")
    parser.add_argument("--images", type=int, default=2000, help="spread evenly over the file (default: 2000)")
    given = parser.parse_args()
    faces = read_faces(given.rec, given.images)
    jaws, mirrored = measure_jaws(faces), measure_jaws(faces[:, :, ::-1])
    found = ~np.isnan(jaws + mirrored)
    said = {name: measure(name, faces[found]) for name in given.networks.split(",")}
    # jawOpen of the mirrored face as a probability: 0.5 at the same place.
    said["jawOpen of the mirrored face"] = np.interp(mirrored[found], (0.0, OPEN, 1.0), (0.0, THRESHOLD, 1.0))
    print(to_table(said, jaws[found]))


def read_faces(rec: Path, images: int) -> NDArray[np.uint8]:
    """N faces uint8 [N, 112, 112, 3] of a .rec."""
    with RecordFile(rec) as file:
        rows = np.linspace(0, len(file.keys) - 1, min(images, len(file.keys))).round().astype(int)
        return np.array([decode(file.read(int(file.keys[row]))[1]) for row in rows])


def measure_jaws(faces: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far each mouth is open, float64 [N], 0 to 1; NaN where no face is found even with a border."""
    task = find(load_registry().get("face_landmarker"))[0]
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(task), delegate=BaseOptions.Delegate.CPU),
        running_mode=vision.RunningMode.IMAGE,
        output_face_blendshapes=True,
    )
    jaws = np.full(len(faces), np.nan)
    with block_network(), vision.FaceLandmarker.create_from_options(options) as landmarker:
        for row, face in enumerate(faces):
            for border in (0, PADDING):
                picture = np.pad(face, ((border, border), (border, border), (0, 0)))
                image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
                shapes = landmarker.detect(image).face_blendshapes
                if shapes:
                    jaws[row] = next(shape.score for shape in shapes[0] if shape.category_name == "jawOpen")
                    break
    return jaws


def measure(name: str, faces: NDArray[np.uint8]) -> NDArray[np.float64]:
    """A network's probability of an exaggerated expression, float64 [N]."""
    numbers = np.arange(len(faces), dtype=np.int32)
    labeler = open_labeler(load_registry().get(name, Kind.FACTORS))
    return labeler(FaceBatch(keys=numbers, images=faces, identities=numbers)).columns[Head.EXAGGERATED].astype(float)


def to_table(said: dict[str, NDArray[np.float64]], jaws: NDArray[np.float64]) -> str:
    """Every judge against jawOpen, over all faces and over those that are clear, in Markdown."""
    clear = np.abs(jaws - OPEN) > BORDER
    lines = [
        "| judge | jawOpen | faces | exaggerated | said to be | balanced accuracy | precision | AUC |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, probability in said.items():
        for text, rows in (("all", np.full(len(jaws), True)), (f"not {OPEN} ± {BORDER}", clear)):
            truth, told = jaws[rows] > OPEN, probability[rows] >= THRESHOLD
            found = measure_head(probability[rows], truth)
            lines.append(
                f"| {name} | {text} | {found.faces:,} | {found.positives} | {told.sum()} | "
                f"{found.balanced_accuracy:.3f} | {truth[told].mean():.2f} | {found.auc:.3f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
