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


class LabelRecipe(StrEnum):
    """Whose rules the labels follow."""

    PAPER = "paper"
    """The printed equations."""
    RELEASED = "released"
    """What the authors' public code computes."""
    ROBUST = "robust"
    """As `paper`, with a class of blur that follows known blur (docs/labels.md)."""


class BlurSource(StrEnum):
    """The score that the blur classes are made of."""

    CPBD = "cpbd"
    SOBEL = "sobel"
    EDGE_RATIO = "edge_ratio"


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

    recipe: LabelRecipe = LabelRecipe.PAPER
    """whose rules: paper (the printed equations), released (the authors' code), or robust (as paper, with a class of
    blur that follows known blur); gives the values of settings left empty"""
    blur_source: BlurSource
    """score of the blur classes: cpbd (paper), sobel (released) or edge_ratio (robust)"""
    blur_hazy: Number = Field(ge=0)
    """below: hazy; 0.35 (paper, released; CLIB-FIQA section 4.1) or 1.15 (robust)"""
    blur_clear: Number = Field(ge=0)
    """above: clear; 0.7 (paper, released) or 1.28 (robust)"""
    yaw_frontal: Number = Field(10.0, ge=0, le=180)
    """absolute yaw in degrees; below: frontal"""
    yaw_profile: Number = Field(25.0, ge=0, le=180)
    """absolute yaw in degrees; above: profile"""
    worse_probability: Number = Field(0.5, ge=0, le=1)
    """from this probability on: obstructed, exaggerated expression, extreme lighting"""
    missing_pose: MissingPose
    """pose class of an image in which no face was found: null (paper, robust) or profile (released)"""
    anchor: Anchor
    """ratio that becomes the quality: certainty_ratio (CR-FIQA Eq. 4; paper, robust) or plain_ratio (released)"""
    normalise: Normalise = Normalise.MINMAX
    """how the anchor is brought to [0, 1]: minmax, or quantile (0.1 % and 99.9 %, clipped)"""

    @model_validator(mode="before")
    @classmethod
    def _follow_recipe(cls, values: dict[str, Any]) -> dict[str, Any]:
        """What is left empty is as the recipe says."""
        return BY_RECIPE[LabelRecipe(values.get("recipe", "paper"))] | {n: v for n, v in values.items() if v != ""}

    @model_validator(mode="after")
    def _ordered(self) -> LabelSettings:
        """Thresholds of a factor stand in their order."""
        for low, high in (("blur_hazy", "blur_clear"), ("yaw_frontal", "yaw_profile")):
            below, above = getattr(self, low), getattr(self, high)
            if not below < above:
                raise ValueError(f"{low} = {below} must lie below {high} = {above}")
        return self

    @model_validator(mode="after")
    def _fit_source(self) -> LabelSettings:
        """Thresholds of CPBD, as an older luigi.cfg has them, would call every edge ratio clear."""
        if self.blur_source is BlurSource.EDGE_RATIO and self.blur_clear <= 1:
            raise ValueError(
                f"blur_clear = {self.blur_clear} is a threshold of cpbd, and edge_ratio is hardly ever under 1: leave "
                "blur_hazy and blur_clear empty, or give thresholds of edge_ratio"
            )
        return self

    @property
    def boundaries(self) -> Recipe:
        """Whose rule says to which class a threshold itself belongs."""
        return Recipe.RELEASED if self.recipe == LabelRecipe.RELEASED else Recipe.PAPER


_PAPER = {
    "blur_source": "cpbd", "blur_hazy": 0.35, "blur_clear": 0.7, "missing_pose": "null", "anchor": "certainty_ratio"
}  # fmt: skip
BY_RECIPE: dict[LabelRecipe, dict[str, Any]] = {
    LabelRecipe.PAPER: _PAPER,
    LabelRecipe.RELEASED: _PAPER | {"blur_source": "sobel", "missing_pose": "profile", "anchor": "plain_ratio"},
    LabelRecipe.ROBUST: _PAPER | {"blur_source": "edge_ratio", "blur_hazy": 1.15, "blur_clear": 1.28},
}
"""What each recipe means for the settings that are left empty (docs/fidelity.md); the thresholds of `robust` are from
`python -m benchmarks.blur_recipes`."""


CLASSIFIED = ("cpbd", "sobel", "edge_ratio", "yaw_deg", "p_obstructed", "p_exaggerated", "p_extreme_lighting")
"""The measures that classes are made of; `edge_ratio` is there only where it was asked for."""


def classify(
    scores: Mapping[str, NDArray[np.float32]], looked_at: NDArray[np.bool_], settings: LabelSettings
) -> dict[Factor, NDArray[np.int8]]:
    """The class of every factor as an index into CLASSES; -1 where there is none.

    Args:
        scores: those of the columns named in CLASSIFIED that there are, each [N], NaN for null.
        looked_at: bool [N], whether a face was looked for: `missing_pose` speaks of faces that were not found, not of
            images that could not be read.
        settings: thresholds and rules.
    """
    worse = settings.worse_probability
    classes = {
        Factor.BLUR: blur_level(
            scores[settings.blur_source.value], settings.blur_hazy, settings.blur_clear, recipe=settings.boundaries
        ),
        Factor.OCCLUSION: binary_level(scores["p_obstructed"], worse),
        Factor.POSE: pose_level(
            scores["yaw_deg"],
            settings.yaw_frontal,
            settings.yaw_profile,
            recipe=settings.boundaries,
            missing=None if settings.missing_pose is MissingPose.NULL else "profile",
        ),
        Factor.EXPRESSION: binary_level(scores["p_exaggerated"], worse),
        Factor.LIGHTING: binary_level(scores["p_extreme_lighting"], worse),
    }
    classes[Factor.POSE][~looked_at] = NULL
    return classes
