"""Head pose in degrees, by MediaPipe's face landmarker or by a network.

All of them report: yaw positive where the nose points to the right of the picture, pitch positive where the face looks
up, roll positive clockwise in the picture.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.alignment import ARCFACE_TEMPLATE
from data_manifests.tables.stages import Status
from labelers.labeler import Measures
from labelers.runtime.onnx import NetworkError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from labelers.faces import FaceBatch
    from labelers.runtime.onnx import Network

MISALIGNED_PX = 10.0
"""Mean distance in pixels of the five landmarks from the ArcFace template beyond which a face counts as not aligned.

Of 1,500 real aligned faces one lies further (median 3.4, 99.9 % within 9.1). Shifted by a tenth of the picture, turned
by 25 degrees or shrunk to half, their median is 10 to 12.
"""

BINS = 66
"""Number of classes an angle is cut into."""

BIN_DEGREES = 3.0
"""Width of a bin in degrees. Source: Hopenet (Ruiz et al. 2018), section 3.2 and its released code."""

FIRST_BIN_DEGREES = -99.0
"""The angle of bin 0 in degrees, likewise."""


Signs = tuple[int, int, int]
"""For yaw, pitch and roll: 1, or -1 where a network counts the other way."""

YAW_REVERSED: Signs = (-1, 1, 1)
"""FSA-Net and Hopenet count yaw towards the left of the picture."""


class Angle(StrEnum):
    """The three angles of a head, in the order of the `pose` table."""

    YAW = "yaw_deg"
    PITCH = "pitch_deg"
    ROLL = "roll_deg"


def head_angles(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Yaw, pitch and roll in degrees, [..., 3], of rotations [..., 3, 3] in MediaPipe's axes.

    With x right, y up and z to the viewer: yaw = atan2(R02, R22), pitch = atan2(R12, hypot(R02, R22)),
    roll = -atan2(R10, R11).
    """
    r = np.moveaxis(rotations, (-2, -1), (0, 1))
    yaw = np.arctan2(r[0, 2], r[2, 2])
    pitch = np.arctan2(r[1, 2], np.hypot(r[0, 2], r[2, 2]))
    roll = -np.arctan2(r[1, 0], r[1, 1])
    return np.asarray(np.degrees(np.stack([yaw, pitch, roll], axis=-1)))


class LandmarkerPose:
    """Pose from the head matrix of MediaPipe's FaceLandmarker, on the CPU; close it, or use it in a `with`."""

    def __init__(self, task_file: Path) -> None:
        # Here because importing MediaPipe takes seconds, and the networks below do without it.
        from labelers.pose.landmarker import Landmarker  # noqa: PLC0415

        self._landmarker = Landmarker(task_file)

    def __call__(self, faces: FaceBatch) -> Measures:
        """Measure every face; one that is not found, even after padding, gets NaN and `no_face`.

        The notes count faces that were found only after padding, and those further than `MISALIGNED_PX` from the
        ArcFace template: many of them mean that the pictures are not aligned.
        """
        degrees = np.full((len(faces), 3), np.nan, np.float32)
        status = [Status.NO_FACE] * len(faces)
        padded = misaligned = 0
        for row, image in enumerate(faces.images):
            found = self._landmarker.find(image)
            if found is None:
                continue
            degrees[row] = head_angles(found.rotation)
            status[row] = Status.OK
            padded += found.padded
            misaligned += bool(template_distance(found.landmarks) > MISALIGNED_PX)
        return name_angles(degrees, status, padded=padded, misaligned=misaligned)

    def close(self) -> None:
        """Free the model."""
        self._landmarker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def template_distance(landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean distances [...] in pixels of five landmarks [..., 5, 2] of 112 x 112 pictures from the ArcFace template."""
    return np.asarray(np.linalg.norm(landmarks - ARCFACE_TEMPLATE, axis=-1).mean(axis=-1))


class AnglesPose:
    """Pose from networks that give yaw, pitch and roll in degrees, such as FSA-Net; several networks are averaged."""

    def __init__(self, networks: Sequence[Network], *, signs: Signs = YAW_REVERSED) -> None:
        if not networks:
            raise ValueError("a pose needs at least one network")
        for network in networks:
            _expect_outputs(network, ((3,),))
        self._networks = tuple(networks)
        self._signs = _check_signs(signs)

    def __call__(self, faces: FaceBatch) -> Measures:
        """Measure every face. A network answers to any picture, so there is no `no_face`."""
        total = np.zeros((len(faces), 3), np.float32)
        for network in self._networks:
            total += network.run(faces.images)[0]
        return name_angles(total / np.float32(len(self._networks)) * self._signs)


class BinsPose:
    """Pose from a network that gives a distribution over 66 bins for yaw, pitch and roll, such as Hopenet."""

    def __init__(
        self,
        network: Network,
        *,
        signs: Signs = YAW_REVERSED,
        width_deg: float = BIN_DEGREES,
        offset_deg: float = FIRST_BIN_DEGREES,
    ) -> None:
        _expect_outputs(network, ((BINS,),) * 3)
        self._network = network
        self._signs = _check_signs(signs)
        self._width, self._offset = width_deg, offset_deg

    def __call__(self, faces: FaceBatch) -> Measures:
        """Measure every face. A network answers to any picture, so there is no `no_face`."""
        logits = np.stack(self._network.run(faces.images), axis=1)  # [N, 3, 66]
        return name_angles(expected_angle(logits, self._width, self._offset) * self._signs)


def expected_angle(
    logits: NDArray[np.float32], width_deg: float = BIN_DEGREES, offset_deg: float = FIRST_BIN_DEGREES
) -> NDArray[np.float32]:
    """The mean angle in degrees of a softmax over bins: sum of p_i (width i + offset).

    Args:
        logits: [..., 66].
        width_deg: of a bin, in degrees.
        offset_deg: the angle of bin 0, in degrees.

    Returns:
        float32 [...]. Source: Hopenet (Ruiz et al. 2018), section 3.2.
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    p = shifted / shifted.sum(axis=-1, keepdims=True)
    # Not a matrix product, whose rounding depends on the number of rows.
    mean = (p * np.arange(logits.shape[-1])).sum(axis=-1)
    return np.asarray(mean * width_deg + offset_deg, np.float32)


def name_angles(degrees: NDArray[np.float32], status: list[Status] | None = None, **notes: int) -> Measures:
    """Name the columns of yaw, pitch and roll, [N, 3]; all ok unless said otherwise."""
    return Measures(
        columns={str(angle): np.ascontiguousarray(degrees[:, column]) for column, angle in enumerate(Angle)},
        status=status or [Status.OK] * len(degrees),
        notes=notes,
    )


def _check_signs(signs: Signs) -> NDArray[np.float32]:
    """Three signs as an array to multiply angles [N, 3] with."""
    if len(signs) != 3 or not set(signs) <= {-1, 1}:
        raise ValueError(f"yaw, pitch and roll need a sign of 1 or -1 each, not {signs}")
    return np.array(signs, np.float32)


def _expect_outputs(network: Network, outputs: tuple[tuple[int, ...], ...]) -> None:
    """Raise NetworkError unless the network gives these shapes for one picture."""
    if network.outputs != outputs:
        raise NetworkError(f"{network.path} gives {network.outputs} for a picture, expected {outputs}: wrong file?")
