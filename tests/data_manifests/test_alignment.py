"""The similarity transform to the ArcFace template, against scikit-image's."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from data_manifests.alignment import ARCFACE_TEMPLATE, SIDE, AlignmentError, align, similarity_transform

TEMPLATE = ARCFACE_TEMPLATE.astype(float)
numbers = st.floats(-3000, 3000, allow_nan=False, width=32)
landmark_sets = st.lists(st.tuples(numbers, numbers), min_size=5, max_size=5).map(np.array)


def turned(scale: float, degrees: float, shift: tuple[float, float]) -> np.ndarray:
    """The template turned, scaled and shifted, [5, 2]."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return scale * TEMPLATE @ np.array([[cosine, sine], [-sine, cosine]]) + np.array(shift)


def test_the_template_is_arcface_s() -> None:
    # Deng et al. 2019; the values that InsightFace publishes for 112 x 112
    assert ARCFACE_TEMPLATE.shape == (5, 2)
    assert ARCFACE_TEMPLATE.dtype == np.float32
    assert ARCFACE_TEMPLATE.ravel().tolist() == pytest.approx(
        [38.2946, 51.6963, 73.5318, 51.5014, 56.0252, 71.7366, 41.5493, 92.3655, 70.7299, 92.2041]
    )
    assert SIDE == 112
    with pytest.raises(ValueError, match="read-only"):
        ARCFACE_TEMPLATE[0, 0] = 0


def test_the_template_stays_where_it_is() -> None:
    assert similarity_transform(ARCFACE_TEMPLATE) == pytest.approx(np.eye(2, 3), abs=1e-9)
    picture = np.random.default_rng(1).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    assert np.array_equal(align(picture, ARCFACE_TEMPLATE), picture)


@settings(max_examples=300, deadline=None)
@given(points=landmark_sets)
def test_any_landmarks_against_scikit_image(points: np.ndarray) -> None:
    spread = float(points.std(axis=0).max())
    assume(spread > 0.01)
    try:
        matrix = similarity_transform(points)
    except AlignmentError:
        matrix = None
    reference = SimilarityTransform.from_estimate(points, TEMPLATE)
    assert reference
    # how well the turned landmarks fit, 0 to 1; where it is nothing, every turn is as good as another
    fit = reference.scale * math.hypot(*points.std(axis=0)) / math.hypot(*TEMPLATE.std(axis=0))
    assume(not 1e-7 < fit < 1e-5)
    assert (matrix is None) == (fit <= 1e-6)
    if matrix is not None:
        assert matrix == pytest.approx(reference.params[:2], rel=1e-6, abs=1e-6 + 1e-9 * np.abs(points).max() / fit)


@settings(max_examples=200, deadline=None)
@given(
    scale=st.floats(0.05, 30),
    degrees=st.floats(-180, 180),
    shift=st.tuples(st.floats(-5000, 5000), st.floats(-5000, 5000)),
)
def test_a_turned_template_is_brought_back(scale: float, degrees: float, shift: tuple[float, float]) -> None:
    points = turned(scale, degrees, shift)
    matrix = similarity_transform(points)
    assert matrix.shape == (2, 3)
    assert matrix.dtype == np.float64
    assert points @ matrix[:, :2].T + matrix[:, 2] == pytest.approx(TEMPLATE, abs=1e-6)
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(scale**-2, rel=1e-6)


def test_mirrored_landmarks_are_turned_but_never_mirrored_back() -> None:
    mirrored = TEMPLATE * [-1, 1]
    matrix = similarity_transform(mirrored)
    assert np.linalg.det(matrix[:, :2]) > 0
    assert matrix == pytest.approx(SimilarityTransform.from_estimate(mirrored, TEMPLATE).params[:2], abs=1e-6)


def test_landmarks_on_a_line_fix_a_transform() -> None:
    points = np.array([[0, 0], [10, 0], [5, 0], [2, 0], [8, 0]], float)
    matrix = similarity_transform(points)
    assert matrix == pytest.approx(SimilarityTransform.from_estimate(points, TEMPLATE).params[:2], abs=1e-6)
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((5, 2)), "lie on one spot"),
        (np.full((5, 2), 1234.5), "lie on one spot"),
        (np.full((5, 2), 1e5) + TEMPLATE * 1e-9, "lie on one spot"),
        (TEMPLATE[:4], r"five landmarks \[5, 2\] .*not \[4, 2\]"),
        (TEMPLATE.T, r"not \[2, 5\]"),
        (TEMPLATE.ravel(), r"not \[10\]"),
        (np.zeros((0, 2)), r"not \[0, 2\]"),
        (np.where(np.eye(5, 2) > 0, np.nan, TEMPLATE), "are not pixels of a picture"),
        (np.where(np.eye(5, 2) > 0, np.inf, TEMPLATE), "are not pixels of a picture"),
        (TEMPLATE * 1e200, "are not pixels of a picture"),
        ([[1, 2], [3]], "are not numbers"),
        ([["a", "b"]] * 5, "are not numbers"),
        (None, r"not \[\]"),
    ],
)
def test_landmarks_that_fix_nothing(points: object, message: str) -> None:
    for use in (similarity_transform, lambda landmarks: align(np.zeros((9, 9, 3), np.uint8), landmarks)):
        with pytest.raises(AlignmentError, match=message):
            use(points)


def test_landmarks_without_any_turn() -> None:
    # landmarks whose covariance with the template is a pure mirror image: every turn fits equally badly
    left, values, right = np.linalg.svd(TEMPLATE - TEMPLATE.mean(axis=0), full_matrices=False)
    points = 5000 * left / values @ np.diag([1, -np.linalg.det(right)])
    assert (TEMPLATE - TEMPLATE.mean(axis=0)).T @ points == pytest.approx(
        5000 * right.T @ [[1, 0], [0, -np.linalg.det(right)]]
    )
    with pytest.raises(AlignmentError, match="fit a face in no turn: check their order"):
        similarity_transform(points)


def test_a_face_is_cut_out_as_insightface_does() -> None:
    photo = np.random.default_rng(2).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    photo = cv2.GaussianBlur(photo, (0, 0), 3)
    points = turned(1.7, 25, (150, 20))
    reference = SimilarityTransform.from_estimate(points, TEMPLATE).params[:2]
    expected = cv2.warpAffine(photo, reference, (112, 112), borderValue=0.0)
    assert np.abs(align(photo, points).astype(int) - expected).max() <= 1
    larger = align(photo, points, size=224)
    assert larger.shape == (224, 224, 3)
    expected = cv2.warpAffine(photo, SimilarityTransform.from_estimate(points, TEMPLATE * 2).params[:2], (224, 224))
    assert np.abs(larger.astype(int) - expected).max() <= 1


def test_black_where_the_photo_ends_and_colours_kept() -> None:
    photo = np.full((112, 112, 3), (10, 100, 200), np.uint8)
    aligned = align(photo, TEMPLATE - [56, 0])  # the photo moves right by half its width
    assert (aligned[:, :56] == 0).all()
    assert (aligned[:, 57:] == (10, 100, 200)).all()


def test_the_photo_and_the_size_are_checked() -> None:
    photo = np.zeros((50, 40, 3), np.uint8)
    for wrong in (photo[:, :, 0], photo.astype(np.float32), photo[:0], np.zeros((5, 5, 4), np.uint8)):
        with pytest.raises(AlignmentError, match=r"the photo must be uint8 \[H, W, 3\]"):
            align(wrong, TEMPLATE)
    for size in (0, -1):
        with pytest.raises(AlignmentError, match="at least 1 pixel"):
            align(photo, TEMPLATE, size)
