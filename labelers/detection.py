"""Faces in photos of any size: found by YuNet with five landmarks, mapped back to the photo's own pixels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LONGEST_SIDE = 640
"""Photos are reduced to this before faces are looked for; a face of 2 % of the photo's width is then 13 pixels wide."""

MIN_SCORE = 0.6
"""The least certain face that counts. Of 120 undamaged LFW crops every face has 0.7 and more."""

CLOSE_UP_SIDE = 320
CLOSE_UP_BORDER = 0.25
"""The second try, for faces that fill the photo or touch its edge: a black border on each side, as a share of the
longer side, and the whole reduced to `CLOSE_UP_SIDE`. Of 50 close-ups of 1,000 pixels without hair, chin or ears, the
first try scores none at 0.9 or more, the second all."""

SMALL_FACE = 64
LARGE_FACE = 480
SECOND_LOOK = 192
"""A face that the detector saw with fewer or more pixels than these is looked at again, in a cut of its surroundings
that is brought to 192 pixels. On 100 LFW crops reduced to 28 and to 40 pixels this brought the landmarks' scatter from
5.9 and 4.1 pixels of the aligned face to 3.6 and 3.4, as larger faces have it, and their common offset from 3.3 and 1.5
to 1.5 and 0.9; on enlarged close-ups of the sample's faces it brought the landmarks from 5.2 to 4.1 pixels of the
annotation."""

_OVERLAP = 0.3
"""Intersection over union: above, two boxes show one face, both for YuNet's own choice and for the second look."""

_MOST_BOXES = 5000
"""Candidates that YuNet compares with each other; OpenCV's default."""


class FaceChoice(StrEnum):
    """Which of several faces of a photo is taken.

    Attributes:
        LARGEST: the largest area minus twice the squared distance from the photo's centre, in pixels: large faces, and
            of nearly equal ones the more central. The rule by which facenet and InsightFace cut their training sets.
        CENTRAL: the nearest to the photo's centre.
        BEST: the one of which the detector is most certain.
    """

    LARGEST = "largest"
    CENTRAL = "central"
    BEST = "best"


class DetectorError(ValueError):
    """The weight file is no face detector that OpenCV can use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A part of a photo as the detector sees it, and the way back.

    Attributes:
        picture: uint8 [h, w, 3].
        scale: pixels of the picture for one of the photo, to the right and down; rounding makes them differ.
        origin: where the picture's upper left edge lies in the photo, x and y.
    """

    picture: NDArray[np.uint8]
    scale: tuple[float, float]
    origin: tuple[float, float]

    def to_photo(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points [..., 2] of the picture, x then y, as points of the photo.

        Whole numbers are centres of pixels, as for OpenCV's resize and warpAffine.
        """
        mapped: NDArray[np.float64] = (points + 0.5) / np.array(self.scale) + np.array(self.origin) - 0.5
        return mapped


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """F faces of a photo, in its own pixels.

    Attributes:
        boxes: float64 [F, 4], left, top, right, bottom; may reach beyond the photo.
        landmarks: float64 [F, 5, 2], x then y: eyes, nose tip, corners of the mouth, each from left to right in the
            picture, as in `ARCFACE_TEMPLATE`.
        scores: float64 [F], 0 to 1.
    """

    boxes: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenFace:
    """The face of a photo that is taken.

    Attributes:
        landmarks: float64 [5, 2], see `Faces`.
        score: how certain the detector is of it.
        faces: how many faces the photo has.
    """

    landmarks: NDArray[np.float64]
    score: float
    faces: int


class FaceDetector:
    """YuNet, opened once (Wu, Peng & Yu 2023). One caller at a time.

    Args:
        weights: YuNet's ONNX file.
        longest_side: photos are reduced to it before faces are looked for.
        min_score: the least certain face that counts.

    Raises:
        FileNotFoundError: if there is no such file.
        DetectorError: if OpenCV does not take it.
    """

    def __init__(self, weights: Path, *, longest_side: int = LONGEST_SIDE, min_score: float = MIN_SCORE) -> None:
        # Here since whoever names a choice of faces needs no runtime of networks.
        from labelers.runtime.onnx import NetworkError, read_model  # noqa: PLC0415

        if not weights.is_file():
            raise FileNotFoundError(f"no face detector at {weights}: `python -m pipeline weights` fetches it")
        if longest_side < 32 or not 0 < min_score < 1:
            raise ValueError(f"a longest side of 32 or more and a score in (0, 1), not {longest_side} and {min_score}")
        self._longest_side = longest_side
        try:
            # By its bytes: by a path, OpenCV would follow what the file says of weights in other files, anywhere.
            content = np.frombuffer(read_model(weights).SerializeToString(), np.uint8)
        except NetworkError as error:
            raise DetectorError(f"{weights} is no YuNet: {error}") from error
        try:
            self._network: Any = cv2.FaceDetectorYN.create(
                "onnx", content, np.empty(0, np.uint8), (longest_side, longest_side), min_score, _OVERLAP, _MOST_BOXES
            )
            self.find(np.zeros((32, 32, 3), np.uint8))
        except cv2.error as error:
            raise DetectorError(f"{weights} is no YuNet that OpenCV {cv2.__version__} takes: {error}") from error

    def locate(self, photo: NDArray[np.uint8], choice: FaceChoice = FaceChoice.LARGEST) -> ChosenFace | None:
        """Find the face of a photo that is to be aligned.

        Args:
            photo: uint8 [H, W, 3], RGB, upright.
            choice: which one of several.

        Returns:
            None where there is no face.
        """
        found, view = self._look(photo)
        if not len(found):
            return None
        return self._refine(photo, found, view, int(np.argmax(rate(found, choice, photo.shape[1], photo.shape[0]))))

    def locate_all(self, photo: NDArray[np.uint8], choice: FaceChoice = FaceChoice.LARGEST) -> list[ChosenFace]:
        """Find all faces of a photo as `locate` finds one, in the order of its choice.

        Args:
            photo: uint8 [H, W, 3], RGB, upright.
            choice: which one is first.
        """
        found, view = self._look(photo)
        order = np.argsort(-rate(found, choice, photo.shape[1], photo.shape[0]), kind="stable")
        return [self._refine(photo, found, view, index) for index in order.tolist()]

    def locate_in(self, photo: NDArray[np.uint8], box: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """The landmarks of the face that is known to fill a box, found in the box and its surroundings alone.

        Args:
            photo: uint8 [H, W, 3], RGB, upright.
            box: float64 [4], left, top, right, bottom in pixels of the photo; some of it lies in the photo.

        Returns:
            float64 [5, 2], see `Faces`; None where no face that is found overlaps the box.
        """
        found = self._detect(view_around(photo, box, SECOND_LOOK))
        if not len(found):
            return None
        overlaps = measure_overlap(found.boxes, box)
        best = int(np.argmax(overlaps))
        return found.landmarks[best] if overlaps[best] >= _OVERLAP else None

    def find(self, photo: NDArray[np.uint8]) -> Faces:
        """Find all faces of a photo, uint8 [H, W, 3] RGB; where there are none, once more with a border."""
        return self._look(photo)[0]

    def _refine(self, photo: NDArray[np.uint8], found: Faces, view: View, index: int) -> ChosenFace:
        """One of the faces, looked at again where it was seen too small or too large."""
        landmarks, box = found.landmarks[index], found.boxes[index]
        seen = max((box[2] - box[0]) * view.scale[0], (box[3] - box[1]) * view.scale[1])
        again = None if SMALL_FACE <= seen <= LARGE_FACE else self.locate_in(photo, box)
        landmarks = landmarks if again is None else again
        return ChosenFace(landmarks=landmarks, score=float(found.scores[index]), faces=len(found))

    def _look(self, photo: NDArray[np.uint8]) -> tuple[Faces, View]:
        """All faces, and the view in which they were found."""
        view = view_whole(photo, self._longest_side)
        found = self._detect(view)
        if not len(found):
            view = view_with_border(photo, CLOSE_UP_SIDE, CLOSE_UP_BORDER)
            found = self._detect(view)
        return found, view

    def _detect(self, view: View) -> Faces:
        """Run the network on a view; rows are x, y, width, height, five points, score."""
        bgr = np.ascontiguousarray(view.picture[:, :, ::-1])
        self._network.setInputSize((bgr.shape[1], bgr.shape[0]))
        rows = self._network.detect(bgr)[1]
        rows = np.zeros((0, 15)) if rows is None else np.asarray(rows, np.float64)  # [F, 15]
        corners = np.stack([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)  # [F, 2, 2]
        return Faces(
            boxes=view.to_photo(corners).reshape(-1, 4),
            landmarks=view.to_photo(rows[:, 4:14].reshape(-1, 5, 2)),
            scores=rows[:, 14],
        )


def rate(found: Faces, choice: FaceChoice, width: int, height: int) -> NDArray[np.float64]:
    """What each face is worth by a rule, float64 [F]; the first of the largest is taken.

    Args:
        found: F faces.
        choice: the rule.
        width: of the photo, in pixels.
        height: likewise.
    """
    left, top, right, bottom = found.boxes.T
    distance = ((left + right - width) / 2) ** 2 + ((top + bottom - height) / 2) ** 2
    match choice:
        case FaceChoice.LARGEST:
            worth = (right - left) * (bottom - top) - 2 * distance
        case FaceChoice.CENTRAL:
            worth = -distance
        case FaceChoice.BEST:
            worth = found.scores
    return np.asarray(worth, np.float64)


def view_whole(photo: NDArray[np.uint8], longest_side: int) -> View:
    """The whole photo, reduced where it is larger."""
    return _see(photo, (0, 0), longest_side / max(photo.shape[:2]), enlarge=False)


def view_with_border(photo: NDArray[np.uint8], longest_side: int, border: float) -> View:
    """The whole photo with a black border, a share of its longer side; reduced together to `longest_side`."""
    inner = view_whole(photo, max(1, round(longest_side / (1 + 2 * border))))
    margin = max(1, round(border * max(inner.picture.shape[:2])))
    picture = cv2.copyMakeBorder(inner.picture, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
    origin = (-margin / inner.scale[0], -margin / inner.scale[1])
    return View(picture=np.asarray(picture, np.uint8), scale=inner.scale, origin=origin)


def view_around(photo: NDArray[np.uint8], box: NDArray[np.float64], longest_side: int) -> View:
    """A box with as much again around it, as far as the photo reaches, brought to `longest_side`.

    Args:
        photo: uint8 [H, W, 3].
        box: float64 [4], left, top, right, bottom; some of it lies in the photo.
        longest_side: of the view, in pixels.
    """
    height, width = photo.shape[:2]
    centre = (box[:2] + box[2:]) / 2
    reach = max(float((box[2:] - box[:2]).max()), 1.0)
    left, top = (int(np.clip(c - reach, 0, side - 1)) for c, side in zip(centre, (width, height), strict=True))
    right, bottom = (
        int(np.clip(np.ceil(c + reach), start + 1, side))
        for c, start, side in zip(centre, (left, top), (width, height), strict=True)
    )
    cut = photo[top:bottom, left:right]
    return _see(cut, (left, top), longest_side / max(cut.shape[:2]), enlarge=True)


def _see(part: NDArray[np.uint8], origin: tuple[int, int], factor: float, *, enlarge: bool) -> View:
    """A part of a photo, resized: averaged where it is reduced, bilinear where it is enlarged."""
    if factor >= 1 and not enlarge:
        return View(picture=part, scale=(1.0, 1.0), origin=origin)
    height, width = (max(1, round(side * factor)) for side in part.shape[:2])
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    picture = np.asarray(cv2.resize(part, (width, height), interpolation=how), np.uint8)
    return View(picture=picture, scale=(width / part.shape[1], height / part.shape[0]), origin=origin)


def measure_overlap(boxes: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of F boxes [F, 4] with one [4], as left, top, right, bottom: float64 [F]."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])  # [F, 2]
    both = np.clip(sides, 0, None).prod(axis=1)
    either = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - both
    overlap: NDArray[np.float64] = both / np.maximum(either, 1e-12)
    return overlap
