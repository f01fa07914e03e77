"""The embedded sample: 256 aligned images of eight real people, from photos that installed packages ship.

Every image is cut out by annotated landmarks with a small seeded shift, turn, scale and mirroring; four in ten are left
as they are, the others get one or two damages of known kind and strength, listed in sources.tsv. The result is written
in MS1MV2's own layout. The same library versions give the same bytes; another JPEG encoder may not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from filelock import FileLock

from data_manifests.alignment import align
from data_manifests.damage import Damage, apply
from data_manifests.files import sha256_of, write_atomically
from data_manifests.recordio_writer import write_ms1mv2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

VERSION = 1
IMAGES_A_PERSON = 32
SEED = 20240617
JPEG_QUALITY = 92
UNDAMAGED = 0.4
DOUBLE = 0.25
"""Share of the damaged images that get two damages."""

_FACES = Path(__file__).with_name("sample_faces.toml")
_STAMP = "sample.json"
_TIME_NS = 1_700_000_000 * 10**9
"""The files' modification time: it enters the data's identity, so the sample is the same in every workspace."""


class SampleError(RuntimeError):
    """The sample cannot be made; names the photo and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleImage:
    """One image of the sample.

    Attributes:
        identity: 0 to 7.
        photo: where it was cut from.
        damages: kind and severity, in the order in which they were applied.
        encoded: JPEG bytes.
    """

    identity: int
    photo: str
    damages: tuple[tuple[str, float], ...]
    encoded: bytes


def make_sample(folder: Path) -> None:
    """Make the sample in a folder, unless it is there; a folder that is half written is never taken for whole.

    Args:
        folder: gets train.rec, train.idx, property and sources.tsv.

    Raises:
        SampleError: if a photo is missing or another.
    """
    if _is_whole(folder):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if _is_whole(folder):
            return
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _write(made)
            shutil.rmtree(folder, ignore_errors=True)
            made.replace(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether the folder holds this version of the sample, unchanged."""
    try:
        stamp = json.loads((folder / _STAMP).read_text())
        return bool(stamp["version"] == VERSION and stamp["sha256"] == sha256_of(folder / "train.rec"))
    except (OSError, ValueError, KeyError):
        return False


def _write(folder: Path) -> None:
    """Write all files of the sample, the stamp last."""
    images = list(draw_images())
    write_ms1mv2(folder, ((image.identity, image.encoded) for image in images)).close()
    rows = [f"{k}\t{i.identity}\t{i.photo}\t{json.dumps(i.damages)}\n" for k, i in enumerate(images, start=1)]
    text = "key\tidentity\tsource\tdegradations\n" + "".join(rows)
    write_atomically(folder / "sources.tsv", lambda file: file.write(text.encode()))
    stamp = {"version": VERSION, "sha256": sha256_of(folder / "train.rec")}
    write_atomically(folder / _STAMP, lambda file: file.write(json.dumps(stamp).encode()))
    for path in folder.iterdir():
        os.utime(path, ns=(_TIME_NS, _TIME_NS))
    folder.chmod(0o755)


def draw_images() -> Iterator[SampleImage]:
    """The images of the sample, person by person."""
    identity = 0
    for photo in tomllib.loads(_FACES.read_text())["photos"]:
        picture = read_photo(photo["package"], photo["path"], photo["sha256"])
        for landmarks in photo["faces"]:
            rng = np.random.Generator(np.random.PCG64([SEED, identity]))
            for _ in range(IMAGES_A_PERSON):
                yield _draw(picture, np.array(landmarks), f"{photo['package']}/{photo['path']}", identity, rng)
            identity += 1


def read_photo(package: str, path: str, sha256: str) -> NDArray[np.uint8]:
    """A photo that an installed package ships, uint8 [H, W, 3] RGB.

    Raises:
        SampleError: if it is missing, or not the photo whose landmarks were annotated.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SampleError(f"the package {package}, which ships a photo of the sample, is missing: run `make setup`")
    file = Path(spec.origin).parent / path
    if not file.is_file() or sha256_of(file) != sha256:
        raise SampleError(
            f"{file} is not the photo that the sample was annotated on: run `make setup`, which installs the version "
            f"of {package} in requirements.lock"
        )
    return np.asarray(cv2.imread(str(file), cv2.IMREAD_COLOR_RGB), np.uint8)


def _draw(
    picture: NDArray[np.uint8], landmarks: NDArray[np.float64], photo: str, identity: int, rng: np.random.Generator
) -> SampleImage:
    """Cut out one face and damage it."""
    image = align(picture, _jitter(landmarks, rng))
    if rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
    count = 0 if rng.random() < UNDAMAGED else 2 if rng.random() < DOUBLE else 1
    kinds = rng.choice(list(Damage), count, replace=False)
    damages = tuple((Damage(kind).value, round(float(rng.uniform(0.1, 1.0)), 3)) for kind in kinds)
    for kind, severity in damages:
        image = apply(image, Damage(kind), severity, rng)
    _, encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return SampleImage(identity=identity, photo=photo, damages=damages, encoded=encoded.tobytes())


def _jitter(landmarks: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Landmarks [5, 2] turned by a few degrees, scaled and shifted by a few percent of the face's size."""
    centre = landmarks.mean(axis=0)
    size = np.linalg.norm(landmarks - centre, axis=1).mean()
    angle, scale = np.radians(rng.uniform(-4.0, 4.0)), rng.uniform(0.96, 1.05)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved: NDArray[np.float64] = (landmarks - centre) @ turn.T + centre + rng.uniform(-0.05, 0.05, 2) * size
    return moved
