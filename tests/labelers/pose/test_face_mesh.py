"""The mesh network alone: its crop, its agreement with FaceLandmarker, what must not change it, and its file."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch

import data_manifests
from benchmarks.convert_face_mesh import IMAGE, add_crop, read_network, to_onnx
from data_manifests.storage.atomic import sha256_of
from data_manifests.tables.stages import Status
from data_manifests.weights.registry import load_registry
from labelers.faces import FaceBatch
from labelers.pose import face_mesh
from labelers.pose.face_mesh import CROP_LEFT, CROP_SIDE, FaceMeshPose, open_face_mesh
from labelers.pose.labeler import LandmarkerPose
from labelers.runtime.onnx import Colour, Device, InputSpec, NetworkError, ProviderError
from labelers.runtime.prelu import blend_prelu

SPEC = InputSpec(width=112, height=112, colour=Colour.RGB, mean=(0.0,) * 3, std=(255.0,) * 3)
SHIPPED = Path(data_manifests.__file__).parent / "weights" / "face_mesh.onnx"
ANGLES = ("yaw_deg", "pitch_deg", "roll_deg")


def as_batch(images: np.ndarray) -> FaceBatch:
    keys = np.arange(1, len(images) + 1, dtype=np.int32)
    return FaceBatch(keys=keys, images=np.ascontiguousarray(images), identities=keys)


def angles_of(measures) -> np.ndarray:
    assert tuple(measures.columns) == ANGLES
    assert all(column.dtype == np.float32 for column in measures.columns.values())
    return np.stack(list(measures.columns.values()), axis=1)


@pytest.fixture(scope="module")
def bundle(real_data: Path) -> Path:
    return real_data / "models" / "face_landmarker.task"


@pytest.fixture(scope="module")
def mesh() -> FaceMeshPose:
    return open_face_mesh(SHIPPED, input=SPEC, batch=8, device=Device.CPU)


@pytest.fixture(scope="module")
def faces(real_faces: list[np.ndarray]) -> np.ndarray:
    return np.stack(real_faces[:140])


@pytest.fixture(scope="module")
def measured(mesh: FaceMeshPose, faces: np.ndarray):
    return mesh(as_batch(faces))


# --- the crop ---------------------------------------------------------------------------------------------------------


def test_the_crop_is_that_of_an_affine_map(faces: np.ndarray) -> None:
    """A map that keeps edges on edges, as MediaPipe's: picture x = (x + 1/2) side / 256 - 1/2 - left."""
    model = onnx.load(SHIPPED)
    model.graph.output.extend(model.graph.value_info)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    pictures = (faces[:3] / 255).astype(np.float32)
    (cropped,) = session.run([IMAGE], {"face": pictures.transpose(0, 3, 1, 2)})
    step = CROP_SIDE / 256
    start = [0.5 * step - 0.5 - CROP_LEFT, 0.5 * step - 0.5]
    matrix = np.array([[step, 0, start[0]], [0, step, start[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for picture, found in zip(pictures, cropped, strict=True):
        expected = cv2.warpAffine(picture, matrix, (256, 256), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        # OpenCV rounds places to 1/32 of a pixel; neighbours differ by at most 1.
        assert np.abs(found.transpose(1, 2, 0) - expected).max() < 2 / 32
        assert np.abs(found.transpose(1, 2, 0) - expected).mean() < 2e-3
    assert CROP_LEFT * 2 + 112 == CROP_SIDE


def test_the_crop_does_not_keep_operators_from_being_fused(bundle: Path, tmp_path: Path) -> None:
    kinds = []
    for name, model in (("plain", to_onnx(read_network(bundle))), ("cropped", onnx.load(SHIPPED))):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / name)
        options.log_severity_level = 3  # it warns that the optimised model is for this kind of processor
        onnxruntime.InferenceSession(blend_prelu(model).SerializeToString(), options)
        kinds.append(Counter(node.op_type for node in onnx.load(tmp_path / name).graph.node))
    assert kinds[1] - kinds[0] == {"Pad": 1, "Resize": 1}


# --- agreement --------------------------------------------------------------------------------------------------------


def test_it_agrees_with_the_landmarker(bundle: Path, faces: np.ndarray, measured) -> None:
    """Every 50th damaged face. 0.6 and 2.8 degrees of yaw at the median and 95 % were measured on 400 faces."""
    with LandmarkerPose(bundle) as landmarker:
        expected = landmarker(as_batch(faces))
    difference = np.abs(angles_of(measured) - angles_of(expected))
    both = np.isfinite(difference[:, 0])
    assert both.sum() > 0.85 * len(faces)
    median, high = np.percentile(difference[both], [50, 95], axis=0)
    assert (median < [0.8, 1.0, 0.6]).all(), median
    assert (high < [4.0, 6.0, 3.0]).all(), high
    found = np.array([[status is Status.OK for status in each.status] for each in (measured, expected)])
    assert (found[0] != found[1]).mean() < 0.1
    assert measured.notes["misaligned"] <= 0.02 * len(faces)


def test_the_points_lie_where_the_landmarker_sees_them(mesh: FaceMeshPose, bundle: Path, faces: np.ndarray) -> None:
    from labelers.pose.landmarker import Landmarker  # noqa: PLC0415 - loads MediaPipe

    landmarker = Landmarker(bundle)
    found = [landmarker.find(face) for face in faces[:30]]
    landmarker.close()
    points, presence = mesh.find(faces[:30])
    assert points.shape == (30, 478, 3)
    five = points[:, face_mesh.EYES_NOSE_MOUTH, :2] * 112
    distances = [np.linalg.norm(five[n] - face.landmarks, axis=1).mean() for n, face in enumerate(found) if face]
    assert np.median(distances) < 1.0
    assert (presence > 0.5).mean() > 0.9


def test_a_turned_picture_rolls(mesh: FaceMeshPose, faces: np.ndarray, measured) -> None:
    upright = angles_of(measured)[:40]
    for degrees in (-10, 10):
        matrix = cv2.getRotationMatrix2D((56, 66), -degrees, 1)  # OpenCV counts the other way
        turned = [cv2.warpAffine(face, matrix, (112, 112), borderMode=cv2.BORDER_REPLICATE) for face in faces[:40]]
        change = angles_of(mesh(as_batch(np.stack(turned)))) - upright
        assert np.nanmedian(change[:, 2]) == pytest.approx(degrees, abs=1.0)


def test_a_mirrored_picture_is_mirrored(mesh: FaceMeshPose, faces: np.ndarray, measured) -> None:
    mirrored = angles_of(mesh(as_batch(faces[:60, :, ::-1])))
    difference = np.abs(mirrored - angles_of(measured)[:60] * np.float32([-1, 1, -1]))
    assert np.nanmedian(difference, axis=0).max() < 1.5


# --- what must not matter, and what must ------------------------------------------------------------------------------


def test_company_and_order_change_nothing(mesh: FaceMeshPose, faces: np.ndarray, measured) -> None:
    expected = angles_of(measured)[:43]
    for size in (1, 5, 8, 43):
        parts = [angles_of(mesh(as_batch(faces[start : min(start + size, 43)]))) for start in range(0, 43, size)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
    np.testing.assert_array_equal(angles_of(mesh(as_batch(faces[:43][::-1])))[::-1], expected)


def test_no_face_is_null(mesh: FaceMeshPose, faces: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    black, grey = np.zeros((112, 112, 3), np.uint8), np.full((112, 112, 3), 128, np.uint8)
    noise = rng.integers(0, 256, (112, 112, 3), np.uint8)
    measures = mesh(as_batch(np.stack([black, faces[0], grey, noise])))
    assert measures.status == [Status.NO_FACE, Status.OK, Status.NO_FACE, Status.NO_FACE]
    assert np.isnan(angles_of(measures)).all(axis=1).tolist() == [True, False, True, True]
    assert measures.notes == {"misaligned": 0}
    nobody = mesh(as_batch(np.zeros((0, 112, 112, 3), np.uint8)))
    assert angles_of(nobody).shape == (0, 3)
    assert nobody.status == []


def test_faces_that_are_not_aligned_are_counted(mesh: FaceMeshPose, faces: np.ndarray) -> None:
    matrix = np.array([[0.8, 0.0, 19.0], [0.0, 0.8, 23.0]])
    loose = np.stack([cv2.warpAffine(face, matrix, (112, 112)) for face in faces[:20]])
    measures = mesh(as_batch(loose))
    found = measures.status.count(Status.OK)
    assert found > 10
    assert measures.notes["misaligned"] >= 0.8 * found


def test_the_shipped_entry_opens_it(faces: np.ndarray, measured) -> None:
    from labelers.opening import open_labeler  # noqa: PLC0415 - loads nothing but names

    labeler = open_labeler(load_registry().get("face_mesh"), "cpu")
    assert isinstance(labeler, FaceMeshPose)
    np.testing.assert_array_equal(angles_of(labeler(as_batch(faces[:8]))), angles_of(measured)[:8])


def test_a_gpu_is_used_or_named(faces: np.ndarray, measured) -> None:
    """It never falls back to the processor. On the GPU, PReLU is one operator, and sums are rounded otherwise."""
    if torch.cuda.is_available():
        on_gpu = open_face_mesh(SHIPPED, input=SPEC, batch=8, device=Device.CUDA)
        np.testing.assert_allclose(angles_of(on_gpu(as_batch(faces))), angles_of(measured), atol=0.1)
    else:
        with pytest.raises(ProviderError, match="python -m pipeline doctor"):
            open_face_mesh(SHIPPED, input=SPEC, batch=8, device=Device.CUDA)


def test_it_does_without_mediapipe() -> None:
    script = "import sys, labelers.pose.face_mesh; sys.exit('mediapipe' in sys.modules or 'torch' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 0


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_shipped_file_is_what_the_script_makes_of_the_bundle(bundle: Path) -> None:
    assert onnx.load(SHIPPED) == add_crop(to_onnx(read_network(bundle)))


def test_its_card_is_of_this_file() -> None:
    card = SHIPPED.with_suffix(".md").read_text()
    assert f"{SHIPPED.stat().st_size} bytes" in card
    assert sha256_of(SHIPPED) in card
    assert "Apache-2.0" in card


def test_the_network_is_that_of_the_bundle(bundle: Path, tmp_path: Path) -> None:
    """As OpenVINO reads TensorFlow Lite, which knows nothing of the script."""
    path = tmp_path / "network.tflite"
    path.write_bytes(read_network(bundle))
    core = openvino.Core()
    network = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ours = onnxruntime.InferenceSession(to_onnx(path.read_bytes()).SerializeToString())
    for picture in np.random.default_rng(4).random((2, 256, 256, 3), np.float32):
        converted = ours.run(None, {IMAGE: picture.transpose(2, 0, 1)[None]})
        for found, expected in zip(converted, network(picture[None]).values(), strict=True):
            assert np.abs(expected).max() > 0
            np.testing.assert_allclose(found.ravel(), expected.ravel(), atol=1e-5 * max(1.0, np.abs(expected).max()))


def complaint(path: Path) -> str | None:
    """What is said of a file; None if it opens. Any other error ends the test."""
    try:
        open_face_mesh(path, input=SPEC, batch=1, device=Device.CPU)
    except NetworkError as error:
        return str(error)
    return None


def check_refused(path: Path) -> None:
    said = complaint(path)
    assert said is not None
    assert path.name in said


def test_every_short_file_is_refused(tmp_path: Path) -> None:
    whole = SHIPPED.read_bytes()
    torn = tmp_path / "torn.onnx"
    with pytest.raises(FileNotFoundError, match=r"torn\.onnx"):
        open_face_mesh(torn, input=SPEC, batch=1, device=Device.CPU)
    for length in [0, 1, 21, 22, 4096, *range(100_000, len(whole), 500_000), len(whole) - 1]:
        torn.write_bytes(whole[:length])
        check_refused(torn)


def test_other_content_is_named(real_data: Path) -> None:
    check_refused(real_data / "models" / "fsanet-1x1-iter-688590.onnx")
    check_refused(real_data / "models" / "face_landmarker.task")
    check_refused(SHIPPED.with_name("factors_mini.onnx"))
