"""The rotation of a head from the points of its face mesh.

In the manner of MediaPipe's face geometry module: a canonical head is scaled, turned and moved onto the points that
were found, as if they were seen by a camera.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MESH_POINTS = 468
"""Points of the face mesh; ten more, from 468 on, are those of the irises."""

EYES_NOSE_MOUTH = (468, 473, 4, 61, 291)
"""MediaPipe's points that stand for ArcFace's five: centres of the irises, nose tip, corners of the mouth."""

FIELD_OF_VIEW_DEG = 63.0
"""Of the camera that MediaPipe's FaceLandmarker assumes, from the top of the picture to its bottom."""

_HEAD = np.array([
    # point, x, y, z, weight
    (4, 0.0, -0.46317, 7.58658, 0.07090994),
    (6, 0.0, 2.473255, 5.788627, 0.032100145),
    (10, 0.0, 8.261778, 4.481535, 0.008446551),
    (33, -4.445859, 2.663991, 3.173422, 0.05872417),
    (54, -6.279331, 6.615427, 1.42585, 0.00766708),
    (67, -3.523964, 8.005976, 3.729163, 0.009078059),
    (117, -5.258659, 0.945811, 2.974312, 0.009791938),
    (119, -3.300681, 0.861641, 3.872784, 0.014565368),
    (121, -1.820731, 1.467954, 4.224124, 0.018591361),
    (127, -7.743095, 2.364999, -2.005167, 0.0051979944),
    (129, -1.785794, -0.978284, 4.85047, 0.120625205),
    (132, -7.270895, -2.890917, -2.252455, 0.0055600186),
    (133, -1.856432, 2.585245, 3.757904, 0.053286184),
    (136, -5.085276, -7.17859, 0.714711, 0.066890456),
    (143, -6.407571, 2.236021, 1.560843, 0.014816548),
    (147, -6.234883, -1.94443, 1.663542, 0.014262834),
    (198, -1.246815, 0.230297, 5.681036, 0.025462192),
    (205, -3.832928, -1.537326, 4.137731, 0.04725228),
    (263, 4.445859, 2.663991, 3.173422, 0.05872417),
    (284, 6.279331, 6.615427, 1.42585, 0.00766708),
    (297, 3.523964, 8.005976, 3.729163, 0.009078059),
    (346, 5.258659, 0.945811, 2.974312, 0.009791938),
    (348, 3.300681, 0.861641, 3.872784, 0.014565368),
    (350, 1.820731, 1.467954, 4.224124, 0.018591361),
    (356, 7.743095, 2.364999, -2.005167, 0.0051979944),
    (358, 1.785794, -0.978284, 4.85047, 0.120625205),
    (361, 7.270895, -2.890917, -2.252455, 0.0055600186),
    (362, 1.856432, 2.585245, 3.757904, 0.053286184),
    (365, 5.085276, -7.17859, 0.714711, 0.066890456),
    (372, 6.407571, 2.236021, 1.560843, 0.014816548),
    (376, 6.234883, -1.94443, 1.663542, 0.014262834),
    (420, 1.246815, 0.230297, 5.681036, 0.025462192),
    (425, 3.832928, -1.537326, 4.137731, 0.04725228),
], np.float32).astype(np.float64)  # fmt: skip
"""The points of MediaPipe's canonical head that decide how a head is turned: their numbers in the mesh, where they lie
on the head in centimetres (x right, y up, z to the viewer), and what each counts. From
`geometry_pipeline_metadata_landmarks.binarypb` in MediaPipe's bundle `face_landmarker.task` (Apache-2.0)."""

HEAD_NUMBERS = _HEAD[:, 0].astype(np.int64)
HEAD_POINTS = np.ascontiguousarray(_HEAD[:, 1:4])
HEAD_WEIGHTS = np.ascontiguousarray(_HEAD[:, 4])


def head_rotations(mesh: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
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
    seen = (mesh[:, HEAD_NUMBERS].astype(np.float64) - [0.5, 0.5, 0.0]) * [side, -side, side]  # [N, n, 3]
    # A product for each head, as below, so that no row's rounding depends on how many others there are.
    away = mesh[:, None, :MESH_POINTS, 2].astype(np.float64)  # [N, 1, 468]
    depth = (away @ np.full((MESH_POINTS, 1), side / MESH_POINTS))[:, 0, 0]  # [N]
    scale = _lay_onto(seen * [1, 1, -1])[1]
    scale = scale * _lay_onto(_unproject(seen, depth, scale))[1]
    return _lay_onto(_unproject(seen, depth, scale))[0]


def _lay_onto(targets: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The rotations [N, 3, 3] and scales [N] with which the points come nearest to targets [N, n, 3].

    The orthogonal Procrustes problem (Schönemann 1966) with weights, a scale and a translation, and with
    reflections excluded: for the covariance U S V' of centred points, R = U diag(1, 1, det(U V')) V'.
    """
    shares = HEAD_WEIGHTS / HEAD_WEIGHTS.sum()
    centred = HEAD_POINTS - shares @ HEAD_POINTS
    weighted = centred * shares[:, None]
    # Centring one of both sides is enough.
    covariance = targets.swapaxes(1, 2) @ weighted  # [N, 3, 3]
    left, _, right = np.linalg.svd(covariance)
    left[:, :, 2] *= np.sign(np.linalg.det(left) * np.linalg.det(right))[:, None]
    rotation = left @ right
    return rotation, (rotation * covariance).sum(axis=(1, 2)) / (weighted * HEAD_POINTS).sum()


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
