"""The embedded sample: 256 aligned images of eight real people, from photos that installed packages ship.

Every image is cut out by annotated landmarks with a small seeded shift, turn, scale and mirroring; about four in ten
are left as they are, the others get one or two damages of known kind and strength, listed in sources.tsv. The result is
written in MS1MV2's own layout. What is drawn (persons, damages, strengths) depends on NumPy's PCG64 alone. The pixels,
and so the bytes of train.rec, are the same for the same versions of OpenCV, with which JPEG is read and written, on one
kind of processor; another version may differ in the last bit.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cv2
import numpy as np
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field

from data_manifests.alignment import align
from data_manifests.damage import Damage, apply
from data_manifests.installation import REPAIR
from data_manifests.recordio.writer import write_ms1mv2
from data_manifests.storage.atomic import sha256_of, sync_folder, write_atomically
from data_manifests.storage.json_files import parse_json
from data_manifests.storage.toml_file import check, read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

VERSION = 2
"""Raised when the same photos give another sample: what stands in a workspace is then made anew."""

IMAGES_A_PERSON = 32
SEED = 20240617
JPEG_QUALITY = 92
UNDAMAGED = 0.4
"""Share of the images that are left as they are."""
DOUBLE = 0.25
"""Share of the damaged images that get two damages."""

_FACES = Path(__file__).parent / "annotations" / "sample_faces.toml"
_STAMP = "sample.json"
_FILES = ("train.rec", "train.idx", "property", "sources.tsv")
_TIME_NS = 1_700_000_000 * 10**9
"""The files' modification time: it enters the data's identity, so the sample is the same in every workspace."""


class SampleError(RuntimeError):
    """The sample cannot be made; names the photo or the folder, and the remedy."""


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


class _Photo(BaseModel):
    """A photo and the landmarks of the faces in it, [5, 2] each."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    package: str
    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    licence: str
    faces: tuple[Annotated[tuple[tuple[float, float], ...], Field(min_length=5, max_length=5)], ...]


class _Photos(BaseModel):
    """All photos of the sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    photos: tuple[_Photo, ...]


def make_sample(folder: Path) -> None:
    """Make the sample in a folder, unless it is there; a folder that is half written is never taken for whole.

    The folder appears under its name when all is written, and not before. One that holds another version of the sample,
    or a changed one, is replaced; one that holds anything else is left alone.

    Args:
        folder: gets train.rec, train.idx, property and sources.tsv (key, identity, source photo, damages as JSON).

    Raises:
        SampleError: if a photo is missing or another, or the folder holds other files.
        DiskFullError: if no space is left.
    """
    if _is_whole(folder):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if _is_whole(folder):
            return
        _require_replaceable(folder)
        prefix = f".{folder.name}.making-"
        for left_by_a_crash in folder.parent.glob(f"{prefix}*"):
            shutil.rmtree(left_by_a_crash)
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        try:
            _write(made / "new")
            if folder.exists():
                folder.rename(made / "old")
            (made / "new").rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _stamp(folder: Path) -> dict[str, object]:
    """What the stamp of a whole sample says: the version, the annotation, and every file's content."""
    hashes = {name: sha256_of(folder / name) for name in _FILES}
    return {"version": VERSION, "annotation": sha256_of(_FACES), "sha256": hashes}


def _is_whole(folder: Path) -> bool:
    """Whether the folder holds this version of the sample, unchanged."""
    try:
        return bool(parse_json((folder / _STAMP).read_bytes()) == _stamp(folder))
    except (OSError, ValueError):
        return False


def _require_replaceable(folder: Path) -> None:
    """Refuse to replace what this module has not made: the sample's name can point at anyone's data."""
    if folder.exists() and not (folder / _STAMP).is_file() and any(folder.iterdir()):
        raise SampleError(
            f"{folder} holds files that are not the embedded sample: move them away, or set FIQA_WORKSPACE to another "
            "folder; a data set of your own needs another name than 'sample'"
        )


def _write(folder: Path) -> None:
    """Write all files of the sample, the stamp last."""
    images = list(draw_images())
    write_ms1mv2(folder, ((image.identity, image.encoded) for image in images)).close()
    rows = [f"{k}\t{i.identity}\t{i.photo}\t{json.dumps(i.damages)}\n" for k, i in enumerate(images, start=1)]
    text = "key\tidentity\tsource\tdegradations\n" + "".join(rows)
    write_atomically(folder / "sources.tsv", lambda file: file.write(text.encode()))
    stamp = json.dumps(_stamp(folder), indent=1)
    write_atomically(folder / _STAMP, lambda file: file.write(stamp.encode()))
    for path in folder.iterdir():
        os.utime(path, ns=(_TIME_NS, _TIME_NS))


def draw_images() -> Iterator[SampleImage]:
    """The images of the sample, person by person.

    Raises:
        SampleError: if a photo is missing, or not the one that was annotated.
    """
    identity = 0
    for photo in check(_Photos, read_toml(_FACES), _FACES).photos:
        picture = read_photo(photo.package, photo.path, photo.sha256)
        for landmarks in photo.faces:
            for number in range(IMAGES_A_PERSON):
                rng = np.random.Generator(np.random.PCG64([SEED, identity, number]))
                yield _draw(picture, np.array(landmarks), f"{photo.package}/{photo.path}", identity, rng)
            identity += 1


def read_photo(package: str, path: str, sha256: str) -> NDArray[np.uint8]:
    """A photo that an installed package ships, uint8 [H, W, 3] RGB.

    Raises:
        SampleError: if it is missing, or not the photo whose landmarks were annotated.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SampleError(f"the package {package}, which ships a photo of the sample, is missing: run `{REPAIR}`")
    file = Path(spec.origin).parent / path
    content = file.read_bytes() if file.is_file() else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SampleError(
            f"{file} is {'another photo than' if content else 'missing, and is'} the one whose landmarks the sample "
            f"uses: run `{REPAIR}`, which installs the version of {package} in requirements.lock"
        )
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def _draw(
    picture: NDArray[np.uint8], landmarks: NDArray[np.float64], photo: str, identity: int, rng: np.random.Generator
) -> SampleImage:
    """Cut out one face and damage it."""
    image = align(picture, _jitter(landmarks, rng))
    if rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
    count = 0 if rng.random() < UNDAMAGED else 2 if rng.random() < DOUBLE else 1
    kinds = [list(Damage)[place] for place in rng.permutation(len(Damage))[:count]]
    damages = tuple((kind, round(float(rng.uniform(0.1, 1.0)), 3)) for kind in kinds)
    for kind, severity in damages:
        image = apply(image, kind, severity, rng)
    _, encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return SampleImage(
        identity=identity,
        photo=photo,
        damages=tuple((kind.value, severity) for kind, severity in damages),
        encoded=encoded.tobytes(),
    )


def _jitter(landmarks: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Landmarks [5, 2] turned by a few degrees, scaled and shifted by a few percent of the face's size."""
    centre = landmarks.mean(axis=0)
    size = np.linalg.norm(landmarks - centre, axis=1).mean()
    angle, scale = np.radians(rng.uniform(-4.0, 4.0)), rng.uniform(0.96, 1.05)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved: NDArray[np.float64] = (landmarks - centre) @ turn.T + centre + rng.uniform(-0.05, 0.05, 2) * size
    return moved
