"""Head pose by the face-mesh network of MediaPipe's bundle alone, in ONNX Runtime.

FaceLandmarker finds a face, cuts it out, and runs this network on it. An aligned face needs no finding: here the
network sees the same part of every picture, many at a time, on the processor or on a GPU.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from data_manifests.tables.stages import Status
from labelers.faces import SIDE
from labelers.pose.head_geometry import EYES_NOSE_MOUTH, GeometryError, read_head_model
from labelers.pose.labeler import MISALIGNED_PX, head_angles, name_angles, template_distance
from labelers.pose.tflite import TfliteError, read_tflite
from labelers.pose.tflite_to_onnx import INPUT, to_onnx
from labelers.runtime.batch_axis import BATCH
from labelers.runtime.onnx import Device, NetworkError, Precision, open_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from labelers.faces import FaceBatch
    from labelers.labeler import Measures
    from labelers.pose.head_geometry import HeadModel
    from labelers.runtime.onnx import InputSpec, Network

NETWORK_FILE = "face_landmarks_detector.tflite"
HEAD_FILE = "geometry_pipeline_metadata_landmarks.binarypb"
"""The two files of the bundle that are used."""

MAX_FILE_BYTES = 1 << 26
"""Of a file in the bundle; the largest has 2.6 MB."""

NETWORK_SIDE = 256
"""Height and width of the network's input in pixels."""

LANDMARKS = 478
"""Points that the network gives: the mesh, and the irises."""

PRESENT = 0.5
"""Least probability of a face: MediaPipe's default for FaceLandmarker (`min_face_presence_confidence`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """The square of the picture that the network sees; beyond the picture its edge goes on.

    Attributes:
        side: in pixels; even, for the square lies in the middle from left to right.
        above: rows that it reaches above the picture.
    """

    side: int
    above: int

    @property
    def left(self) -> int:
        """Columns that it reaches beyond the picture on the left, and on the right."""
        return (self.side - SIDE) // 2

    @property
    def below(self) -> int:
        """Rows that it reaches below the picture."""
        return self.side - SIDE - self.above


CROP = Crop(side=132, above=0)
"""Of crops of 120 to 148 pixels at several heights, tried on 400 natural and 400 damaged faces of LFW against
FaceLandmarker, this one loses no natural face. Its yaw differs by 0.5 degrees at the median and 1.9 at 95 % (natural),
0.6 and 2.8 (damaged). Agreement hardly depends on the crop between 130 and 148 pixels: 1.8 to 2.1 and 2.7 to 3.3 at
95 %; smaller ones cost pitch, larger ones faces."""


class FaceMeshPose:
    """Pose from the points of a face mesh, found in a fixed part of an aligned face."""

    def __init__(self, network: Network, head: HeadModel, *, crop: Crop = CROP) -> None:
        expected = ((3 * LANDMARKS, 1, 1), (1, 1, 1), (1,))
        if network.outputs != expected:
            raise NetworkError(
                f"{network.path} gives {network.outputs} for a picture, expected {expected}: wrong file?"
            )
        self._network = network
        self._head = head
        self._crop = crop

    def __call__(self, faces: FaceBatch) -> Measures:
        """Measure every face; one in which the network sees none gets NaN and `no_face`.

        The notes count faces further than `MISALIGNED_PX` from the ArcFace template: many of them mean that the
        pictures are not aligned, and then the network does not see what it should.
        """
        landmarks, presence = self.find(faces.images)
        present = (presence >= PRESENT) & np.isfinite(landmarks).all(axis=(1, 2))
        degrees = np.full((len(faces), 3), np.nan, np.float32)
        degrees[present] = head_angles(self._head.rotations(landmarks[present]))
        five = landmarks[present][:, EYES_NOSE_MOUTH, :2].astype(np.float64) * SIDE
        misaligned = int((template_distance(five) > MISALIGNED_PX).sum())
        status = [Status.OK if found else Status.NO_FACE for found in present]
        return name_angles(degrees, status, misaligned=misaligned)

    def find(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The points of N faces, and the probability that there is one.

        Args:
            images: uint8 [N, 112, 112, 3], RGB.

        Returns:
            float32 [N, 478, 3], x to the right, y down and depth away from the viewer, as shares of the picture's
            side; float32 [N].
        """
        points, logits, _ = self._network.run(images)
        crop = self._crop
        share = np.float32(crop.side / NETWORK_SIDE / SIDE)
        edge = np.array([crop.left, crop.above, 0], np.float32) / np.float32(SIDE)
        with np.errstate(over="ignore"):
            presence = np.asarray(1 / (1 + np.exp(-logits.reshape(-1))), np.float32)
        return points.reshape(-1, LANDMARKS, 3) * share - edge, presence


def open_face_mesh(
    bundle: Path,
    *,
    input: InputSpec,  # noqa: A002 - the word of labelers/runtime/onnx.py
    batch: int,
    device: Device,
    precision: Precision = Precision.FLOAT32,
) -> FaceMeshPose:
    """Open the network of a bundle.

    Args:
        bundle: MediaPipe's `face_landmarker.task`.
        input: pictures of 112 x 112 pixels, RGB, scaled to 0..1.
        batch: pictures in a run.
        device: where the network runs.
        precision: in what numbers the network computes.

    Raises:
        FileNotFoundError: if there is no such file.
        NetworkError: if it is no bundle with a network of that kind, or is damaged.
        ValueError: if the precision is not for the device.
        ProviderError: if the device cannot be used, or cannot compute so.
    """
    try:
        model = read_network(bundle, device=device, precision=precision)
        head = read_head_model(_read_file(bundle, HEAD_FILE))
    except (TfliteError, GeometryError) as error:
        raise NetworkError(f"{bundle} is no bundle of FaceLandmarker that is known here: {error}") from error
    opened = open_model(model, path=bundle, input=input, batch=batch, device=device, precision=precision)
    return FaceMeshPose(opened, head, crop=CROP)


def read_network(bundle: Path, *, device: Device, precision: Precision = Precision.FLOAT32) -> onnx.ModelProto:
    """The network of a bundle for aligned faces, as `open_face_mesh` opens it on a device.

    Raises:
        FileNotFoundError: if there is no such file.
        NetworkError: if it is damaged.
        TfliteError: if its network is of another kind.
    """
    if not bundle.is_file():
        raise FileNotFoundError(f"no landmarker bundle at {bundle}: `python -m pipeline weights` fetches it")
    # ONNX Runtime's PReLU is slow on the processor, OpenVINO's is not.
    rewrite = device is Device.CPU and precision is Precision.FLOAT32
    network = to_onnx(read_tflite(_read_file(bundle, NETWORK_FILE)), prelu_as_convolutions=rewrite)
    return add_crop(network, CROP)


def add_crop(network: onnx.ModelProto, crop: Crop) -> onnx.ModelProto:
    """Let a network for pictures [N, 3, 256, 256] take aligned faces [N, 3, 112, 112] and look at a part of them.

    The part is enlarged bilinearly. A point half a pixel from the edge of the square stays half a pixel (of the larger
    picture) from it, as in MediaPipe.
    """
    wanted = [3, NETWORK_SIDE, NETWORK_SIDE]
    if [int(side.dim_value) for side in network.graph.input[0].type.tensor_type.shape.dim[1:]] != wanted:
        raise TfliteError(f"the network does not take pictures of {NETWORK_SIDE} x {NETWORK_SIDE} pixels")
    model = onnx.ModelProto()
    model.CopyFrom(network)
    edges = np.array([0, 0, crop.above, crop.left, 0, 0, crop.below, crop.left], np.int64)
    sizes = np.array([NETWORK_SIDE, NETWORK_SIDE], np.int64)
    nodes = [
        helper.make_node("Pad", ["face", "crop_edges"], ["crop"], mode="edge"),
        helper.make_node(
            "Resize",
            ["crop", "", "", "crop_sizes"],
            [INPUT],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
            axes=[2, 3],
        ),
        *model.graph.node,
    ]
    # ONNX Runtime does not infer this shape, and without it fuses less: a fifth slower.
    model.graph.value_info.append(model.graph.input[0])
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend(nodes)
    model.graph.input.append(helper.make_tensor_value_info("face", TensorProto.FLOAT, [BATCH, 3, SIDE, SIDE]))
    model.graph.initializer.extend(
        [numpy_helper.from_array(edges, "crop_edges"), numpy_helper.from_array(sizes, "crop_sizes")]
    )
    return model


def _read_file(bundle: Path, name: str) -> bytes:
    """A file of the bundle, which is a zip archive.

    Raises:
        NetworkError: if the archive or that file in it is damaged, or not there.
    """
    try:
        with zipfile.ZipFile(bundle) as archive, archive.open(name) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    # What zipfile raises for archives that are damaged, or made in a way that it does not know.
    except (
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        EOFError,
        NotImplementedError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:
        raise NetworkError(f"{bundle} is no whole bundle of FaceLandmarker: {name}: {error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise NetworkError(f"{bundle}: {name} has more than {MAX_FILE_BYTES:,} bytes: is this the right file?")
    return content
