"""Aligned faces: five landmarks, the ArcFace template, and the similarity transform between them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SIDE = 112
"""Height and width in pixels of the picture that `ARCFACE_TEMPLATE` is laid out for."""

ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    dtype=np.float32,
)
"""Where the landmarks of an aligned face lie, float32 [5, 2], x then y in pixels of a 112 x 112 picture.

The order is the picture's, not the person's: left eye, right eye, nose tip, left and right corner of the mouth. Source:
the template of ArcFace (Deng et al. 2019) and InsightFace, by which MS1MV2 and the benchmarks were cut.
"""
ARCFACE_TEMPLATE.setflags(write=False)


_FARTHEST = 1e6
"""Landmarks lie within so many pixels of a picture's corner; beyond, they are no pixels of any picture."""

_WORST_FIT = 1e-6
"""The landmarks' correlation with the turned template, 1 for a perfect fit, at which the turn becomes arbitrary."""


class AlignmentError(ValueError):
    """The landmarks do not fix a similarity transform, or there is no picture to align."""


def similarity_transform(landmarks: ArrayLike) -> NDArray[np.float64]:
    """The turn, scale and shift that bring five landmarks closest to the ArcFace template, in least squares.

    Mirroring is never part of it, as in InsightFace.

    Args:
        landmarks: [5, 2], x then y in pixels of the picture, in the order of `ARCFACE_TEMPLATE`.

    Returns:
        float64 [2, 3]: template = matrix @ (x, y, 1).

    Raises:
        AlignmentError: if the shape differs, a value is not finite or no pixel of a picture, all landmarks lie on one
            spot, or no turn brings them closer to the template than another.

    Source: Umeyama 1991, Eq. 34 to 43.
    """
    source = _check_landmarks(landmarks)  # [5, 2]
    target = ARCFACE_TEMPLATE.astype(np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_centred, target_centred = source - source_mean, target - target_mean
    variance, target_variance = (
        float(np.square(points).sum()) / len(points) for points in (source_centred, target_centred)
    )
    if variance <= 1e-12 * max(1.0, float(np.abs(source).max()) ** 2):
        raise AlignmentError(f"the five landmarks lie on one spot, {source_mean.tolist()}: there is no face to align")
    left, singular, right = np.linalg.svd(target_centred.T @ source_centred / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    covariance = float((singular * signs).sum())
    if covariance <= _WORST_FIT * math.sqrt(variance * target_variance):
        raise AlignmentError(f"the landmarks {source.tolist()} fit a face in no turn: check their order")
    rotation = (left * signs) @ right
    scale = covariance / variance
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])


def _check_landmarks(landmarks: ArrayLike) -> NDArray[np.float64]:
    """The landmarks as float64 [5, 2]."""
    try:
        points = np.asarray(landmarks, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise AlignmentError(f"the landmarks are not numbers [5, 2] ({error}): give x, y in pixels") from error
    if points.shape != ARCFACE_TEMPLATE.shape:
        raise AlignmentError(f"expected five landmarks [5, 2] as x, y in pixels, not {list(points.shape)}")
    if not (np.abs(points) <= _FARTHEST).all():
        raise AlignmentError(f"the landmarks {points.tolist()} are not pixels of a picture: leave the face out")
    return points


def align(image_rgb: NDArray[np.uint8], landmarks: ArrayLike, size: int = SIDE) -> NDArray[np.uint8]:
    """Cut an aligned face out of a photo: bilinear, black where the photo ends.

    Args:
        image_rgb: uint8 [H, W, 3].
        landmarks: [5, 2], see `similarity_transform`.
        size: height and width of the result in pixels; the template scales with it.

    Returns:
        uint8 [size, size, 3], same colour order as `image_rgb`.

    Raises:
        AlignmentError: if the landmarks do not fix a transform, or the photo's shape or the size is out of range.
    """
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8 or not image_rgb.size:
        raise AlignmentError(f"the photo must be uint8 [H, W, 3], not {image_rgb.dtype} {list(image_rgb.shape)}")
    if size < 1:
        raise AlignmentError(f"the aligned face must be at least 1 pixel high and wide, not {size}")
    matrix = similarity_transform(landmarks) * (size / SIDE)
    aligned = cv2.warpAffine(image_rgb, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=(0.0, 0.0, 0.0))
    return np.asarray(aligned, dtype=np.uint8)
