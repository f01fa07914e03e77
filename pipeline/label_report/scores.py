"""The scores that a page shows, and how thresholds split them into classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_manifests.recipes import Recipe
from data_manifests.tables.stages import CLASSES, LABELS, Factor
from labelers.rules import LabelSettings, MissingPose
from pipeline.label_report.ranked import Rule, Sorted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        start: where the axis begins, unless there are smaller values.
        logarithmic: whether its bars are of very different heights.
    """

    column: str
    title: str
    digits: int = 3
    unit: str = ""
    ends: tuple[float, float] | None = None
    start: float = 0.0
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
    Score(column="edge_ratio", title="edge ratio", start=1.0),
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

_MARKS = 250
"""Places of a slider at least; ten times as many at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A class at one end of a score.

    Attributes:
        threshold: the setting that bounds it.
        rule: how its values compare with the threshold.
    """

    threshold: str
    rule: Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The classes of one factor.

    Attributes:
        factor: which.
        score: what is cut.
        worst: the class of index 0.
        best: the last class, where there are three; of two, the best is the rest.
        missing: whether images without a score are of the worst class.
    """

    factor: Factor
    score: Score
    worst: Side
    best: Side | None = None
    missing: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, the worst first."""
        return CLASSES[self.factor]

    @property
    def thresholds(self) -> tuple[str, ...]:
        """The settings that cut it, from small to large values."""
        sides = [self.worst, *filter(None, [self.best])]
        if self.best is not None and self.worst.rule in {Rule.ABOVE, Rule.FROM}:
            sides.reverse()
        return tuple(side.threshold for side in sides)

    @property
    def along(self) -> tuple[int, ...]:
        """The classes' indices from small to large values."""
        places = tuple(range(len(self.classes)))
        return places if self.worst.rule in {Rule.BELOW, Rule.UP_TO} else places[::-1]

    def side_of(self, threshold: str) -> int:
        """The index of the class that a threshold bounds from outside."""
        return 0 if threshold == self.worst.threshold else len(self.classes) - 1

    def describe(self, place: int, values: Mapping[str, float]) -> str:
        """A class's range in words."""
        texts = {name: f"{values[name]:g}{self.score.unit}" for name in self.thresholds}
        if self.best is not None and place == 1:
            return " to ".join(texts.values())
        side = self.worst if place == 0 else self.best
        if side is None:
            return f"under {texts[self.worst.threshold]}"
        words = {Rule.BELOW: "under", Rule.UP_TO: "up to", Rule.ABOVE: "over", Rule.FROM: "from"}
        return f"{words[side.rule]} {texts[side.threshold]}"


def build_splits(settings: LabelSettings) -> tuple[Split, ...]:
    """The splits of all factors, as labelers/levels.py compares (docs/fidelity.md)."""
    released = settings.boundaries is Recipe.RELEASED
    probabilities = {
        Factor.OCCLUSION: "p_obstructed",
        Factor.EXPRESSION: "p_exaggerated",
        Factor.LIGHTING: "p_extreme_lighting",
    }
    splits = {
        Factor.BLUR: Split(
            factor=Factor.BLUR,
            score=SCORES[settings.blur_source.value],
            worst=Side(threshold="blur_hazy", rule=Rule.BELOW),
            best=Side(threshold="blur_clear", rule=Rule.FROM if released else Rule.ABOVE),
        ),
        Factor.POSE: Split(
            factor=Factor.POSE,
            score=SCORES[ABSOLUTE_YAW],
            worst=Side(threshold="yaw_profile", rule=Rule.ABOVE),
            best=Side(threshold="yaw_frontal", rule=Rule.UP_TO if released else Rule.BELOW),
            missing=settings.missing_pose is MissingPose.PROFILE,
        ),
    }
    for factor, column in probabilities.items():
        worst = Side(threshold="worse_probability", rule=Rule.FROM)
        splits[factor] = Split(factor=factor, score=SCORES[column], worst=worst)
    return tuple(splits[factor] for factor in Factor)


def find_axis(score: Score, ranked: Sorted, thresholds: Sequence[float]) -> tuple[float, float]:
    """The ends of a split score: all of its values and thresholds, from its start or from 0, to a round number."""
    if score.ends is not None:
        return score.ends
    low, high = (ranked.quantile(end) for end in (0.0, 1.0)) if ranked.known else (score.start, 0.0)
    top, start = max(high, *thresholds), score.start if min(low, *thresholds) >= score.start else 0.0
    unit = 5.0 if score.unit == "°" else 0.1
    return start, round(unit * (math.floor(top / unit + 1e-6) + 1), 6)


def list_marks(axis: tuple[float, float], values: Sequence[float]) -> list[float]:
    """The places of a slider: decimal numbers from end to end, and the given values among them."""
    low, high = axis
    digits = math.ceil(math.log10(_MARKS / (high - low)))
    steps = round((high - low) * 10**digits)
    grid = [round(low + step / 10**digits, max(digits, 0)) for step in range(steps + 1)]
    return sorted({*grid, *values})
