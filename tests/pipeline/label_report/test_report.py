"""Class shares, warnings and suggested thresholds, against values worked by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from data_manifests.recipes import Recipe
from data_manifests.tables.stages import CLASSES, Factor
from labelers.rules import LabelSettings
from pipeline.label_report.command import THRESHOLDS, Command
from pipeline.label_report.summary import class_shares, rank_correlation, warnings_of

SETTINGS = LabelSettings.model_validate(
    {
        "recipe": Recipe.PAPER,
        "blur_source": "cpbd",
        "blur_hazy": 0.35,
        "blur_clear": 0.7,
        "yaw_frontal": 10,
        "yaw_profile": 25,
        "worse_probability": 0.5,
        "missing_pose": "null",
        "anchor": "certainty_ratio",
        "normalise": "minmax",
    }
)
COMMAND = Command(
    text="luigi --module pipeline LabelAll --models-pose fsanet",
    bare={name: getattr(SETTINGS, name) for name in THRESHOLDS},
    robust="luigi --module pipeline LabelAll --models-pose fsanet --labels-recipe robust",
)


def labels(
    cpbd: np.ndarray, sobel: np.ndarray, blur: list[str] | None = None, quality: np.ndarray | None = None
) -> pl.LazyFrame:
    rows = len(cpbd)
    columns = {"cpbd": pl.Series(cpbd, dtype=pl.Float32), "sobel": pl.Series(sobel, dtype=pl.Float32)}
    columns["quality"] = pl.Series([None] * rows if quality is None else quality, dtype=pl.Float32)
    for factor, names in CLASSES.items():
        values = (list(names) * rows)[:rows]
        if factor is Factor.BLUR and blur is not None:
            values = blur
        columns[factor.value] = pl.Series(values, dtype=pl.Enum(list(names)))
    return pl.DataFrame(columns).lazy()


def test_shares_leave_nulls_out() -> None:
    frame = labels(np.zeros(4), np.zeros(4), ["hazy", "hazy", "clear", None])  # type: ignore[list-item]
    assert class_shares(frame)[Factor.BLUR] == {"hazy": 2 / 3, "blurry": 0.0, "clear": 1 / 3}


def test_nearly_empty_classes_and_contrary_scores_are_warned_of() -> None:
    cpbd = np.linspace(0, 0.6, 400)
    found = warnings_of(labels(cpbd, cpbd[::-1].copy(), ["hazy", "blurry"] * 200), SETTINGS, COMMAND)
    assert found[0] == "blur: only 0.00% of the images are 'clear'"
    assert any("against each other (Spearman -1.00)" in line for line in found)
    assert found[-1].endswith(f"by measuring blur alone anew: {COMMAND.robust}")


def test_a_class_of_hazy_faces_that_are_better_than_clear_ones_is_warned_of() -> None:
    scores, words = np.linspace(0, 1, 300), ["hazy", "blurry", "clear"] * 100
    against = labels(scores, scores, words, np.tile([0.8, 0.5, 0.4], 100))
    found = warnings_of(against, SETTINGS, COMMAND)
    assert found[0] == "blur: the hazy images have the higher quality, 0.80 at the median, the clear ones 0.40"
    assert found[1].endswith(COMMAND.robust)
    assert len(found) == 2
    assert warnings_of(labels(scores, scores, words, np.tile([0.4, 0.5, 0.8], 100)), SETTINGS, COMMAND) == []


def test_who_chose_a_recipe_is_offered_no_other() -> None:
    cpbd = np.linspace(0, 0.6, 400)
    frame = labels(cpbd, cpbd[::-1].copy(), ["hazy", "blurry"] * 200)
    for recipe in ("released", "robust"):
        found = warnings_of(frame, LabelSettings.model_validate({"recipe": recipe}), COMMAND)
        assert found == ["blur: only 0.00% of the images are 'clear'"]


def test_a_sound_set_has_no_warning() -> None:
    scores = np.linspace(0, 1, 300)
    assert warnings_of(labels(scores, scores), SETTINGS, COMMAND) == []
    assert rank_correlation(labels(scores, scores)) == pytest.approx(1.0)
