"""The head's rotation from its points: MediaPipe's own matrices, and turned heads made here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from labelers.pose.head_geometry import (
    FIELD_OF_VIEW_DEG,
    HEAD_NUMBERS,
    HEAD_POINTS,
    HEAD_WEIGHTS,
    MESH_POINTS,
    head_rotations,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def mediapipe_says(real_data: Path, real_faces: list[NDArray[np.uint8]]) -> tuple[NDArray[np.float64], ...]:
    """Points [N, 478, 3] and rotations [N, 3, 3] of FaceLandmarker on real faces."""
    from labelers.pose.landmarker import Landmarker  # noqa: PLC0415 - loads MediaPipe

    landmarker = Landmarker(real_data / "models" / "face_landmarker.task")
    found = [result for face in real_faces[:60] if (result := landmarker._detect(face)).face_landmarks]
    landmarker.close()
    points = np.array([[(p.x, p.y, p.z) for p in result.face_landmarks[0]] for result in found])
    matrices = np.array([result.facial_transformation_matrixes[0] for result in found])[:, :3, :3]
    return points, matrices / np.linalg.norm(matrices, axis=1, keepdims=True)


def test_the_canonical_head() -> None:
    assert HEAD_POINTS.shape == (len(HEAD_NUMBERS), 3)
    assert len(HEAD_NUMBERS) == 33
    assert HEAD_WEIGHTS.min() > 0
    nose = HEAD_POINTS[HEAD_NUMBERS == 4][0]
    assert nose[2] == HEAD_POINTS[:, 2].max(), "the nose tip is nearest to the viewer"
    assert abs(nose[0]) < 1e-6


def test_it_gives_mediapipes_matrices(mediapipe_says: tuple[NDArray[np.float64], ...]) -> None:
    points, matrices = mediapipe_says
    assert len(points) > 40
    np.testing.assert_allclose(head_rotations(points), matrices, atol=1e-5)


def test_rows_do_not_know_of_each_other(mediapipe_says: tuple[NDArray[np.float64], ...]) -> None:
    points = mediapipe_says[0].astype(np.float32)
    together = head_rotations(points)
    for size in (1, 2, 7, 32):
        parts = [head_rotations(points[start : start + size]) for start in range(0, len(points), size)]
        np.testing.assert_array_equal(np.concatenate(parts), together)
    assert head_rotations(points[:0]).shape == (0, 3, 3)


angle = st.floats(-80, 80)
place = st.floats(-0.2, 0.2)


@given(angles=st.tuples(angle, angle, st.floats(-179, 179)), far=st.floats(25, 100), x=place, y=place)
@settings(max_examples=100, deadline=None)
def test_a_turned_head_is_seen_turned(angles: tuple[float, float, float], far: float, x: float, y: float) -> None:
    """The canonical head before the camera, as a network that makes no error sees it, comes back exactly."""
    turn = Rotation.from_euler("yxz", angles, degrees=True).as_matrix()
    side = 2 * np.tan(np.radians(FIELD_OF_VIEW_DEG) / 2)
    placed = HEAD_POINTS @ turn.T + np.array([x * side * far, y * side * far, -far])  # centimetres from the camera
    away = -placed[:, 2]
    mesh = np.zeros((1, MESH_POINTS, 3))
    mesh[0, HEAD_NUMBERS, 0] = placed[:, 0] / away / side + 0.5
    mesh[0, HEAD_NUMBERS, 1] = 0.5 - placed[:, 1] / away / side
    mesh[0, HEAD_NUMBERS, 2] = (away / away.mean() - 1) / side  # depth in the size that the face has in the picture
    found = head_rotations(mesh)[0]
    np.testing.assert_allclose(found, turn, atol=1e-9)


def test_a_mirror_image_is_never_taken_for_a_head() -> None:
    flat = np.zeros((3, MESH_POINTS, 3))
    flat[1, HEAD_NUMBERS] = HEAD_POINTS * [-1, -1, -1] / 40 + 0.5
    flat[2, HEAD_NUMBERS, :2] = HEAD_POINTS[:, :2] / 40 + 0.5
    np.testing.assert_allclose(np.linalg.det(head_rotations(flat)), 1.0)
