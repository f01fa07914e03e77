"""The mesh network alone: its crop, its agreement with FaceLandmarker, what must not change it, and torn bundles."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from data_manifests.tables.stages import Status
from data_manifests.weights.registry import load_registry
from labelers.faces import FaceBatch
from labelers.pose import face_mesh
from labelers.pose.face_mesh import CROP, Crop, FaceMeshPose, add_crop, open_face_mesh
from labelers.pose.labeler import LandmarkerPose
from labelers.pose.tflite import TfliteError, read_tflite
from labelers.pose.tflite_to_onnx import to_onnx
from labelers.runtime.onnx import Colour, Device, InputSpec, NetworkError, ProviderError

SPEC = InputSpec(width=112, height=112, colour=Colour.RGB, mean=(0.0,) * 3, std=(255.0,) * 3)
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
def mesh(bundle: Path) -> FaceMeshPose:
    return open_face_mesh(bundle, input=SPEC, batch=8, device=Device.CPU)


@pytest.fixture(scope="module")
def faces(real_faces: list[np.ndarray]) -> np.ndarray:
    return np.stack(real_faces[:140])


@pytest.fixture(scope="module")
def measured(mesh: FaceMeshPose, faces: np.ndarray):
    return mesh(as_batch(faces))


# --- the crop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop", [CROP, Crop(side=112, above=0), Crop(side=140, above=9), Crop(side=126, above=14)])
def test_the_crop_is_that_of_an_affine_map(faces: np.ndarray, crop: Crop) -> None:
    """A map that keeps edges on edges, as MediaPipe's: picture x = (x + 1/2) side / 256 - 1/2 - left."""
    shape = ["batch", 3, 256, 256]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "same")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["same"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(add_crop(model, crop).SerializeToString())
    pictures = (faces[:3] / 255).astype(np.float32)
    (cropped,) = session.run(None, {"face": pictures.transpose(0, 3, 1, 2)})
    step = crop.side / 256
    start = [0.5 * step - 0.5 - crop.left, 0.5 * step - 0.5 - crop.above]
    matrix = np.array([[step, 0, start[0]], [0, step, start[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for picture, found in zip(pictures, cropped, strict=True):
        expected = cv2.warpAffine(picture, matrix, (256, 256), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        # OpenCV rounds places to 1/32 of a pixel; neighbours differ by at most 1.
        assert np.abs(found.transpose(1, 2, 0) - expected).max() < 2 / 32
        assert np.abs(found.transpose(1, 2, 0) - expected).mean() < 2e-3
    assert crop.left * 2 + 112 == crop.above + crop.below + 112 == crop.side


def test_the_crop_does_not_keep_operators_from_being_fused(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        network = to_onnx(read_tflite(archive.read(face_mesh.NETWORK_FILE)), prelu_as_convolutions=True)
    kinds = []
    for name, model in (("plain", network), ("cropped", add_crop(network, CROP))):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / name)
        options.log_severity_level = 3  # it warns that the optimised model is for this kind of processor
        onnxruntime.InferenceSession(model.SerializeToString(), options)
        kinds.append(Counter(node.op_type for node in onnx.load(tmp_path / name).graph.node))
    assert kinds[1] - kinds[0] == {"Pad": 1, "Resize": 1}


def test_only_a_network_for_256_pixels_is_cropped() -> None:
    shape = ["batch", 3, 192, 192]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "same")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["same"])], "g", values[:1], values[1:])
    with pytest.raises(TfliteError, match="256 x 256"):
        add_crop(helper.make_model(graph), CROP)


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


def test_the_shipped_entry_opens_it(bundle: Path, faces: np.ndarray, measured, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.stages.openers import for_model  # noqa: PLC0415 - loads nothing but names

    monkeypatch.setenv("FIQA_MODELS", str(bundle.parent))
    labeler = for_model(load_registry().get("face_mesh"), "cpu").open()
    assert isinstance(labeler, FaceMeshPose)
    np.testing.assert_array_equal(angles_of(labeler(as_batch(faces[:8]))), angles_of(measured)[:8])


def test_a_gpu_is_used_or_named(bundle: Path, faces: np.ndarray, measured) -> None:
    """It never falls back to the processor. On the GPU, PReLU is one operator, and sums are rounded otherwise."""
    if torch.cuda.is_available():
        on_gpu = open_face_mesh(bundle, input=SPEC, batch=8, device=Device.CUDA)
        np.testing.assert_allclose(angles_of(on_gpu(as_batch(faces))), angles_of(measured), atol=0.1)
    else:
        with pytest.raises(ProviderError, match="python -m pipeline doctor"):
            open_face_mesh(bundle, input=SPEC, batch=8, device=Device.CUDA)


def test_it_does_without_mediapipe() -> None:
    script = "import sys, labelers.pose.face_mesh; sys.exit('mediapipe' in sys.modules or 'torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 0


# --- torn bundles -----------------------------------------------------------------------------------------------------


def complaint(path: Path) -> str | None:
    """What is said of a bundle; None if it opens. Any other error ends the test."""
    try:
        open_face_mesh(path, input=SPEC, batch=1, device=Device.CPU)
    except NetworkError as error:
        return str(error)
    return None


def check_refused(path: Path) -> None:
    said = complaint(path)
    assert said is not None
    assert path.name in said


def test_every_short_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    whole = bundle.read_bytes()
    torn = tmp_path / "torn.task"
    with pytest.raises(FileNotFoundError, match=r"torn\.task.*pipeline weights"):
        open_face_mesh(torn, input=SPEC, batch=1, device=Device.CPU)
    for length in [0, 1, 21, 22, 4096, *range(100_000, len(whole), 500_000), len(whole) - 1]:
        torn.write_bytes(whole[:length])
        check_refused(torn)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_flipped_byte_is_refused_or_harmless(bundle: Path, tmp_path_factory, data: st.DataObject) -> None:
    content = bytearray(bundle.read_bytes())
    directory = data.draw(st.booleans())  # the last 500 bytes name the members
    place = data.draw(st.integers(len(content) - 500 if directory else 0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("flipped") / "flipped.task"
    path.write_bytes(content)
    assert path.name in (complaint(path) or path.name)
    shutil.rmtree(path.parent)


def bundle_with(path: Path, source: Path, **changed: bytes) -> Path:
    """A sound archive with other content."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in (face_mesh.NETWORK_FILE, face_mesh.HEAD_FILE):
            new.writestr(name, changed.get(name.partition(".")[0], old.read(name)))
    return path


def test_other_content_is_named(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        detector, blendshapes = (archive.read(f"face_{name}.tflite") for name in ("detector", "blendshapes"))
        network = archive.read(face_mesh.NETWORK_FILE)
    assert complaint(bundle_with(tmp_path / "same.task", bundle)) is None
    for content in (detector, blendshapes, network[: len(network) // 2], b"", b"\0" * 100):
        check_refused(bundle_with(tmp_path / "other.task", bundle, face_landmarks_detector=content))
    check_refused(bundle_with(tmp_path / "head.task", bundle, geometry_pipeline_metadata_landmarks=b"\x0a\x05hello"))
    wrong = tmp_path / "wrong.onnx"
    onnx.save(onnx.ModelProto(), wrong)
    check_refused(wrong)
