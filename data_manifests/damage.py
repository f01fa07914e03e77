"""Damage of known kind and strength: what makes a face image poor, painted on purpose.

They serve the embedded sample, and tests that hold a labeler to the order: more damage, no better measure. The kinds
are the usual ones (blur, resolution, compression and light as in Hendrycks & Dietterich 2019; drawn masks, glasses and
patches as in masked-face benchmarks); the strengths were chosen by eye, from just visible to hardly a face. Masks and
glasses are drawn at the landmarks of the ArcFace template, so the faces must be aligned.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from data_manifests.alignment import ARCFACE_TEMPLATE, SIDE

if TYPE_CHECKING:
    from collections.abc import Callable

Image = NDArray[np.uint8]


class Damage(StrEnum):
    """The kinds of damage."""

    GAUSSIAN = "gaussian"
    MOTION = "motion"
    LOWRES = "lowres"
    JPEG = "jpeg"
    DARK = "dark"
    OVER = "over"
    SIDE = "side"
    BOX = "box"
    MASK = "mask"
    GLASSES = "glasses"


def apply(image: Image, kind: Damage, severity: float, rng: np.random.Generator) -> Image:
    """Damage an image, which itself stays as it is.

    Args:
        image: uint8 [112, 112, 3] RGB.
        kind: what to do.
        severity: 0 changes nothing, 1 is the worst.
        rng: chooses directions, places and colours.

    Returns:
        uint8 [112, 112, 3] RGB.

    Raises:
        ValueError: if the severity is not in [0, 1], or the image is none of an aligned face.
    """
    if image.shape != (SIDE, SIDE, 3) or image.dtype != np.uint8:
        raise ValueError(f"the image must be uint8 [{SIDE}, {SIDE}, 3], not {image.dtype} {list(image.shape)}")
    if not 0.0 <= severity <= 1.0:
        raise ValueError(f"severity {severity} of {kind.value} is not in 0 to 1")
    return image.copy() if severity == 0.0 else _KINDS[kind](image, severity, rng)


def _gaussian(image: Image, severity: float, _: np.random.Generator) -> Image:
    """Out of focus: a Gaussian of up to 3.5 pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.3 + 3.2 * severity), np.uint8)


def _motion(image: Image, severity: float, rng: np.random.Generator) -> Image:
    """Shaken: a line of up to 19 pixels in a random direction."""
    half = round(1 + 8 * severity)
    size = 2 * half + 1
    angle = rng.uniform(0.0, np.pi)
    kernel = np.zeros((size, size), np.float32)
    end = np.round(half * np.array([np.cos(angle), np.sin(angle)])).astype(int)
    cv2.line(kernel, tuple(map(int, half - end)), tuple(map(int, half + end)), 1.0)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), np.uint8)


def _lowres(image: Image, severity: float, _: np.random.Generator) -> Image:
    """Taken from afar: reduced to as few as 14 pixels and enlarged again."""
    side = image.shape[0]
    small = round(side / (1 + 7 * severity))
    reduced = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(reduced, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def _jpeg(image: Image, severity: float, _: np.random.Generator) -> Image:
    """Compressed hard: JPEG quality down to 4."""
    quality = round(40 - 36 * severity)
    encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB), np.uint8)


def _dark(image: Image, severity: float, rng: np.random.Generator) -> Image:
    """Little light: scaled down to a twelfth, with the sensor's noise."""
    light = image.astype(np.float32) * (1 - 0.92 * severity)
    return _to_bytes(light + rng.normal(0.0, 4.0 * severity, image.shape))


def _over(image: Image, severity: float, _: np.random.Generator) -> Image:
    """Too much light: scaled up to threefold and cut off."""
    return _to_bytes(image.astype(np.float32) * (1 + 2 * severity) + 60 * severity)


def _side(image: Image, severity: float, rng: np.random.Generator) -> Image:
    """Light from one side: the other falls to a tenth."""
    ramp = np.linspace(1.0, 1.0 - 0.9 * severity, image.shape[1], dtype=np.float32)
    if rng.random() < 0.5:
        ramp = ramp[::-1]
    return _to_bytes(image.astype(np.float32) * ramp[None, :, None])


def _box(image: Image, severity: float, rng: np.random.Generator) -> Image:
    """Something before the face: a box of up to two thirds of the side."""
    side = image.shape[0]
    extent = round(side * (0.25 + 0.42 * severity))
    left, top = (int(v) for v in rng.integers(10, side - 10 - extent + 1, 2))
    damaged = image.copy()
    damaged[top : top + extent, left : left + extent] = rng.integers(0, 256, 3, dtype=np.uint8)
    return damaged


def _mask(image: Image, severity: float, rng: np.random.Generator) -> Image:
    """A mask over mouth and nose, reaching higher with the severity."""
    nose, mouth = ARCFACE_TEMPLATE[2], ARCFACE_TEMPLATE[3:].mean(axis=0)
    top = float(mouth[1] - 6 - severity * (mouth[1] - nose[1] + 8))
    outline = np.array([[20, top + 6], [56, top - 4], [92, top + 6], [86, 104], [56, 111], [26, 104]])
    return _fill(image, outline, rng)


def _glasses(image: Image, severity: float, rng: np.random.Generator) -> Image:
    """Dark glasses, larger and darker with the severity."""
    damaged = image.copy()
    radii = (round(9 + 7 * severity), round(7 + 5 * severity))
    tint = rng.integers(0, 40, 3).tolist()
    left, right = ([round(v) for v in eye.tolist()] for eye in ARCFACE_TEMPLATE[:2])
    for centre in (left, right):
        cv2.ellipse(damaged, centre, radii, 0.0, 0.0, 360.0, tint, -1, cv2.LINE_AA)
    cv2.line(damaged, left, right, tint, 2, cv2.LINE_AA)
    opaque = 0.5 + 0.5 * severity
    return _to_bytes(opaque * damaged.astype(np.float32) + (1 - opaque) * image)


def _fill(image: Image, outline: NDArray[np.floating], rng: np.random.Generator) -> Image:
    """Paint a polygon, [K, 2] in pixels, in one random colour."""
    damaged = image.copy()
    cv2.fillPoly(damaged, [outline.round().astype(np.int32)], rng.integers(0, 256, 3).tolist(), cv2.LINE_AA)
    return damaged


def _to_bytes(values: NDArray[np.floating]) -> Image:
    """Rounded and cut to 0..255."""
    clipped: Image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return clipped


_KINDS: dict[Damage, Callable[[Image, float, np.random.Generator], Image]] = {
    Damage.GAUSSIAN: _gaussian,
    Damage.MOTION: _motion,
    Damage.LOWRES: _lowres,
    Damage.JPEG: _jpeg,
    Damage.DARK: _dark,
    Damage.OVER: _over,
    Damage.SIDE: _side,
    Damage.BOX: _box,
    Damage.MASK: _mask,
    Damage.GLASSES: _glasses,
}
