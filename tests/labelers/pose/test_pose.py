"""Head pose: signs and formulas, three independent models on real faces, and a quiet, silent, repeatable MediaPipe."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_manifests.alignment import ARCFACE_TEMPLATE
from data_manifests.recordio.record_file import RecordFile
from data_manifests.tables.stages import Status
from data_manifests.weights.files import WeightsMissingError, find
from data_manifests.weights.registry import load_registry
from labelers.faces import FaceBatch, decode_batch
from labelers.pose.labeler import AnglesPose, BinsPose, LandmarkerPose, expected_angle, head_angles, template_distance
from labelers.pose.landmarker import LandmarkerError, quiet_stderr
from labelers.runtime.onnx import Colour, Device, InputSpec, NetworkError, open_network

FSANET = InputSpec(width=64, height=64, colour=Colour.BGR, mean=(127.5, 127.5, 127.5), std=(128.0, 128.0, 128.0))
ANGLES = ("yaw_deg", "pitch_deg", "roll_deg")
PEOPLE = 150


def make_batch(images: np.ndarray) -> FaceBatch:
    keys = np.arange(1, len(images) + 1, dtype=np.int32)
    return FaceBatch(keys=keys, images=np.ascontiguousarray(images), identities=keys)


def stack(columns: dict[str, np.ndarray]) -> np.ndarray:
    assert tuple(columns) == ANGLES
    assert all(column.dtype == np.float32 for column in columns.values())
    return np.stack(list(columns.values()), axis=1)


@pytest.fixture(scope="module")
def faces(real_data: Path) -> FaceBatch:
    with RecordFile(real_data / "data" / "lfw112_natural" / "train.rec") as file:
        keys = np.sort(np.random.default_rng(3).choice(file.keys, PEOPLE, replace=False)).astype(np.int32)
        encoded = [file.read(int(key))[1] for key in keys]
    return decode_batch(keys, keys, encoded)[0]


@pytest.fixture(scope="module")
def landmarker(real_data: Path):
    with LandmarkerPose(real_data / "models" / "face_landmarker.task") as pose:
        yield pose


@pytest.fixture(scope="module")
def fsanet(real_data: Path) -> AnglesPose:
    paths = [real_data / "models" / f"fsanet-{kind}-iter-688590.onnx" for kind in ("1x1", "var")]
    return AnglesPose([open_network(path, input=FSANET, batch=8, device=Device.CPU) for path in paths])


@pytest.fixture(scope="module")
def fr_pose() -> BinsPose:
    entry = load_registry().get("fr_pose")
    try:
        (path,) = find(entry)
    except WeightsMissingError as error:
        pytest.skip(str(error))
    assert entry.input is not None
    assert entry.output.kind == "bins66"
    spec = InputSpec(
        width=entry.input.width,
        height=entry.input.height,
        colour=Colour(entry.input.colour),
        mean=entry.input.mean,
        std=entry.input.std,
    )
    network = open_network(path, input=spec, batch=entry.batch, device=Device.CPU)
    output = entry.output
    return BinsPose(network, signs=output.signs, width_deg=output.width_deg, offset_deg=output.offset_deg)


@pytest.fixture(scope="module")
def reference(landmarker: LandmarkerPose, faces: FaceBatch):
    return landmarker(faces)


# --- formulas ---------------------------------------------------------------------------------------------------------


def turn(axis: int, degrees: float) -> np.ndarray:
    """Right-handed rotation about x, y or z."""
    a, b = [i for i in range(3) if i != axis]
    if axis == 1:
        a, b = b, a
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = c
    matrix[a, b], matrix[b, a] = -s, s
    return matrix


small = st.floats(-80, 80)


@given(yaw=small, pitch=small, roll=st.floats(-170, 170))
def test_angles_come_back_from_their_rotation(yaw: float, pitch: float, roll: float) -> None:
    # x right, y up, z to the viewer: the nose to the right is a positive turn about y, up a negative one about x,
    # and clockwise, as the viewer sees it, a negative one about z.
    rotation = turn(1, yaw) @ turn(0, -pitch) @ turn(2, -roll)
    np.testing.assert_allclose(head_angles(rotation), (yaw, pitch, roll), atol=1e-9)


def test_angles_follow_the_contracts_formulas() -> None:
    r = turn(2, 20) @ turn(0, 30) @ turn(1, -40)
    expected = (
        np.degrees(np.arctan2(r[0, 2], r[2, 2])),
        np.degrees(np.arctan2(r[1, 2], np.hypot(r[0, 2], r[2, 2]))),
        -np.degrees(np.arctan2(r[1, 0], r[1, 1])),
    )
    np.testing.assert_allclose(head_angles(r), expected)


def test_bins_by_hand() -> None:
    sure = np.full((3, 66), -1e4, np.float32)
    sure[0, 0] = sure[1, 33] = sure[2, 65] = 0.0
    np.testing.assert_allclose(expected_angle(sure), [-99.0, 0.0, 96.0], atol=1e-5)
    halves = np.full((1, 66), -1e4, np.float32)
    halves[0, [30, 40]] = 7.0
    np.testing.assert_allclose(expected_angle(halves), [35 * 3 - 99], atol=1e-5)
    np.testing.assert_allclose(expected_angle(halves, 2.0, 1.0), [71.0], atol=1e-5)


def test_the_template_lies_on_itself() -> None:
    assert template_distance(ARCFACE_TEMPLATE.astype(float)) == 0.0
    assert template_distance(ARCFACE_TEMPLATE + np.array([3.0, 4.0])) == pytest.approx(5.0, rel=1e-6)


# --- MediaPipe on real faces ------------------------------------------------------------------------------------------


def test_aligned_faces_are_measured(reference) -> None:
    angles = stack(reference.columns)
    found = np.array([status is Status.OK for status in reference.status])
    assert set(reference.status) <= {Status.OK, Status.NO_FACE}
    assert found.mean() > 0.98
    assert np.isnan(angles[~found]).all()
    assert np.isfinite(angles[found]).all()
    assert np.abs(angles[found]).max() < 90
    assert reference.notes["misaligned"] <= 0.02 * PEOPLE


def test_mirrored_faces_have_mirrored_pose(landmarker: LandmarkerPose, faces: FaceBatch, reference) -> None:
    mirrored = stack(landmarker(make_batch(faces.images[:40, :, ::-1])).columns)
    difference = mirrored - stack(reference.columns)[:40] * np.float32([-1, 1, -1])
    assert np.nanmedian(np.abs(difference), axis=0).max() < 2.0


def test_order_and_company_change_nothing(landmarker: LandmarkerPose, faces: FaceBatch, reference) -> None:
    rows = np.arange(24)[::-1]
    again = stack(landmarker(make_batch(faces.images[rows])).columns)
    np.testing.assert_array_equal(again, stack(reference.columns)[rows])


def test_no_face_is_null(landmarker: LandmarkerPose, faces: FaceBatch) -> None:
    images = np.stack([np.zeros((112, 112, 3), np.uint8), faces.images[0], np.full((112, 112, 3), 200, np.uint8)])
    measures = landmarker(make_batch(images))
    assert measures.status == [Status.NO_FACE, Status.OK, Status.NO_FACE]
    assert np.isnan(stack(measures.columns)).all(axis=1).tolist() == [True, False, True]
    assert measures.notes == {"padded": 0, "misaligned": 0}


def test_unaligned_faces_are_counted(landmarker: LandmarkerPose, faces: FaceBatch) -> None:
    matrix = cv2.getRotationMatrix2D((56, 72), 0, 0.55) + np.array([[0, 0, 0], [0, 0, -16]])
    loose = np.stack([cv2.warpAffine(image, matrix, (112, 112)) for image in faces.images[:20]])
    measures = landmarker(make_batch(loose))
    assert measures.notes["misaligned"] >= 18
    assert measures.notes["misaligned"] <= measures.status.count(Status.OK)


def test_padding_finds_what_fills_the_picture(landmarker: LandmarkerPose, faces: FaceBatch, reference) -> None:
    """Enlarged until the detector loses some faces: those that padding brings back have the same pose."""
    matrix = cv2.getRotationMatrix2D((56, 72), 0, 1.7)
    close = np.stack([cv2.warpAffine(image, matrix, (112, 112)) for image in faces.images[:60]])
    measures = landmarker(make_batch(close))
    assert measures.notes["padded"] > 0
    difference = np.abs(stack(measures.columns) - stack(reference.columns)[:60])[:, 0]
    assert np.nanmedian(difference) < 6.0


# --- the networks against MediaPipe -----------------------------------------------------------------------------------


def check_against(reference, measures) -> None:
    assert set(measures.status) == {Status.OK}
    angles, truth = stack(measures.columns), stack(reference.columns)
    found = np.isfinite(truth[:, 0])
    correlation = np.corrcoef(truth[found].T, angles[found].T)[:3, 3:]
    # Each angle belongs to its own one in MediaPipe, with the same sign.
    assert (correlation.argmax(axis=1) == np.arange(3)).all()
    assert correlation[0, 0] > 0.95
    assert correlation[1, 1] > 0.8
    assert correlation[2, 2] > 0.65  # aligned faces hardly roll: 4 degrees
    assert np.abs(angles - truth)[found, 0].mean() < 3.5


def check_roll(pose, landmarker: LandmarkerPose, faces: FaceBatch) -> None:
    """A picture turned clockwise by 20 degrees rolls by 20 degrees more."""
    matrix = cv2.getRotationMatrix2D((56, 64), -20, 1)  # OpenCV counts the other way
    upright = make_batch(faces.images[:30])
    turned = make_batch(np.stack([cv2.warpAffine(image, matrix, (112, 112)) for image in upright.images]))
    for model, slack in ((landmarker, 3.0), (pose, 8.0)):
        change = stack(model(turned).columns)[:, 2] - stack(model(upright).columns)[:, 2]
        assert np.nanmedian(change) == pytest.approx(20.0, abs=slack)


def test_fsanet_agrees_with_mediapipe(
    fsanet: AnglesPose, landmarker: LandmarkerPose, faces: FaceBatch, reference
) -> None:
    check_against(reference, fsanet(faces))
    check_roll(fsanet, landmarker, faces)


def test_fr_pose_agrees_with_mediapipe(
    fr_pose: BinsPose, landmarker: LandmarkerPose, faces: FaceBatch, reference
) -> None:
    check_against(reference, fr_pose(faces))
    check_roll(fr_pose, landmarker, faces)


def test_signs_and_averaging(real_data: Path, faces: FaceBatch) -> None:
    few = make_batch(faces.images[:5])
    paths = [real_data / "models" / f"fsanet-{kind}-iter-688590.onnx" for kind in ("1x1", "var")]
    networks = [open_network(path, input=FSANET, batch=8, device=Device.CPU) for path in paths]
    raw = [network.run(few.images)[0] for network in networks]
    plain = stack(AnglesPose(networks, signs=(1, 1, 1))(few).columns)
    np.testing.assert_allclose(plain, (raw[0] + raw[1]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(stack(AnglesPose(networks, signs=(1, -1, -1))(few).columns), plain * [1, -1, -1])
    with pytest.raises(ValueError, match="sign"):
        AnglesPose(networks, signs=(1, 0, 1))
    with pytest.raises(ValueError, match="at least one"):
        AnglesPose([])
    with pytest.raises(NetworkError, match="fsanet-1x1"):
        BinsPose(networks[0])


# --- MediaPipe as a guest ---------------------------------------------------------------------------------------------


def test_a_damaged_bundle_is_named(tmp_path: Path, real_data: Path) -> None:
    whole = (real_data / "models" / "face_landmarker.task").read_bytes()
    (tmp_path / "half.task").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LandmarkerError, match=r"half\.task"):
        LandmarkerPose(tmp_path / "half.task")
    with pytest.raises(FileNotFoundError, match=r"absent\.task.*pipeline weights"):
        LandmarkerPose(tmp_path / "absent.task")


def test_it_is_quiet_and_makes_no_connection(real_data: Path) -> None:
    """Opened, used, and closed twice over: by hand, and by the end of the interpreter."""
    listener = socket.create_server(("127.0.0.1", 0))
    callers: list[object] = []
    threading.Thread(target=lambda: callers.append(listener.accept()), daemon=True).start()
    proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
    script = f"""
import numpy as np
from pathlib import Path
from labelers.faces import FaceBatch
from labelers.pose.labeler import LandmarkerPose
task = Path({str(real_data / "models" / "face_landmarker.task")!r})
keys = np.arange(2, dtype=np.int32)
faces = FaceBatch(keys=keys, images=np.zeros((2, 112, 112, 3), np.uint8), identities=keys)
with LandmarkerPose(task) as pose:
    pose(faces)
forgotten = LandmarkerPose(task)
forgotten(faces)
"""
    environment = {**os.environ, "https_proxy": proxy, "HTTPS_PROXY": proxy, "no_proxy": "", "NO_PROXY": ""}
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    listener.close()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not callers


def test_the_environment_comes_back_after_the_last_block() -> None:
    # In a process of its own: here landmarkers of other tests are open.
    script = """
import os
from labelers.pose.landmarker import block_network
before = dict(os.environ)
first, second = block_network(), block_network()
first.__enter__()
second.__enter__()
first.__exit__(None, None, None)
assert os.environ["https_proxy"] != before["https_proxy"]
second.__exit__(None, None, None)
assert dict(os.environ) == before
"""
    environment = {**os.environ, "https_proxy": "http://proxy.example:8080"}
    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=root, check=True)


def test_only_known_chatter_is_dropped(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with quiet_stderr():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nE0000 real trouble\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
    assert [record.getMessage() for record in caplog.records] == ["MediaPipe: E0000 real trouble"]


@pytest.mark.parametrize("end", ["os.abort()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_native_code_says_before_it_ends_the_process_is_told(real_data: Path, tmp_path: Path, end: str) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
from labelers.pose.landmarker import Landmarker, vision
def die(options):
    os.write(2, b"F0000 no memory of this size\\n")
    {end}
vision.FaceLandmarker.create_from_options = die  # where MediaPipe aborts
Landmarker(Path(sys.argv[1]))
"""
    command = [sys.executable, "-c", script, str(real_data / "models" / "face_landmarker.task")]
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode < 0
    assert done.stderr == "F0000 no memory of this size\n"
    assert not list(tmp_path.iterdir())


def test_networks_do_without_mediapipe() -> None:
    script = "import sys, labelers.pose.labeler; sys.exit('mediapipe' in sys.modules or 'torch' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 0
