"""Faces of WIDER FACE as crops with the attributes that the network learns."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.wider_face import (
    Expression,
    Face,
    Illumination,
    Occlusion,
    Split,
    WiderFaceError,
    crop_face,
    read_split,
)
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
        invalid: faces left out because the annotators, or a box without area, say that they cannot be used.
        small: faces left out because their box is too small.
    """

    images: NDArray[np.uint8]
    truth: NDArray[np.bool_]
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
    """
    photos = read_split(root, split)
    faces = [face for photo in photos for face in photo.faces]
    usable = [face for face in faces if face.usable]
    wanted = [face for face in usable if _is_large(face, config)]
    truth = np.array([attributes(face) for face in wanted], np.bool_).reshape(-1, len(Head))
    _check_classes(truth, root, split)
    images = np.empty((len(wanted), SIDE, SIDE, 3), np.uint8)
    with ThreadPoolExecutor(share_of_cores()) as pool:
        row = 0
        for cut in pool.map(lambda photo: _cut_faces(photo, config), photos):
            images[row : row + len(cut)] = np.asarray(cut).reshape(-1, SIDE, SIDE, 3)
            row += len(cut)
    crops = Crops(images=images, truth=truth, invalid=len(faces) - len(usable), small=len(usable) - len(wanted))
    log.info("%s: %d faces, %d invalid and %d too small left out", split, len(crops), crops.invalid, crops.small)
    return crops


def _is_large(face: Face, config: FactorNetConfig) -> bool:
    return max(face.width, face.height) >= config.smallest_px


def _cut_faces(photo: AnnotatedImage, config: FactorNetConfig) -> list[NDArray[np.uint8]]:
    """The crops of one photo; one without a wanted face is not opened."""
    wanted = [face for face in photo.faces if face.usable and _is_large(face, config)]
    if not wanted:
        return []
    try:
        image = decode(photo.path.read_bytes())
        return [crop_face(image, face, config.margin) for face in wanted]
    except DecodeError as error:
        raise WiderFaceError(f"{photo.path} does not decode ({error}): unpack the photos again") from error
    except WiderFaceError as error:
        raise WiderFaceError(f"{photo.path}: {error}") from error


def _check_classes(truth: NDArray[np.bool_], root: Path, split: Split) -> None:
    """Both classes of every head must occur."""
    for head, column in zip(Head, truth.T, strict=True):
        if column.all() or not column.any():
            raise WiderFaceError(
                f"{root}, {split}: of {len(column)} usable faces {int(column.sum())} are positive for {head}, "
                "but both classes are needed: use annotation in which both occur"
            )
