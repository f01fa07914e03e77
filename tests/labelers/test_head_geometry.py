"""The head's rotation from its points: MediaPipe's own matrices, turned heads made here, and damaged descriptions."""

from __future__ import annotations

import contextlib
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from labelers.pose.head_geometry import FIELD_OF_VIEW_DEG, MESH_POINTS, GeometryError, HeadModel, read_head_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def description(real_data: Path) -> bytes:
    with zipfile.ZipFile(real_data / "models" / "face_landmarker.task") as bundle:
        return bundle.read("geometry_pipeline_metadata_landmarks.binarypb")


@pytest.fixture(scope="module")
def head(description: bytes) -> HeadModel:
    return read_head_model(description)


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


def test_the_canonical_head(head: HeadModel) -> None:
    assert head.points.shape == (len(head.numbers), 3)
    assert len(head.numbers) == 33
    assert head.weights.min() > 0
    nose = head.points[head.numbers == 4][0]
    assert nose[2] == head.points[:, 2].max(), "the nose tip is nearest to the viewer"
    assert abs(nose[0]) < 1e-6


def test_it_gives_mediapipes_matrices(head: HeadModel, mediapipe_says: tuple[NDArray[np.float64], ...]) -> None:
    points, matrices = mediapipe_says
    assert len(points) > 40
    np.testing.assert_allclose(head.rotations(points), matrices, atol=1e-5)


def test_rows_do_not_know_of_each_other(head: HeadModel, mediapipe_says: tuple[NDArray[np.float64], ...]) -> None:
    points = mediapipe_says[0].astype(np.float32)
    together = head.rotations(points)
    for size in (1, 2, 7, 32):
        parts = [head.rotations(points[start : start + size]) for start in range(0, len(points), size)]
        np.testing.assert_array_equal(np.concatenate(parts), together)
    assert head.rotations(points[:0]).shape == (0, 3, 3)


angle = st.floats(-80, 80)
place = st.floats(-0.2, 0.2)


@given(angles=st.tuples(angle, angle, st.floats(-179, 179)), far=st.floats(25, 100), x=place, y=place)
@settings(max_examples=100, deadline=None)
def test_a_turned_head_is_seen_turned(
    head: HeadModel, angles: tuple[float, float, float], far: float, x: float, y: float
) -> None:
    """The canonical head before the camera, as a network that makes no error sees it, comes back exactly."""
    turn = Rotation.from_euler("yxz", angles, degrees=True).as_matrix()
    side = 2 * np.tan(np.radians(FIELD_OF_VIEW_DEG) / 2)
    placed = head.points @ turn.T + np.array([x * side * far, y * side * far, -far])  # centimetres from the camera
    away = -placed[:, 2]
    mesh = np.zeros((1, MESH_POINTS, 3))
    mesh[0, head.numbers, 0] = placed[:, 0] / away / side + 0.5
    mesh[0, head.numbers, 1] = 0.5 - placed[:, 1] / away / side
    mesh[0, head.numbers, 2] = (away / away.mean() - 1) / side  # depth in the size that the face has in the picture
    found = head.rotations(mesh)[0]
    np.testing.assert_allclose(found, turn, atol=1e-9)


def test_a_mirror_image_is_never_taken_for_a_head(head: HeadModel) -> None:
    flat = np.zeros((3, MESH_POINTS, 3))
    flat[1, head.numbers] = head.points * [-1, -1, -1] / 40 + 0.5
    flat[2, head.numbers, :2] = head.points[:, :2] / 40 + 0.5
    np.testing.assert_allclose(np.linalg.det(head.rotations(flat)), 1.0)


# --- damaged descriptions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\x0a", b"PK\3\4 something else", b"\xff" * 300])
def test_what_is_no_head_is_refused(content: bytes) -> None:
    with pytest.raises(GeometryError, match="canonical head"):
        read_head_model(content)


def test_every_short_head_is_refused(description: bytes) -> None:
    for length in {*range(0, len(description), 97), *range(len(description) - 40, len(description))}:
        try:
            short = read_head_model(description[:length])
        except GeometryError:
            continue
        assert 3 <= len(short.numbers) <= 33  # cut between two points: a whole message, with fewer points


@given(place=st.integers(0, 1 << 16), change=st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_is_refused_or_harmless(description: bytes, place: int, change: int) -> None:
    content = bytearray(description)
    content[place % len(content)] ^= change
    with contextlib.suppress(GeometryError):
        model = read_head_model(bytes(content))
        assert np.isfinite(model.points).all()
        assert model.numbers.max() < MESH_POINTS
