"""Recognition embeddings by a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data_manifests.tables.stages import Status
from labelers.labeler import Measures
from labelers.runtime.onnx import NetworkError

if TYPE_CHECKING:
    from labelers.faces import FaceBatch
    from labelers.runtime.onnx import Network


class EmbeddingLabeler:
    """The embedding of every face, or the sum of those of the face and of its mirror image.

    Args:
        network: the recogniser.
        flip: whether the mirror image is added, before the vector is brought to unit length.

    Source: InsightFace's verification.py and its IJB evaluation, which add both.
    """

    def __init__(self, network: Network, *, flip: bool = False) -> None:
        if len(network.outputs) != 1 or len(network.outputs[0]) != 1:
            raise NetworkError(
                f"{network.path} gives {network.outputs} for a picture, expected one vector: is it a recogniser?"
            )
        self._network = network
        self._flip = flip

    def __call__(self, faces: FaceBatch) -> Measures:
        """Embed every face.

        Returns:
            `embedding` float16 [N, D], brought to unit length before it is rounded, and `norm` float32 [N], the
            length before that. Where the network gives a zero vector, which has no direction, both are NaN and the
            status is `no_face`.

        Raises:
            NetworkError: if a value is not finite, which a sound network does not give; names the face.
        """
        vectors = self._network.run(faces.images)[0]  # [N, D]
        if self._flip:
            vectors += self._network.run(faces.images[:, :, ::-1])[0]
        norm = np.linalg.norm(vectors.astype(np.float64), axis=1)
        if not np.isfinite(norm).all():
            key = faces.keys[~np.isfinite(norm)][0]
            raise NetworkError(
                f"{self._network.path} gives values that are not finite for the image with key {key}:"
                " the weights are damaged, or overflow on this device"
            )
        lost = norm == 0.0
        norm[lost] = np.nan
        return Measures(
            columns={
                "embedding": (vectors / norm[:, None]).astype(np.float16),
                "norm": norm.astype(np.float32),
            },
            status=[Status.NO_FACE if gone else Status.OK for gone in lost],
        )
