"""Faces of WIDER FACE as crops with the attributes that the network learns."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.alignment import AlignmentError, align
from data_manifests.weights.entry import Kind
from data_manifests.weights.files import fetch
from data_manifests.weights.registry import DETECTOR, load_registry
from data_manifests.wider_face import (
    Expression,
    Face,
    Illumination,
    Occlusion,
    Split,
    WiderFaceError,
    crop_face,
    frame_face,
    read_split,
)
from labelers.detection import FaceDetector
from labelers.faces import SIDE, DecodeError, decode
from training.factor_net.config import Head
from training.trainer.cores import share_of_cores

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from data_manifests.wider_face import AnnotatedImage
    from training.factor_net.config import FactorNetConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops:
    """N faces of one part of WIDER FACE.

    Attributes:
        images: uint8 [N, 112, 112, 3], RGB.
        truth: bool [N, 3] in the order of `Head`; True is the worse class.
        aligned: bool [N], whether the face was aligned by its landmarks; otherwise its box was cut out.
        invalid: faces left out because the annotators, or a box without area, say that they cannot be used.
        small: faces left out because their box is too small.
    """

    images: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    aligned: NDArray[np.bool_]
    invalid: int
    small: int

    def __len__(self) -> int:
        return len(self.images)


def attributes(face: Face) -> tuple[bool, bool, bool]:
    """What the heads have to tell of a face, in the order of `Head`.

    Partly and heavily occluded faces both count as obstructed, as in CLIB-FIQA's released classifier.
    """
    return (
        face.occlusion is not Occlusion.NONE,
        face.expression is Expression.EXAGGERATED,
        face.illumination is Illumination.EXTREME,
    )


def read_crops(root: Path, split: Split, config: FactorNetConfig) -> Crops:
    """Cut out every usable face of one part of WIDER FACE, in the order of its annotation.

    Raises:
        WiderFaceError: if annotation or photos are missing or damaged, or if an attribute has one class only, which
            can be neither learned nor judged; names the file or the attribute.
        WeightsError, RegistryError, DetectorError: if faces are to be aligned and there is no face detector.
    """
    photos = read_split(root, split)
    faces = [face for photo in photos for face in photo.faces]
    usable = [face for face in faces if face.usable]
    wanted = [face for face in usable if _is_large(face, config)]
    truth = np.array([attributes(face) for face in wanted], np.bool_).reshape(-1, len(Head))
    _check_classes(truth, root, split)
    images = np.empty((len(wanted), SIDE, SIDE, 3), np.uint8)
    aligned = np.zeros(len(wanted), np.bool_)
    detectors = _Detectors() if config.align else None
    with ThreadPoolExecutor(share_of_cores()) as pool:
        row = 0
        for cut in pool.map(lambda photo: _cut_faces(photo, config, detectors), photos):
            for images[row], aligned[row] in cut:
                row += 1
    crops = Crops(
        images=images, truth=truth, aligned=aligned, invalid=len(faces) - len(usable), small=len(usable) - len(wanted)
    )
    log.info("%s: %d faces, %d invalid and %d too small left out", split, len(crops), crops.invalid, crops.small)
    if config.align:
        found = int(aligned.sum())
        log.info("%s: %d faces aligned by their landmarks, %d by their box", split, found, len(crops) - found)
    return crops


class _Detectors(threading.local):
    """A face detector for every thread, since each serves one caller at a time."""

    def __init__(self) -> None:
        self.own = FaceDetector(fetch(load_registry().get(DETECTOR, Kind.DETECTOR))[0])


def _is_large(face: Face, config: FactorNetConfig) -> bool:
    return max(face.width, face.height) >= config.smallest_px


def _cut_faces(
    photo: AnnotatedImage, config: FactorNetConfig, detectors: _Detectors | None
) -> list[tuple[NDArray[np.uint8], bool]]:
    """The crops of one photo, and whether each is aligned; one without a wanted face is not opened."""
    wanted = [face for face in photo.faces if face.usable and _is_large(face, config)]
    if not wanted:
        return []
    try:
        image = decode(photo.path.read_bytes())
        if detectors is None:
            return [(crop_face(image, face, config.margin), False) for face in wanted]
        return [align_face(image, face, detectors.own) for face in wanted]
    except DecodeError as error:
        raise WiderFaceError(f"{photo.path} does not decode ({error}): unpack the photos again") from error
    except WiderFaceError as error:
        raise WiderFaceError(f"{photo.path}: {error}") from error


def align_face(image: NDArray[np.uint8], face: Face, detector: FaceDetector) -> tuple[NDArray[np.uint8], bool]:
    """Align a face to the ArcFace template where its landmarks are found inside its box; else cut its box out.

    Args:
        image: the photo, uint8 [H, W, 3], RGB.
        face: its box must have an area and touch the photo.
        detector: finds the landmarks.

    Returns:
        The face, uint8 [112, 112, 3], and whether it is aligned.

    Raises:
        WiderFaceError: if the box does not fit the photo.
    """
    framed = frame_face(image, face)
    box = np.array([face.x, face.y, face.x + face.width, face.y + face.height], np.float64)
    landmarks = detector.locate_in(image, box)  # [5, 2]
    if landmarks is None or not ((landmarks >= box[:2]) & (landmarks <= box[2:])).all():
        return framed, False
    try:
        return align(image, landmarks), True
    except AlignmentError:  # five points in which no turn sees a face
        return framed, False


def _check_classes(truth: NDArray[np.bool_], root: Path, split: Split) -> None:
    """Both classes of every head must occur."""
    for head, column in zip(Head, truth.T, strict=True):
        if column.all() or not column.any():
            raise WiderFaceError(
                f"{root}, {split}: of {len(column)} usable faces {int(column.sum())} are positive for {head}, "
                "but both classes are needed: use annotation in which both occur"
            )
