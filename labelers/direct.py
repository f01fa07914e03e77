"""Labels and aligned faces for who works in Python: arrays or files in, a frame out; no Luigi, no workspace.

The numbers are those of `LabelAll`. Networks are opened at the first call and kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl
from pydantic import ValidationError

from data_manifests.alignment import AlignmentError
from data_manifests.alignment import align as cut_aligned
from data_manifests.storage.toml_file import suggest
from data_manifests.storage.values import explain_first
from data_manifests.tables.stages import CLASSES, LABELS, Status
from data_manifests.weights.entry import POSE_KINDS, Kind
from data_manifests.weights.files import fetch
from data_manifests.weights.registry import DETECTOR, find_network, load_registry
from labelers.blur.scores import Blocks, BlurLabeler, Edges
from labelers.detection import MIN_SCORE, FaceDetector
from labelers.faces import FaceBatch
from labelers.given_images import GivenImages, read_given
from labelers.opening import open_labeler
from labelers.photos import decode_photo
from labelers.rules import CLASSIFIED, BlurSource, LabelSettings, classify
from labelers.runtime.device import Device
from labelers.runtime.precision import Precision, check_precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from labelers.labeler import Labeler, Measures

_Kind = TypeVar("_Kind", bound=StrEnum)

_OF_LABELS = tuple(column.name for column in LABELS.columns)

_SLICE = 256
"""Images measured at a time, as LabelAll does: an image then stands at the same place of the same batch."""


class LabelError(ValueError):
    """Images cannot be labelled as asked; says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedFace:
    """One face of a photo.

    Attributes:
        image: uint8 [112, 112, 3], RGB: the face aligned to the ArcFace template.
        landmarks: float64 [5, 2], x then y in pixels of the photo: eyes, nose tip, corners of the mouth, each from left
            to right in the picture.
        score: how certain the detector is of it, 0 to 1.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float64]
    score: float


def label(  # noqa: PLR0913 - the settings of a labelling
    images: ArrayLike | str | Path | Sequence[str | Path],
    *,
    recognition: str | None = "fr_feature",
    pose: str = "face_landmarker",
    factors: str = "factors_mini",
    device: str = "cpu",
    precision: str = "float32",
    edges: str = "matlab",
    blocks: str = "reference",
    flip: bool = False,
    **rules: Any,
) -> pl.DataFrame:
    """Measure and classify aligned faces.

    Args:
        images: uint8 [N, 112, 112, 3] or [112, 112, 3], RGB; or the path of an image, of several, or of a folder.
        recognition: recogniser of models.toml whose `norm` is given; None: no such column, in a third of the time.
        pose: network of yaw, pitch and roll.
        factors: network of occlusion, expression and lighting.
        device: cpu or cuda.
        precision: float32; bfloat16 on cpu; tf32 or float16 on cuda.
        edges: CPBD's edge detector, matlab or python.
        blocks: CPBD's blocks, reference or cover.
        flip: whether the recogniser also sees the mirror image.
        rules: settings of the section [labels] of luigi.cfg, such as `recipe="robust"` or `blur_hazy=0.3`.

    Returns:
        N rows: the columns of the table `labels` that need no other image (cpbd, sobel, yaw_deg, ..., norm, the five
        classes, status), behind `path` where files were given. An image that cannot be read, or is not 112 x 112, is a
        row of nulls with a status. The quality anchor needs the others of a person, so it is not among them.

    Raises:
        LabelError: if the images are of another shape or type, or a setting is wrong.
        WeightsError, RegistryError, NetworkError, ProviderError: each says what to do.
    """
    settings = _read_rules(rules)
    given = read_given(images)
    roles = {"pose": (pose, POSE_KINDS), "factors": (factors, (Kind.FACTORS,))}
    with_ratio = settings.blur_source is BlurSource.EDGE_RATIO
    blur = BlurLabeler(edges=_one_of(Edges, edges), blocks=_one_of(Blocks, blocks), edge_ratio=with_ratio)
    labelers: list[Labeler] = [blur]
    labelers += [_open_network(name, kinds, device, precision) for name, kinds in roles.values()]
    if recognition is not None:
        labelers.append(_open_network(recognition, (Kind.RECOGNITION,), device, precision, flip=flip))
    parts = [_measure(given, start, labelers) for start in range(0, len(given), _SLICE)]
    columns = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    status = [row for _, rows in parts for row in rows]
    return _to_frame(given, columns, status, settings)


def align(
    photo: NDArray[np.uint8] | bytes | str | Path,
    *,
    detector: str = DETECTOR,
    min_score: float = MIN_SCORE,
) -> list[AlignedFace]:
    """Find every face of a photo and align it.

    Args:
        photo: a file of any size, its bytes, or uint8 [H, W, 3], RGB, upright.
        detector: network of models.toml.
        min_score: the least certain face that counts.

    Returns:
        The faces, the one that AlignFaces takes first; none where the photo shows none.

    Raises:
        OSError: if the file cannot be read.
        DecodeError: if it is no photo that decodes.
        WeightsError, RegistryError, DetectorError: each says what to do.
    """
    pixels = photo if isinstance(photo, np.ndarray) else decode_photo(_read_bytes(photo))
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise LabelError(f"a photo is uint8 [H, W, 3], RGB, not {pixels.dtype} {list(pixels.shape)}")
    found = []
    for face in _open_detector(detector, min_score).locate_all(pixels):
        try:
            image = cut_aligned(pixels, face.landmarks)
        except AlignmentError:  # five points in which no turn sees a face
            continue
        found.append(AlignedFace(image=image, landmarks=face.landmarks, score=face.score))
    return found


def _read_rules(rules: dict[str, Any]) -> LabelSettings:
    """The settings of the labels."""
    for name in rules.keys() - LabelSettings.model_fields.keys():
        known = ", ".join(LabelSettings.model_fields)
        raise LabelError(f"there is no setting {name!r}{suggest(name, LabelSettings.model_fields)}: there are {known}")
    try:
        return LabelSettings.model_validate(rules)
    except ValidationError as error:
        raise LabelError(explain_first(error)) from error


def _one_of(kind: type[_Kind], text: str) -> _Kind:
    """A choice by its name."""
    if text not in list(kind):
        raise LabelError(f"{text!r} is none of {', '.join(kind)}")
    return kind(text)


@lru_cache(maxsize=16)
def _open_network(name: str, kinds: tuple[Kind, ...], device: str, precision: str, **settings: str | float) -> Labeler:
    """A network's labeler, opened once; what is not here is fetched."""
    numbers = _one_of(Precision, precision)
    check_precision(numbers, _one_of(Device, device))
    entry = load_registry().get(find_network(name, *kinds)[0], *kinds)
    fetch(entry)
    return open_labeler(entry, device, numbers, **settings)


@lru_cache(maxsize=4)
def _open_detector(name: str, min_score: float) -> FaceDetector:
    """A face detector, opened once."""
    entry = load_registry().get(name, Kind.DETECTOR)
    return FaceDetector(fetch(entry)[0], min_score=min_score)


def _read_bytes(photo: bytes | str | Path) -> bytes:
    """The content of a file, or bytes as they are."""
    return photo if isinstance(photo, bytes) else Path(photo).read_bytes()


def _measure(
    given: GivenImages, start: int, labelers: Sequence[Labeler]
) -> tuple[dict[str, NDArray[Any]], list[list[Status]]]:
    """Measures of one slice, and the statuses of every image: of reading it, and of each labeler."""
    images, read = given.read(start, min(start + _SLICE, len(given)))
    keys = np.arange(start + 1, start + 1 + len(images), dtype=np.int32)
    batch = FaceBatch(keys=keys, images=images, identities=np.full(len(images), -1, np.int32))
    measured: list[Measures] = [labeler(batch) for labeler in labelers]
    unread = np.array([status is not Status.OK for status in read])
    columns = {}
    for measures in measured:
        for name, values in measures.columns.items():
            if name in _OF_LABELS:
                columns[name] = np.where(unread, np.float32(np.nan), values)
    return columns, [[one, *others] for one, *others in zip(read, *(m.status for m in measured), strict=True)]


def _to_frame(
    given: GivenImages, columns: dict[str, NDArray[Any]], status: list[list[Status]], settings: LabelSettings
) -> pl.DataFrame:
    """Measures with their classes, in the order of the table `labels`."""
    # Each labeler's status as its table has it: what could not be read is said before what was not found.
    causes = [[read if read is not Status.OK else own for own in others] for read, *others in status]
    looked_at = np.array([row[1] in (Status.OK, Status.NO_FACE) for row in causes])  # blur, pose, factors, recogniser
    classes = classify({name: columns[name] for name in CLASSIFIED if name in columns}, looked_at, settings)
    series = {name: pl.Series(name, values).fill_nan(None) for name, values in columns.items()}
    for factor, codes in classes.items():
        words = [CLASSES[factor][code] if code >= 0 else None for code in codes.tolist()]
        series[factor.value] = pl.Series(factor.value, words, pl.Enum(CLASSES[factor]))
    said = ["+".join(dict.fromkeys(c.value for c in row if c is not Status.OK)) or Status.OK.value for row in causes]
    series["status"] = pl.Series("status", said)
    paths = [] if given.paths is None else [pl.Series("path", given.paths)]
    return pl.DataFrame([*paths, *(series[name] for name in _OF_LABELS if name in series)])
