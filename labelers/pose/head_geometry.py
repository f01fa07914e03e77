"""The rotation of a head from the points of its face mesh.

In the manner of MediaPipe's face geometry module: a canonical head, whose points stand in the bundle beside the
networks, is scaled, turned and moved onto the points that were found, as if they were seen by a camera.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MESH_POINTS = 468
"""Points of the face mesh; ten more, from 468 on, are those of the irises."""

EYES_NOSE_MOUTH = (468, 473, 4, 61, 291)
"""MediaPipe's points that stand for ArcFace's five: centres of the irises, nose tip, corners of the mouth."""

FIELD_OF_VIEW_DEG = 63.0
"""Of the camera that MediaPipe's FaceLandmarker assumes, from the top of the picture to its bottom."""

VERTEX_VALUES = 5
"""Values of a point of the canonical head: x, y, z in centimetres, and two of its texture."""


class GeometryError(ValueError):
    """The description of the canonical head is damaged or is something else."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadModel:
    """The points of a canonical head that decide how a head is turned.

    Attributes:
        numbers: int64 [n], which points of the mesh they are.
        points: float64 [n, 3], where they lie on the canonical head: x right, y up, z to the viewer.
        weights: float64 [n], what a point counts.
    """

    numbers: NDArray[np.int64]
    points: NDArray[np.float64]
    weights: NDArray[np.float64]

    def rotations(self, mesh: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """The rotations of N heads, as FaceLandmarker's head matrices hold them.

        A point's depth is known only up to the head's size. So the head is laid onto the points as they stand in the
        picture, which gives a scale; with it the points go to where a camera would have seen them; the head is laid
        onto these, for a better scale, and once more.

        Args:
            mesh: [N, 468 or more, 3]: x to the right and y down, as shares of a square picture's side, and depth away
                from the viewer on the same scale.

        Returns:
            float64 [N, 3, 3] in MediaPipe's axes (x right, y up, z to the viewer). A row depends on its own points
            alone, to the last bit.
        """
        side = 2 * np.tan(np.radians(FIELD_OF_VIEW_DEG) / 2)  # of the picture, one unit before the camera
        seen = (mesh[:, self.numbers].astype(np.float64) - [0.5, 0.5, 0.0]) * [side, -side, side]  # [N, n, 3]
        # A product for each head, as below, so that no row's rounding depends on how many others there are.
        away = mesh[:, None, :MESH_POINTS, 2].astype(np.float64)  # [N, 1, 468]
        depth = (away @ np.full((MESH_POINTS, 1), side / MESH_POINTS))[:, 0, 0]  # [N]
        scale = self._lay_onto(seen * [1, 1, -1])[1]
        scale = scale * self._lay_onto(_unproject(seen, depth, scale))[1]
        return self._lay_onto(_unproject(seen, depth, scale))[0]

    def _lay_onto(self, targets: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The rotations [N, 3, 3] and scales [N] with which the points come nearest to targets [N, n, 3].

        The orthogonal Procrustes problem (Schönemann 1966) with weights, a scale and a translation, and with
        reflections excluded: for the covariance U S V' of centred points, R = U diag(1, 1, det(U V')) V'.
        """
        shares = self.weights / self.weights.sum()
        centred = self.points - shares @ self.points
        weighted = centred * shares[:, None]
        # Centring one of both sides is enough.
        covariance = targets.swapaxes(1, 2) @ weighted  # [N, 3, 3]
        left, _, right = np.linalg.svd(covariance)
        left[:, :, 2] *= np.sign(np.linalg.det(left) * np.linalg.det(right))[:, None]
        rotation = left @ right
        return rotation, (rotation * covariance).sum(axis=(1, 2)) / (weighted * self.points).sum()


def _unproject(
    seen: NDArray[np.float64], depth: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Points [N, n, 3] in the picture's plane, to where a camera sees them there, for heads of these scales [N].

    Args:
        seen: x and y in the plane one unit before the camera, and depth away from it.
        depth: [N], the mean depth of each face, which comes to lie in that plane.
        scale: [N], how large the heads are in the picture.
    """
    away = (seen[..., 2] - depth[:, None] + 1.0) / scale[:, None]
    return np.stack([seen[..., 0] * away, seen[..., 1] * away, -away], axis=-1)


def read_head_model(content: bytes) -> HeadModel:
    """Read the canonical head of a bundle, the protocol buffer `geometry_pipeline_metadata_landmarks.binarypb`.

    Raises:
        GeometryError: if it is damaged, or holds something else.
    """
    metadata = _message_class()()
    try:
        metadata.ParseFromString(content)
    except DecodeError as error:
        raise GeometryError(f"the canonical head is damaged: {error}") from error
    values = np.array(metadata.canonical_mesh.vertex_buffer, np.float64)
    numbers = np.array([point.landmark_id for point in metadata.procrustes_landmark_basis], np.int64)
    weights = np.array([point.weight for point in metadata.procrustes_landmark_basis], np.float64)
    if values.shape != (MESH_POINTS * VERTEX_VALUES,) or len(numbers) < 3 or numbers.max() >= MESH_POINTS:
        raise GeometryError(
            f"the canonical head has {len(values)} values and {len(numbers)} points that count, expected "
            f"{MESH_POINTS * VERTEX_VALUES} and at least 3 among the first {MESH_POINTS}"
        )
    points = values.reshape(MESH_POINTS, VERTEX_VALUES)[numbers, :3]
    if not np.isfinite(points).all() or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
        raise GeometryError("the canonical head has points or weights that are no numbers, or negative weights")
    if np.abs(points).max() > 1e6 or np.linalg.matrix_rank(points - points.mean(axis=0)) < 3:
        raise GeometryError("the points of the canonical head do not span a head")
    return HeadModel(numbers=numbers, points=points, weights=weights)


@functools.cache
def _message_class() -> type[Any]:
    """The class of the bundle's message, with those fields of MediaPipe's GeometryPipelineMetadata that are read."""
    file = descriptor_pb2.FileDescriptorProto(name="head_geometry.proto", package="head", syntax="proto2")
    field = descriptor_pb2.FieldDescriptorProto
    many, one = field.LABEL_REPEATED, field.LABEL_OPTIONAL
    mesh = file.message_type.add(name="Mesh")
    mesh.field.add(name="vertex_buffer", number=3, type=field.TYPE_FLOAT, label=many)
    point = file.message_type.add(name="Point")
    point.field.add(name="landmark_id", number=1, type=field.TYPE_UINT32, label=one)
    point.field.add(name="weight", number=2, type=field.TYPE_FLOAT, label=one)
    whole, message = file.message_type.add(name="Metadata"), field.TYPE_MESSAGE
    whole.field.add(name="canonical_mesh", number=1, type=message, type_name=".head.Mesh", label=one)
    whole.field.add(name="procrustes_landmark_basis", number=2, type=message, type_name=".head.Point", label=many)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("head.Metadata"))
