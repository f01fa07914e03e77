"""How far what a model says agrees with labels: of people whom it has not learned from, or of what it has."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from data_manifests.tables.stages import CLASSES, Factor
from training.quality.scorer import OUTPUT_SIZES

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from training.dataset.training_set import LabelledImages

_FEWEST = 30
"""Of fewer images no rank correlation is judged."""

_LOWEST = 0.1
"""A rank correlation that is worth nothing, however many images it rests on."""


class EvaluationPoint(StrEnum):
    """When a training is measured."""

    PHASE_ONE = "phase_one"
    """After the first phase, before the confidences."""
    END = "end"

    @property
    def words(self) -> str:
        """As a person says it."""
        return {EvaluationPoint.PHASE_ONE: "after phase one", EvaluationPoint.END: "at the end"}[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A model against the labels of N images.

    Attributes:
        images: N.
        people: how many people they show.
        spearman: rank correlation of the score with the quality of the labels; None where fewer than two images have a
            quality, or all have the same.
        balanced_accuracy: for every factor, the mean over its classes of the share of their images that is told
            right; None where the labels have fewer than two classes.
    """

    images: int
    people: int
    spearman: float | None
    balanced_accuracy: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def curves(self) -> dict[str, float]:
        """What is known, by the names of its curves."""
        values = {"spearman": self.spearman, **self.balanced_accuracy}
        return {f"held_out/{name}": value for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        accuracies = [f"{name} {show(value)}" for name, value in self.balanced_accuracy.items()]
        told = [f"Spearman of score and quality {show(self.spearman)}"]
        told += [f"balanced accuracy of {', '.join(accuracies)}"] if accuracies else []
        return f"people held out ({self.people:,}, with {self.images:,} images): {'; '.join(told)}"


def compare(numbers: NDArray[np.float32], data: LabelledImages, factors: Collection[Factor]) -> Agreement:
    """Hold what a model says against the labels.

    Args:
        numbers: float32 [N, 18], of `training.quality.scorer.OUTPUTS` side by side.
        data: the N images.
        factors: which of the model's factors mean anything.
    """
    score, _, *probabilities = np.split(numbers, np.cumsum(OUTPUT_SIZES)[:-1], axis=1)
    accuracies = {
        factor.value: balanced_accuracy(p.argmax(axis=1), data.classes[:, place], len(CLASSES[factor]))
        for place, (factor, p) in enumerate(zip(Factor, probabilities, strict=True))
        if factor in factors
    }
    return Agreement(
        images=len(data),
        people=data.people,
        spearman=spearman(score[:, 0], data.quality),
        balanced_accuracy=accuracies,
    )


def spearman(score: NDArray[np.float32], quality: NDArray[np.float32]) -> float | None:
    """Spearman's rank correlation over the images with a quality; ties have their mean rank.

    Args:
        score: float32 [N].
        quality: float32 [N], NaN where there is none.
    """
    usable = np.isfinite(quality)
    if usable.sum() < 2:
        return None
    # Polars correlates in the precision of its columns.
    pair = pl.DataFrame({"score": score[usable].astype(np.float64), "quality": quality[usable].astype(np.float64)})
    found = pair.select(pl.corr("score", "quality", method="spearman")).item()
    return found if math.isfinite(found) else None


def explain_chance(score: NDArray[np.float32], quality: NDArray[np.float32]) -> str:
    """One line where a score follows the quality of the labels no better than chance might; empty where it does.

    Args:
        score: float32 [N], of images that were learned from.
        quality: float32 [N].
    """
    if len(quality) < _FEWEST or np.ptp(quality) == 0:
        return ""
    chance = max(_LOWEST, 3 / math.sqrt(len(quality) - 1))  # three standard deviations without any relation
    found = spearman(score, quality) or 0.0
    if found >= chance:
        return ""
    return (
        f"next to nothing was learned: over {len(score):,} of the images that were learned from, Spearman of score and "
        f"quality is {found:.2f}, which chance gives too (up to {chance:.2f}). Train for more epochs, or start from "
        "weights that know faces, as recipes/from_recogniser_cpu.toml does"
    )


def balanced_accuracy(told: NDArray[np.int64], right: NDArray[np.int8], classes: int) -> float | None:
    """The mean recall over the classes that the labels have.

    Args:
        told: int [N].
        right: int [N], -1 where there is no label.
        classes: how many there are.
    """
    recalls = [float((told[right == code] == code).mean()) for code in range(classes) if (right == code).any()]
    return sum(recalls) / len(recalls) if len(recalls) > 1 else None


def show(value: float | None) -> str:
    """A measure as a person reads it."""
    return "unknown" if value is None else f"{value:.3f}"
