"""Class shares, warnings and suggested thresholds, against values worked by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from data_manifests.recipes import Recipe
from data_manifests.tables.stages import CLASSES, Factor
from labelers.rules import LabelSettings
from pipeline.label_report.command import THRESHOLDS, Command
from pipeline.label_report.summary import advise_blur, class_shares, rank_correlation, warnings_of

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
)


def labels(cpbd: np.ndarray, sobel: np.ndarray, blur: list[str] | None = None) -> pl.LazyFrame:
    rows = len(cpbd)
    columns = {"cpbd": pl.Series(cpbd, dtype=pl.Float32), "sobel": pl.Series(sobel, dtype=pl.Float32)}
    for factor, names in CLASSES.items():
        values = (list(names) * rows)[:rows]
        if factor is Factor.BLUR and blur is not None:
            values = blur
        columns[factor.value] = pl.Series(values, dtype=pl.Enum(list(names)))
    return pl.DataFrame(columns).lazy()


def test_shares_leave_nulls_out() -> None:
    frame = labels(np.zeros(4), np.zeros(4), ["hazy", "hazy", "clear", None])  # type: ignore[list-item]
    assert class_shares(frame)[Factor.BLUR] == {"hazy": 2 / 3, "blurry": 0.0, "clear": 1 / 3}


def test_thresholds_follow_the_shares_of_sobel() -> None:
    cpbd = np.linspace(0, 0.5, 1001)
    sobel = np.linspace(0.1, 1.1, 1001)  # a quarter under 0.35, 60 % under 0.7
    advice = advise_blur(labels(cpbd, sobel), SETTINGS, COMMAND)
    assert (advice.low, advice.high) == (pytest.approx(0.125, abs=1e-3), pytest.approx(0.3, abs=1e-3))
    assert advice.command == f"{COMMAND.text} --labels-blur-hazy {advice.low} --labels-blur-clear {advice.high}"


def test_advice_on_blur_keeps_other_thresholds_that_were_given() -> None:
    narrow = SETTINGS.model_copy(update={"yaw_frontal": 8.0})
    advice = advise_blur(labels(np.linspace(0, 0.5, 1001), np.linspace(0.1, 1.1, 1001)), narrow, COMMAND)
    assert advice.command.endswith(f"--labels-blur-clear {advice.high} --labels-yaw-frontal 8.0")


def test_terciles_where_sobel_has_an_empty_class() -> None:
    cpbd = np.linspace(0, 0.6, 601)
    advice = advise_blur(labels(cpbd, np.full(601, 0.2)), SETTINGS, COMMAND)
    assert (advice.low, advice.high) == (pytest.approx(0.2), pytest.approx(0.4))
    assert "terciles" in advice.reason


def test_nearly_empty_classes_and_contrary_scores_are_warned_of() -> None:
    cpbd = np.linspace(0, 0.6, 400)
    found = warnings_of(labels(cpbd, cpbd[::-1].copy(), ["hazy", "blurry"] * 200), SETTINGS, COMMAND)
    assert found[0] == "blur: only 0.00% of the images are 'clear'"
    assert any("against each other (Spearman -1.00)" in line for line in found)
    assert "--labels-blur-hazy" in found[-1]


def test_a_sound_set_has_no_warning() -> None:
    scores = np.linspace(0, 1, 300)
    assert warnings_of(labels(scores, scores), SETTINGS, COMMAND) == []
    assert rank_correlation(labels(scores, scores)) == pytest.approx(1.0)
