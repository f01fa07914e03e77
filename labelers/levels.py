"""From measures to classes: thresholds, compared in single precision as the measures are stored (CLIB-FIQA 4.1).

A class is an int8 code, the index into `data_manifests.tables.stages.CLASSES`: 0 is the worst. A measure that is null
(NaN) has the code -1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.recipes import Recipe
from data_manifests.tables.stages import CLASSES, Factor

if TYPE_CHECKING:
    from numpy.typing import NDArray

NULL = -1
"""Code of a row without a class."""


def blur_level(
    score: NDArray[np.float32], low: float = 0.35, high: float = 0.7, recipe: Recipe = Recipe.PAPER
) -> NDArray[np.int8]:
    """Class of blur: 0 hazy, 1 blurry, 2 clear (thresholds: CLIB-FIQA section 4.1).

    Args:
        score: float32 [N], CPBD or the Sobel score; NaN for null.
        low: under it the face is hazy.
        high: over it the face is clear.
        recipe: PAPER: low and high themselves are blurry. RELEASED: low is blurry, high is clear.

    Returns:
        int8 [N], -1 for null.

    Raises:
        ValueError: if the thresholds are not finite or not in order.
    """
    floor, ceiling = _check_order("low", low, "high", high)
    values = np.asarray(score, np.float32)
    clear = values >= ceiling if Recipe(recipe) is Recipe.RELEASED else values > ceiling
    return _select(values, best=clear, worst=values < floor)


def pose_level(
    yaw_deg: NDArray[np.float32],
    frontal: float = 10.0,
    profile: float = 25.0,
    recipe: Recipe = Recipe.PAPER,
    missing: str | None = None,
) -> NDArray[np.int8]:
    """Class of pose by the absolute yaw: 0 profile, 1 slight angle, 2 frontal (thresholds: CLIB-FIQA section 4.1).

    Args:
        yaw_deg: float32 [N], in degrees of either sign; NaN where no face was found.
        frontal: under it the face is frontal.
        profile: over it the face is in profile.
        recipe: PAPER: both thresholds themselves are a slight angle. RELEASED: `frontal` itself is frontal.
        missing: the class of a face without yaw; None leaves it null, "profile" is what the released code does.

    Returns:
        int8 [N], -1 for null.

    Raises:
        ValueError: if the thresholds are not finite or not in order, or `missing` names no class of pose.
    """
    near, far = _check_order("frontal", frontal, "profile", profile)
    classes = CLASSES[Factor.POSE]
    if missing is not None and missing not in classes:
        raise ValueError(f"missing pose cannot become {missing!r}: leave it null (None) or name one of {classes}")
    yaw = np.abs(np.asarray(yaw_deg, np.float32))
    ahead = yaw <= near if Recipe(recipe) is Recipe.RELEASED else yaw < near
    code = NULL if missing is None else classes.index(missing)
    return _select(yaw, best=ahead, worst=yaw > far, null=code)


def binary_level(p: NDArray[np.float32], threshold: float = 0.5) -> NDArray[np.int8]:
    """Class of occlusion, expression or lighting: 0 the worse, 1 the better.

    Args:
        p: float32 [N], probability of the worse class; NaN for null.
        threshold: from it on, itself included, the face has the worse class.

    Returns:
        int8 [N], -1 for null.

    Raises:
        ValueError: if the threshold is not within [0, 1].
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold = {threshold} is not a probability: set it within 0 and 1 (default 0.5)")
    values = np.asarray(p, np.float32)
    levels = (values < np.float32(threshold)).astype(np.int8)
    levels[np.isnan(values)] = NULL
    return levels


def _select(
    values: NDArray[np.float32], *, best: NDArray[np.bool_], worst: NDArray[np.bool_], null: int = NULL
) -> NDArray[np.int8]:
    """Codes of three classes: 2 where best, 0 where worst, 1 between, `null` where there is no value."""
    levels = np.ones(values.shape, np.int8)
    levels[best] = 2
    levels[worst] = 0
    levels[np.isnan(values)] = null
    return levels


def _check_order(small_name: str, small: float, large_name: str, large: float) -> tuple[np.float32, np.float32]:
    """The two thresholds in single precision, if they leave room for a class between them."""
    if not (math.isfinite(small) and math.isfinite(large) and np.float32(small) < np.float32(large)):
        raise ValueError(
            f"thresholds {small_name} = {small} and {large_name} = {large} leave no class between them: "
            f"set both to finite numbers with {small_name} < {large_name}"
        )
    return np.float32(small), np.float32(large)
