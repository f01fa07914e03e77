"""WIDER FACE: its annotation text, and the faces cut out of its photos.

The text (Yang et al. 2016, `wider_face_split/wider_face_{train,val}_bbx_gt.txt`) holds, for every photo, its path
below `WIDER_{train,val}/images`, the number of faces, and one line a face:
`x y w h blur expression illumination invalid occlusion pose`. A photo without faces has the count 0 followed by one
line of ten zeros, which is no face.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import cv2
import numpy as np

from data_manifests.alignment import SIDE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_INTEGER = re.compile(r"-?[0-9]{1,9}")
_SUFFIXES = (".jpg", ".jpeg", ".png")
_NO_FACE = ("0",) * 10
_FIELDS = "x y w h blur expression illumination invalid occlusion pose"
_FLAGS = {0: False, 1: True}
_LARGEST_MARGIN = 2.0

TEMPLATE_SIZE, TEMPLATE_RISE = 0.99, 0.08
"""The square that the ArcFace template shows, beside a face's box, in shares of the box's longer side: its side, and
how far its centre lies above the box's. Medians over 2,639 faces that YuNet, which learned WIDER FACE's boxes, found in
a set of its layout; from the 10th to the 90th percentile, 0.90 to 1.06 and 0.04 to 0.12."""


class WiderFaceError(ValueError):
    """An annotation file or a box that is not as WIDER FACE describes it."""


class Split(StrEnum):
    """The parts of WIDER FACE that come with annotation."""

    TRAIN = "train"
    VAL = "val"


class Blur(IntEnum):
    """How blurred a face is."""

    CLEAR = 0
    NORMAL = 1
    HEAVY = 2


class Expression(IntEnum):
    """Whether the expression is exaggerated."""

    TYPICAL = 0
    EXAGGERATED = 1


class Illumination(IntEnum):
    """Whether the light is extreme."""

    NORMAL = 0
    EXTREME = 1


class Occlusion(IntEnum):
    """How much of a face is covered."""

    NONE = 0
    PARTIAL = 1
    HEAVY = 2


class Pose(IntEnum):
    """Whether the head is turned far from the usual."""

    TYPICAL = 0
    ATYPICAL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One annotated face: the box in pixels of the photo and six attributes.

    Attributes:
        x: left edge; may lie outside the photo.
        y: upper edge; may lie outside the photo.
        width: 0 in a few of the published boxes.
        height: 0 in a few of the published boxes.
        invalid: the annotators' own flag for a face that should not be used.
    """

    x: int
    y: int
    width: int
    height: int
    blur: Blur
    expression: Expression
    illumination: Illumination
    invalid: bool
    occlusion: Occlusion
    pose: Pose

    @property
    def usable(self) -> bool:
        """Whether the face is valid and its box has an area, so that it can be cut out."""
        return not self.invalid and self.width > 0 and self.height > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedImage:
    """One photo and its faces, in the order of the annotation; none is left out."""

    path: Path
    faces: tuple[Face, ...]


def read_split(root: Path, split: str) -> tuple[AnnotatedImage, ...]:
    """Read one part of WIDER FACE.

    Args:
        root: the folder that holds `wider_face_split` and `WIDER_{split}`.
        split: "train" or "val" (or a `Split`).

    Returns:
        Every photo of the annotation, in its order, those without faces too.

    Raises:
        WiderFaceError: if the annotation or a photo is missing, or a line is not as described; names file and line.
    """
    if split not in list(Split):
        raise WiderFaceError(f"WIDER FACE has no annotated part {split!r}; use one of: {', '.join(Split)}")
    annotation = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    try:
        text = annotation.read_bytes().decode("utf-8")
    except OSError as error:
        raise WiderFaceError(
            f"cannot read {annotation} ({error.strerror}): unpack wider_face_split.zip and WIDER_{split}.zip in {root}"
        ) from error
    except UnicodeDecodeError as error:
        raise WiderFaceError(f"{annotation} is not UTF-8 text ({error}): unpack wider_face_split.zip again") from error
    photos = root / f"WIDER_{split}" / "images"
    images = tuple(read_annotation(text, photos, annotation))
    if not images:
        raise WiderFaceError(f"{annotation} names no photo: unpack wider_face_split.zip again in {root}")
    for image in images:
        if not _exists(image.path):
            raise WiderFaceError(
                f"{annotation} names {image.path}, which is missing: unpack WIDER_{split}.zip in {root}"
            )
    return images


def read_annotation(text: str, photos: Path, name: str | Path) -> Iterator[AnnotatedImage]:
    """Parse annotation text.

    Args:
        text: the content of the annotation file.
        photos: the folder that the paths in it start from; nothing is read there.
        name: the file's name for messages.

    Yields:
        Every photo in the order of the text.

    Raises:
        WiderFaceError: at the first line that is not as described; names file and line.
    """
    lines = _Lines(text, name)
    while not lines.at_end:
        path = photos / _parse_path(lines)
        count = _parse_count(lines)
        faces = tuple(_parse_face(lines) for _ in range(count))
        if count == 0 and lines.peek().split() == list(_NO_FACE):
            lines.take()
        yield AnnotatedImage(path=path, faces=faces)


class _Lines:
    """The lines of a text with the number of the one that was read last."""

    def __init__(self, text: str, name: str | Path) -> None:
        self._lines = [line.strip(" \t\r") for line in text.split("\n")]
        while self._lines and not self._lines[-1]:
            self._lines.pop()
        self._name = name
        self._number = 0

    @property
    def at_end(self) -> bool:
        return self._number == len(self._lines)

    def peek(self) -> str:
        """The next line, empty at the end of the text."""
        return "" if self.at_end else self._lines[self._number]

    def take(self) -> str:
        """Move on to the next line, empty after the end of the text."""
        line = self.peek()
        self._number += 1
        return line

    def error(self, problem: str) -> WiderFaceError:
        """An error that names the file and the line that was read last."""
        return WiderFaceError(f"{self._name}, line {self._number}: {problem}")


def _show(line: str) -> str:
    """A line for a message, cut off where it is long."""
    return repr(line[:80]) if line else "nothing"


def _parse_path(lines: _Lines) -> PurePosixPath:
    """The path of a photo below the folder of photos, which it cannot leave."""
    line = lines.take()
    path = PurePosixPath(line)
    if not line.lower().endswith(_SUFFIXES):
        raise lines.error(
            f"expected the path of a photo ({', '.join(_SUFFIXES)}), found {_show(line)}; "
            "if this is a face, the number of faces above it is too small"
        )
    if path.is_absolute() or ".." in path.parts or not line.isprintable():
        raise lines.error(f"the path {_show(line)} must be relative, printable and without '..': correct it")
    return path


def _parse_count(lines: _Lines) -> int:
    """The number of faces of a photo."""
    line = lines.take()
    if not _INTEGER.fullmatch(line) or int(line) < 0:
        raise lines.error(f"expected the number of faces, found {_show(line)}; every photo's path is followed by it")
    return int(line)


def _parse_face(lines: _Lines) -> Face:
    """One line of ten integers."""
    line = lines.take()
    fields = line.split()
    if len(fields) != len(_NO_FACE) or not all(map(_INTEGER.fullmatch, fields)):
        raise lines.error(
            f"expected ten integers ({_FIELDS}), found {_show(line)}; "
            "if this is a path, the number of faces above it is too large"
        )
    x, y, width, height, blur, expression, illumination, invalid, occlusion, pose = map(int, fields)
    if width < 0 or height < 0:
        raise lines.error(f"width {width} and height {height} must not be negative; correct the box or remove the face")
    try:
        return Face(
            x=x, y=y, width=width, height=height,
            blur=Blur(blur), expression=Expression(expression), illumination=Illumination(illumination),
            invalid=_FLAGS[invalid], occlusion=Occlusion(occlusion), pose=Pose(pose),
        )  # fmt: skip
    except (ValueError, KeyError) as error:
        raise lines.error(
            f"an attribute in {_show(line)} is out of its range ({error}): blur and occlusion are 0 to 2, "
            "expression, illumination, invalid and pose 0 or 1; correct the line"
        ) from error


def _exists(path: Path) -> bool:
    """Whether a file is there; a name that the file system cannot hold is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def crop_face(image_rgb: NDArray[np.uint8], face: Face, margin: float) -> NDArray[np.uint8]:
    """Cut a square around a face and bring it to 112 x 112 pixels.

    The square has the box's centre; its side is the box's longer side, plus `margin` times that side on every side.
    What lies outside the photo repeats the photo's border: a black bar there would look like an occlusion. Shrinking
    averages over areas (no aliasing, which would look sharp), enlarging is bilinear.

    Args:
        image_rgb: uint8 [H, W, 3].
        face: its box must have an area and touch the photo.
        margin: fraction of the longer side, 0 to 2.

    Returns:
        uint8 [112, 112, 3], same colour order as `image_rgb`.

    Raises:
        WiderFaceError: if the box has no area, lies outside the photo, or is over twice as large as the photo.
        ValueError: if the margin or the picture's shape is out of range.
    """
    if not 0.0 <= margin <= _LARGEST_MARGIN:
        raise ValueError(f"the margin must be 0 to {_LARGEST_MARGIN}, not {margin}")
    return _cut_square(image_rgb, face, size=1.0 + 2.0 * margin, rise=0.0)


def frame_face(image_rgb: NDArray[np.uint8], face: Face) -> NDArray[np.uint8]:
    """Cut the square around a face that the ArcFace template would show if the head were upright.

    As `crop_face`, but for the square: `TEMPLATE_SIZE` and `TEMPLATE_RISE` say where it lies.

    Args:
        image_rgb: uint8 [H, W, 3].
        face: its box must have an area and touch the photo.

    Returns:
        uint8 [112, 112, 3], same colour order as `image_rgb`.

    Raises:
        WiderFaceError, ValueError: as for `crop_face`.
    """
    return _cut_square(image_rgb, face, size=TEMPLATE_SIZE, rise=TEMPLATE_RISE)


def _cut_square(image_rgb: NDArray[np.uint8], face: Face, *, size: float, rise: float) -> NDArray[np.uint8]:
    """The square of a face; its side, and how far its centre lies above the box's, are shares of the longer side."""
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
        raise ValueError(f"the photo must be uint8 [H, W, 3], not {image_rgb.dtype} {list(image_rgb.shape)}")
    _check_box(face, height=image_rgb.shape[0], width=image_rgb.shape[1])
    longer = max(face.width, face.height)
    side = max(1, round(longer * size))
    left = round(face.x + (face.width - side) / 2)
    top = round(face.y + (face.height - side) / 2 - rise * longer)
    square = _cut(image_rgb, left, top, side)
    resized = cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def _check_box(face: Face, height: int, width: int) -> None:
    """Refuse a box that holds nothing of the photo, or would need far more memory than the photo."""
    box = f"the box x={face.x} y={face.y} w={face.width} h={face.height}"
    if face.width <= 0 or face.height <= 0:
        raise WiderFaceError(f"{box} has no area: leave out faces that are not `usable`")
    outside = face.x >= width or face.y >= height or face.x + face.width <= 0 or face.y + face.height <= 0
    if outside or max(face.width, face.height) > 2 * max(height, width):
        raise WiderFaceError(
            f"{box} does not fit the photo of {width} x {height} pixels: check that they belong together"
        )


def _cut(image: NDArray[np.uint8], left: int, top: int, side: int) -> NDArray[np.uint8]:
    """The square of the photo, with the photo's border repeated where the square leaves it."""
    height, width = image.shape[:2]
    right, bottom = left + side, top + side
    inside = image[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    padded = cv2.copyMakeBorder(
        inside,
        top=max(-top, 0), bottom=max(bottom - height, 0), left=max(-left, 0), right=max(right - width, 0),
        borderType=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(padded, dtype=np.uint8)
