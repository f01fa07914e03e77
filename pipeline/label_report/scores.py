"""The scores that a page shows, in its words."""

from __future__ import annotations

from dataclasses import dataclass

from data_manifests.tables.stages import LABELS, Factor

ABSOLUTE_YAW = "abs_yaw_deg"
"""The size of the yaw, of which the classes of pose are made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A column of the labels, or the size of one.

    Attributes:
        column: its name.
        title: as a heading.
        digits: decimals shown.
        unit: behind a number.
        ends: the axis, where it is the same for every data set.
        logarithmic: whether its bars are of very different heights.
    """

    column: str
    title: str
    digits: int = 3
    unit: str = ""
    ends: tuple[float, float] | None = None
    logarithmic: bool = False

    @property
    def source(self) -> str:
        """The column of the labels that it is read from."""
        return "yaw_deg" if self.column == ABSOLUTE_YAW else self.column

    @property
    def meaning(self) -> str:
        """What it is, from the description of the tables."""
        return LABELS.column(self.source).text

    def show(self, value: float) -> str:
        """A value as text; a zero has no sign."""
        return f"{round(value, self.digits) + 0.0:.{self.digits}f}{self.unit}"


_WHOLE = (0.0, 1.0)
_ALL = (
    Score(column="cpbd", title="cpbd", ends=_WHOLE),
    Score(column="sobel", title="sobel"),
    Score(column="yaw_deg", title="yaw", digits=1, unit="°"),
    Score(column=ABSOLUTE_YAW, title="yaw, to either side", digits=1, unit="°"),
    Score(column="pitch_deg", title="pitch", digits=1, unit="°"),
    Score(column="roll_deg", title="roll", digits=1, unit="°"),
    Score(column="p_obstructed", title="p(obstructed)", ends=_WHOLE, logarithmic=True),
    Score(column="p_exaggerated", title="p(exaggerated)", ends=_WHOLE, logarithmic=True),
    Score(column="p_extreme_lighting", title="p(extreme lighting)", ends=_WHOLE, logarithmic=True),
    Score(column="norm", title="norm", digits=2),
    Score(column="ccs", title="ccs"),
    Score(column="nnccs", title="nnccs"),
    Score(column="certainty_ratio", title="certainty ratio"),
    Score(column="quality", title="quality", ends=_WHOLE),
)

SCORES = {score.column: score for score in _ALL}

SHOWN = tuple(score for score in _ALL if score.column != ABSOLUTE_YAW)
"""What has a picture and stands on a face's card: the columns as they are."""

FACTOR_TEXTS = {
    Factor.BLUR: "How sharp the picture is.",
    Factor.OCCLUSION: "Whether something covers the face: a mask, glasses, a hand, hair.",
    Factor.POSE: "How far the head is turned to the side, in degrees of yaw to either side.",
    Factor.EXPRESSION: "Whether the face makes an exaggerated expression, such as a laugh or a grimace.",
    Factor.LIGHTING: "Whether the light is extreme: too dark, too bright, or from the side.",
}
