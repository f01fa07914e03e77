"""Thresholds: every boundary in single precision, null rows, refused settings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_manifests.recipes import Recipe
from data_manifests.tables.stages import CLASSES, Factor
from labelers.levels import NULL, binary_level, blur_level, pose_level

F32 = np.float32
NAN = F32(np.nan)


def around(value):
    """The float32 below a threshold, the threshold in float32, the one above."""
    here = F32(value)
    return [np.nextafter(here, F32(-np.inf)), here, np.nextafter(here, F32(np.inf))]


def names(factor, levels):
    assert levels.dtype == np.int8
    return [None if level == NULL else CLASSES[factor][level] for level in levels]


BOUNDARIES = np.array([*around(0.35), *around(0.7)], F32)


def test_blur_boundaries_of_the_paper():
    assert names(Factor.BLUR, blur_level(BOUNDARIES)) == ["hazy", "blurry", "blurry", "blurry", "blurry", "clear"]


def test_blur_boundaries_of_the_released_code():
    levels = blur_level(BOUNDARIES, recipe=Recipe.RELEASED)
    assert names(Factor.BLUR, levels) == ["hazy", "blurry", "blurry", "blurry", "clear", "clear"]


def test_blur_compares_in_single_precision():
    """float32(0.7) is under 0.7 and float32(0.35) under 0.35: in double precision both boundaries would fall lower."""
    assert float(F32(0.7)) < 0.7
    assert float(F32(0.35)) < 0.35
    assert blur_level(np.array([0.7], F32), recipe=Recipe.RELEASED)[0] == 2
    assert blur_level(np.array([0.35], F32))[0] == 1
    assert blur_level(np.array([0.35], np.float64))[0] == 1


def test_blur_ends_and_null():
    levels = blur_level(np.array([0.0, 1.0, NAN, 0.5], F32))
    assert names(Factor.BLUR, levels) == ["hazy", "clear", None, "blurry"]


YAWS = np.array([*around(10), *around(25)], F32)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        (Recipe.PAPER, ["frontal", "slight angle", "slight angle", "slight angle", "slight angle", "profile"]),
        (Recipe.RELEASED, ["frontal", "frontal", "slight angle", "slight angle", "slight angle", "profile"]),
    ],
)
def test_pose_boundaries(sign, recipe, wanted):
    assert names(Factor.POSE, pose_level(sign * YAWS, recipe=recipe)) == wanted


def test_pose_boundaries_that_single_precision_cannot_hold():
    yaw = np.array(around(10.1), F32)
    assert pose_level(yaw, frontal=10.1).tolist() == [2, 1, 1]
    assert pose_level(yaw, frontal=10.1, recipe=Recipe.RELEASED).tolist() == [2, 2, 1]


def test_missing_pose():
    yaw = np.array([NAN, 0.0, -90.0], F32)
    assert names(Factor.POSE, pose_level(yaw)) == [None, "frontal", "profile"]
    assert names(Factor.POSE, pose_level(yaw, missing="profile")) == ["profile", "frontal", "profile"]
    assert names(Factor.POSE, pose_level(yaw, missing="slight angle")) == ["slight angle", "frontal", "profile"]


@pytest.mark.parametrize("factor", [Factor.OCCLUSION, Factor.EXPRESSION, Factor.LIGHTING])
@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.7])
def test_binary_boundaries(factor, threshold):
    worse, better = CLASSES[factor]
    levels = binary_level(np.array([*around(threshold), 0.0, 1.0, NAN], F32), threshold)
    assert names(factor, levels) == [better, worse, worse, better, worse, None]


@pytest.mark.parametrize("recipe", Recipe)
@given(st.lists(st.floats(0, 1, width=32), max_size=20), st.floats(0.01, 0.5), st.floats(0.51, 0.99))
def test_sharper_is_never_a_worse_class(recipe, scores, low, high):
    levels = blur_level(np.array(sorted(scores), F32), low, high, recipe)
    assert np.all(np.diff(levels) >= 0)


@given(st.lists(st.floats(-180, 180, width=32), max_size=20))
def test_pose_does_not_know_left_from_right(yaws):
    yaw = np.array(yaws, F32)
    np.testing.assert_array_equal(pose_level(yaw), pose_level(-yaw))


def test_recipes_may_be_given_as_text():
    assert blur_level(np.array([0.7], F32), recipe="released")[0] == 2
    with pytest.raises(ValueError, match="printed"):
        blur_level(np.array([0.7], F32), recipe="printed")


def test_input_is_left_alone():
    score = np.array([0.1, NAN], F32)
    yaw = np.array([-30, NAN], F32)
    blur_level(score)
    binary_level(score)
    pose_level(yaw)
    np.testing.assert_array_equal(score, np.array([0.1, NAN], F32))
    np.testing.assert_array_equal(yaw, np.array([-30, NAN], F32))


@pytest.mark.parametrize(
    "pair", [(0.7, 0.35), (0.5, 0.5), (0.5, 0.5 + 1e-12), (float("nan"), 0.7), (0.1, float("inf"))]
)
def test_thresholds_out_of_order_are_named(pair):
    with pytest.raises(ValueError, match=r"low = .* high = .* low < high"):
        blur_level(np.zeros(1, F32), *pair)
    with pytest.raises(ValueError, match=r"frontal = .* profile = .* frontal < profile"):
        pose_level(np.zeros(1, F32), *pair)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match=r"threshold = .* within 0 and 1"):
        binary_level(np.zeros(1, F32), threshold)


def test_missing_pose_must_name_a_class():
    with pytest.raises(ValueError, match=r"'side'.*profile"):
        pose_level(np.zeros(1, F32), missing="side")
