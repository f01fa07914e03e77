"""The rules of the labels: thresholds and how the released code differs, and the classes that they make of measures."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_manifests.manifest import Anchor  # noqa: TC001 - pydantic reads the annotation
from data_manifests.recipes import Recipe
from data_manifests.storage.values import Number  # noqa: TC001 - likewise
from data_manifests.tables.stages import Factor
from labelers.levels import NULL, binary_level, blur_level, pose_level

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


class BlurSource(StrEnum):
    """The score that the blur classes are made of."""

    CPBD = "cpbd"
    SOBEL = "sobel"


class Normalise(StrEnum):
    """How the anchor is brought to [0, 1]."""

    MINMAX = "minmax"
    QUANTILE = "quantile"


class MissingPose(StrEnum):
    """The pose class of an image without a face."""

    NULL = "null"
    PROFILE = "profile"


class Section(BaseModel):
    """A frozen section of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LabelSettings(Section):
    """Thresholds: they decide the labels stage alone, so changing one costs seconds."""

    recipe: Recipe = Recipe.PAPER
    """whose rules: paper (the printed equations) or released (the authors' code); gives the values of settings
    left empty"""
    blur_source: BlurSource
    """score of the blur classes: cpbd (paper) or sobel (released)"""
    blur_hazy: Number = Field(0.35, ge=0)
    """below: hazy (CLIB-FIQA section 4.1)"""
    blur_clear: Number = Field(0.7, ge=0)
    """above: clear"""
    yaw_frontal: Number = Field(10.0, ge=0, le=180)
    """absolute yaw in degrees; below: frontal"""
    yaw_profile: Number = Field(25.0, ge=0, le=180)
    """absolute yaw in degrees; above: profile"""
    worse_probability: Number = Field(0.5, ge=0, le=1)
    """from this probability on: obstructed, exaggerated expression, extreme lighting"""
    missing_pose: MissingPose
    """pose class of an image in which no face was found: null (paper) or profile (released)"""
    anchor: Anchor
    """ratio that becomes the quality: certainty_ratio (CR-FIQA Eq. 4, paper) or plain_ratio (released)"""
    normalise: Normalise = Normalise.MINMAX
    """how the anchor is brought to [0, 1]: minmax, or quantile (0.1 % and 99.9 %, clipped)"""

    @model_validator(mode="before")
    @classmethod
    def _follow_recipe(cls, values: dict[str, Any]) -> dict[str, Any]:
        """What is left empty is as the recipe says."""
        return _BY_RECIPE[Recipe(values.get("recipe", Recipe.PAPER))] | {n: v for n, v in values.items() if v != ""}

    @model_validator(mode="after")
    def _ordered(self) -> LabelSettings:
        """Thresholds of a factor stand in their order."""
        for low, high in (("blur_hazy", "blur_clear"), ("yaw_frontal", "yaw_profile")):
            below, above = getattr(self, low), getattr(self, high)
            if not below < above:
                raise ValueError(f"{low} = {below} must lie below {high} = {above}")
        return self


_BY_RECIPE: dict[Recipe, dict[str, Any]] = {
    Recipe.PAPER: {"blur_source": "cpbd", "missing_pose": "null", "anchor": "certainty_ratio"},
    Recipe.RELEASED: {"blur_source": "sobel", "missing_pose": "profile", "anchor": "plain_ratio"},
}
"""What each recipe means for the settings that are left empty (docs/fidelity.md)."""


CLASSIFIED = ("cpbd", "sobel", "yaw_deg", "p_obstructed", "p_exaggerated", "p_extreme_lighting")
"""The measures that classes are made of."""


def classify(
    scores: Mapping[str, NDArray[np.float32]], looked_at: NDArray[np.bool_], settings: LabelSettings
) -> dict[Factor, NDArray[np.int8]]:
    """The class of every factor as an index into CLASSES; -1 where there is none.

    Args:
        scores: the columns named in CLASSIFIED, each [N], NaN for null.
        looked_at: bool [N], whether a face was looked for: `missing_pose` speaks of faces that were not found, not of
            images that could not be read.
        settings: thresholds and rules.
    """
    worse = settings.worse_probability
    classes = {
        Factor.BLUR: blur_level(
            scores[settings.blur_source.value], settings.blur_hazy, settings.blur_clear, recipe=settings.recipe
        ),
        Factor.OCCLUSION: binary_level(scores["p_obstructed"], worse),
        Factor.POSE: pose_level(
            scores["yaw_deg"],
            settings.yaw_frontal,
            settings.yaw_profile,
            recipe=settings.recipe,
            missing=None if settings.missing_pose is MissingPose.NULL else "profile",
        ),
        Factor.EXPRESSION: binary_level(scores["p_exaggerated"], worse),
        Factor.LIGHTING: binary_level(scores["p_extreme_lighting"], worse),
    }
    classes[Factor.POSE][~looked_at] = NULL
    return classes
