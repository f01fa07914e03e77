"""YuNet on real photos of any size: found, mapped back, chosen among several, and aligned as InsightFace aligns."""

from __future__ import annotations

import tomllib
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_manifests import sample
from data_manifests.alignment import ARCFACE_TEMPLATE, align, similarity_transform
from data_manifests.weights.files import WeightsMissingError, find
from data_manifests.weights.registry import load_registry
from labelers.detection import (
    CLOSE_UP_BORDER,
    SECOND_LOOK,
    DetectorError,
    FaceChoice,
    FaceDetector,
    Faces,
    measure_overlap,
    rate,
    view_around,
    view_whole,
    view_with_border,
)

ANNOTATION = Path(sample.__file__).parent / "annotations" / "sample_faces.toml"


@pytest.fixture(scope="session")
def yunet_file(request) -> Path:
    """YuNet's weights: where users have them, or with the test data."""
    try:
        return find(load_registry().get("yunet"))[0]
    except WeightsMissingError:
        return request.getfixturevalue("real_data") / "models" / "yunet_n_320_320.onnx"


@pytest.fixture(scope="session")
def detector(yunet_file) -> FaceDetector:
    return FaceDetector(yunet_file)


@pytest.fixture(scope="session")
def sample_photos() -> list[tuple[np.ndarray, np.ndarray]]:
    """Photos that packages ship, RGB, with the annotated landmarks of all their faces, [F, 5, 2]."""
    photos = tomllib.loads(ANNOTATION.read_text())["photos"]
    return [(sample.read_photo(p["package"], p["path"], p["sha256"]), np.array(p["faces"])) for p in photos]


def distance(found: np.ndarray, truth: np.ndarray) -> float:
    """How far landmarks [5, 2] lie from the true ones on average, in pixels of the aligned face."""
    matrix = similarity_transform(truth)
    return float(np.linalg.norm((found - truth) @ matrix[:, :2].T, axis=1).mean())


def spot(x: float, y: float, width: int, height: int, blur: float) -> np.ndarray:
    """A photo of one bright spot whose centre is known to a fraction of a pixel, uint8 [height, width, 3]."""
    across, down = np.arange(width) - x, np.arange(height)[:, None] - y
    light = 255 * np.exp(-(across**2 + down**2) / (2 * blur**2))
    return np.repeat(light.round().astype(np.uint8)[:, :, None], 3, axis=2)


def centroid(picture: np.ndarray) -> np.ndarray:
    light = picture[:, :, 0].astype(float)
    down, across = np.mgrid[: light.shape[0], : light.shape[1]]
    return np.array([(light * across).sum(), (light * down).sum()]) / light.sum()


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(150, 500),
    height=st.integers(150, 500),
    across=st.floats(0.3, 0.7),
    down=st.floats(0.3, 0.7),
    longest=st.integers(60, 600),
)
def test_points_of_any_view_are_mapped_back_to_the_photo(width, height, across, down, longest):
    x, y = across * width, down * height
    photo = spot(x, y, width, height, blur=6.0)
    box = np.array([x - 41, y - 47, x + 44, y + 40])
    for view in (
        view_whole(photo, longest),
        view_with_border(photo, longest, across),
        view_around(photo, box, longest),
    ):
        seen = centroid(view.picture)
        # A spot that is hardly a pixel wide in the view is known to a tenth of that pixel.
        assert view.to_photo(seen) == pytest.approx([x, y], abs=max(0.25, 0.1 / min(view.scale)))
        assert view.picture.dtype == np.uint8
    assert max(view_whole(photo, longest).picture.shape) == min(longest, max(width, height))


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 3000), height=st.integers(1, 3000), longest=st.integers(32, 700),
    corners=st.tuples(*[st.floats(-500, 3500)] * 2), sides=st.tuples(*[st.floats(0.01, 2000)] * 2),
)  # fmt: skip
def test_views_of_any_size_are_pictures_that_map_back_into_the_photo(width, height, longest, corners, sides):
    photo = np.zeros((height, width, 3), np.uint8)
    box = np.array([*corners, corners[0] + sides[0], corners[1] + sides[1]])
    for view in (view_whole(photo, longest), view_around(photo, box, longest)):
        h, w, _ = view.picture.shape
        assert 1 <= min(h, w) <= max(h, w) <= max(longest, 1)
        edges = view.to_photo(np.array([[-0.5, -0.5], [w - 0.5, h - 0.5]]))
        assert (edges[0] >= -0.501).all()
        assert (edges[1] <= np.array([width, height]) - 0.499).all()
    bordered = view_with_border(photo, longest, CLOSE_UP_BORDER)
    h, w, _ = bordered.picture.shape
    assert max(h, w) <= longest + 2
    middle = bordered.to_photo(np.array([(w - 1) / 2, (h - 1) / 2]))
    assert middle == pytest.approx([(width - 1) / 2, (height - 1) / 2], abs=1e-6 * max(width, height))


def test_every_annotated_face_is_found(detector, sample_photos):
    for photo, truths in sample_photos:
        found = detector.find(photo)
        assert len(found) == len(truths)
        for truth in truths:
            nearest = min(found.landmarks, key=lambda landmarks: distance(landmarks, truth))
            assert distance(nearest, truth) < 12.0
        assert (found.scores >= 0.6).all()
        assert (found.scores <= 1).all()


def test_the_chosen_face_is_aligned_to_the_template(detector, sample_photos):
    for photo, truths in sample_photos:
        face = detector.locate(photo)
        assert face is not None
        assert face.faces == len(truths)
        assert min(distance(face.landmarks, truth) for truth in truths) < 6.0
        matrix = similarity_transform(face.landmarks)
        assert face.landmarks @ matrix[:, :2].T + matrix[:, 2] == pytest.approx(ARCFACE_TEMPLATE, abs=9.0)


@pytest.mark.parametrize("factor", [0.2, 0.5, 3.0, 8.0])
def test_the_size_of_a_photo_hardly_matters(detector, sample_photos, factor):
    photo = sample_photos[-1][0]
    reference = detector.locate(photo)
    size = [round(side * factor) for side in photo.shape[1::-1]]
    resized = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    face = detector.locate(resized)
    back = (face.landmarks + 0.5) / factor - 0.5
    assert distance(back, reference.landmarks) < 5.5  # two of YuNet's own scatter


def test_faces_that_fill_the_photo_are_found_with_a_border(detector, sample_photos):
    missed = 0
    for photo, truths in sample_photos:
        for truth in truths:
            around = 0.2 * np.ptp(truth, axis=0).max()
            left, top = np.maximum(truth.min(axis=0) - around, 0).astype(int)
            right, bottom = (truth.max(axis=0) + around).astype(int)
            cut = photo[top:bottom, left:right]
            factor = 1000 / max(cut.shape[:2])
            closeup = cv2.resize(cut, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
            missed += not len(detector._detect(view_whole(closeup, 640)))
            face = detector.locate(closeup)
            assert distance((face.landmarks + 0.5) / factor - 0.5 + (left, top), truth) < 8.0
    assert missed >= 4


def test_a_second_look_brings_small_faces_nearer_to_the_truth(detector, sample_photos):
    """On the photo of six small faces, further reduced; what the first look finds is what `find` gives."""
    photo, truths = sample_photos[0]
    half = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    found = detector.find(half)
    first, second = [], []
    for box, landmarks in zip(found.boxes, found.landmarks, strict=True):
        looked = detector.locate_in(half, box)
        truth = min(truths, key=lambda t: distance((landmarks + 0.5) * 2 - 0.5, t))
        first.append(distance((landmarks + 0.5) * 2 - 0.5, truth))
        second.append(distance((looked + 0.5) * 2 - 0.5, truth))
    assert len(first) == 6
    assert np.mean(second) < 0.9 * np.mean(first)
    elsewhere = np.array([0.0, 0.0, 30.0, 30.0])  # no face there
    assert detector.locate_in(half, elsewhere) is None
    assert max(view_around(half, found.boxes[0], SECOND_LOOK).picture.shape) == SECOND_LOOK


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 4000), (4000, 1), (3, 2), (20, 31), (33, 32), (641, 2), (5, 640), (90, 2500)]
)
def test_noise_of_any_shape_has_no_face(detector, size):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert detector.locate(noise) is None
    assert len(detector.find(noise)) == 0


def test_what_was_seen_before_does_not_matter(detector, sample_photos):
    photo = sample_photos[1][0]
    before = detector.locate(photo)
    detector.locate(np.zeros((777, 333, 3), np.uint8))
    after = detector.locate(photo)
    assert np.array_equal(before.landmarks, after.landmarks)
    assert before.score == after.score


def boxes(*corners: tuple[float, float, float, float]) -> Faces:
    count = len(corners)
    return Faces(boxes=np.array(corners, float), landmarks=np.zeros((count, 5, 2)), scores=np.linspace(0.7, 0.9, count))


def test_the_rules_for_several_faces():
    # 1000 x 800: a large face at the edge, one of 90 % of its sides near the centre, a tiny one in the very centre
    found = boxes((0, 0, 200, 200), (420, 320, 600, 500), (490, 390, 510, 410), (900, 700, 960, 760))
    # 40000 - 2 (400² + 300²) < 32400 - 2 (10² + 10²): InsightFace's extra weight on the centre
    assert rate(found, FaceChoice.LARGEST, 1000, 800).argmax() == 1
    assert rate(found, FaceChoice.CENTRAL, 1000, 800).argmax() == 2
    assert rate(found, FaceChoice.BEST, 1000, 800).argmax() == 3
    twins = boxes((10, 10, 20, 20), (10, 10, 20, 20))
    assert rate(twins, FaceChoice.LARGEST, 30, 30).argmax() == 0


@settings(max_examples=100, deadline=None)
@given(
    corners=st.lists(st.tuples(*[st.integers(0, 2000)] * 2, *[st.integers(1, 900)] * 2), min_size=1, max_size=8),
    half=st.tuples(*[st.integers(50, 1500)] * 2),
)
def test_the_largest_face_is_insightface_s(corners, half):
    """The formula of RetinaFace.detect in InsightFace, for photos with even sides, where its centre is exact."""
    found = boxes(*((x, y, x + w, y + h) for x, y, w, h in corners))
    box = found.boxes
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    offsets = np.vstack([(box[:, 0] + box[:, 2]) / 2 - half[0], (box[:, 1] + box[:, 3]) / 2 - half[1]])
    values = area - np.sum(np.power(offsets, 2.0), 0) * 2.0
    assert values[rate(found, FaceChoice.LARGEST, 2 * half[0], 2 * half[1]).argmax()] == values.max()


def test_overlap():
    found = measure_overlap(
        np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6], [2, 0, 4, 2]], float), np.array([0, 0, 2, 2])
    )
    assert found == pytest.approx([1, 1 / 7, 0, 0])


def test_a_face_is_cut_out_as_insightface_does(sample_photos):
    """norm_crop fits the landmarks in float32, so that now and then a value is rounded to the other side."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        face_align = pytest.importorskip("insightface.utils.face_align")
        rng = np.random.default_rng(5)
        differing = values = 0
        for photo, truths in sample_photos:
            for truth in truths:
                for _ in range(8):
                    points = (truth + rng.normal(0, 2, (5, 2))).astype(np.float32)
                    expected = face_align.norm_crop(photo, points).astype(int)
                    found = align(photo, points)
                    assert np.abs(found - expected).max() <= 1
                    differing += int((found != expected).sum())
                    values += found.size
    assert differing / values < 1e-3


def test_wrong_weights_and_settings(tmp_path, yunet_file):
    with pytest.raises(FileNotFoundError, match="python -m pipeline weights"):
        FaceDetector(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(DetectorError, match=r"text\.onnx is no YuNet"):
        FaceDetector(tmp_path / "text.onnx")
    other = Path(sample.__file__).parent / "weights" / "factors_mini.onnx"
    with pytest.raises(DetectorError, match="factors_mini"):
        FaceDetector(other)
    for wrong in ({"min_score": 0.0}, {"min_score": 1.0}, {"longest_side": 31}):
        with pytest.raises(ValueError, match="a longest side of 32"):
            FaceDetector(yunet_file, **wrong)
