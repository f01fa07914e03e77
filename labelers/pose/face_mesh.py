"""Head pose by the face-mesh network of MediaPipe's bundle alone, in ONNX Runtime.

FaceLandmarker finds a face, cuts it out, and runs this network on it. An aligned face needs no finding: here the
network sees the same part of every picture, many at a time, on the processor or on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data_manifests.tables.stages import Status
from labelers.faces import SIDE
from labelers.pose.head_geometry import EYES_NOSE_MOUTH, head_rotations
from labelers.pose.labeler import MISALIGNED_PX, head_angles, name_angles, template_distance
from labelers.runtime.onnx import Device, NetworkError, Precision, open_model, read_model
from labelers.runtime.prelu import blend_prelu

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from labelers.faces import FaceBatch
    from labelers.labeler import Measures
    from labelers.runtime.onnx import InputSpec, Network

NETWORK_SIDE = 256
"""Height and width of the network's input in pixels."""

LANDMARKS = 478
"""Points that the network gives: the mesh, and the irises."""

PRESENT = 0.5
"""Least probability of a face: MediaPipe's default for FaceLandmarker (`min_face_presence_confidence`)."""


CROP_SIDE = 132
"""Side in pixels of the square of the picture that the network sees; the rows that it has more lie below the picture.

Of crops of 120 to 148 pixels at several heights, tried on 400 natural and 400 damaged faces of LFW against
FaceLandmarker, this one loses no natural face. Its yaw differs by 0.5 degrees at the median and 1.9 at 95 % (natural),
0.6 and 2.8 (damaged). Agreement hardly depends on the crop between 130 and 148 pixels: 1.8 to 2.1 and 2.7 to 3.3 at
95 %; smaller ones cost pitch, larger ones faces."""

CROP_LEFT = (CROP_SIDE - SIDE) // 2
"""Columns that the square reaches beyond the picture on the left, and on the right."""


class FaceMeshPose:
    """Pose from the points of a face mesh, found in a fixed part of an aligned face."""

    def __init__(self, network: Network) -> None:
        expected = ((3 * LANDMARKS, 1, 1), (1, 1, 1), (1,))
        if network.outputs != expected:
            raise NetworkError(
                f"{network.path} gives {network.outputs} for a picture, expected {expected}: wrong file?"
            )
        self._network = network

    def __call__(self, faces: FaceBatch) -> Measures:
        """Measure every face; one in which the network sees none gets NaN and `no_face`.

        The notes count faces further than `MISALIGNED_PX` from the ArcFace template: many of them mean that the
        pictures are not aligned, and then the network does not see what it should.
        """
        landmarks, presence = self.find(faces.images)
        present = (presence >= PRESENT) & np.isfinite(landmarks).all(axis=(1, 2))
        degrees = np.full((len(faces), 3), np.nan, np.float32)
        degrees[present] = head_angles(head_rotations(landmarks[present]))
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
        share = np.float32(CROP_SIDE / NETWORK_SIDE / SIDE)
        edge = np.array([CROP_LEFT, 0, 0], np.float32) / np.float32(SIDE)
        with np.errstate(over="ignore"):
            presence = np.asarray(1 / (1 + np.exp(-logits.reshape(-1))), np.float32)
        return points.reshape(-1, LANDMARKS, 3) * share - edge, presence


def open_face_mesh(
    path: Path,
    *,
    input: InputSpec,  # noqa: A002 - the word of labelers/runtime/onnx.py
    batch: int,
    device: Device,
    precision: Precision = Precision.FLOAT32,
) -> FaceMeshPose:
    """Open the network.

    Args:
        path: `face_mesh.onnx`, which comes with this project.
        input: pictures of 112 x 112 pixels, RGB, scaled to 0..1.
        batch: pictures in a run.
        device: where the network runs.
        precision: in what numbers the network computes.

    Raises:
        FileNotFoundError: if there is no such file.
        NetworkError: if it is no network of that kind, or is damaged.
        ValueError: if the precision is not for the device.
        ProviderError: if the device cannot be used, or cannot compute so.
    """
    model = read_network(path, device=device, precision=precision)
    return FaceMeshPose(open_model(model, path=path, input=input, batch=batch, device=device, precision=precision))


def read_network(path: Path, *, device: Device, precision: Precision = Precision.FLOAT32) -> onnx.ModelProto:
    """The network as it runs on a device.

    Raises:
        FileNotFoundError: if there is no such file.
        NetworkError: if it is no ONNX model.
    """
    model = read_model(path)
    # ONNX Runtime's PReLU is slow on the processor, OpenVINO's is not.
    return blend_prelu(model) if device is Device.CPU and precision is Precision.FLOAT32 else model
