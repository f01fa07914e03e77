"""Recognition embeddings by a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from data_manifests.tables.stages import Status
from labelers.labeler import Measures
from labelers.runtime.onnx import NetworkError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from labelers.faces import FaceBatch
    from labelers.runtime.onnx import Network


class EmbeddingLabeler:
    """The embedding of every face, or the sum of those of the face and of its mirror image.

    Args:
        network: gives vectors [N, D], and where `norm` is set their lengths [N, 1] beside them.
        dimension: D, as the network's entry says; None takes any.
        norm: whether the network gives the lengths itself.
        flip: whether the mirror image is added, each vector as long as the network says.

    Raises:
        NetworkError: if the network gives something else.

    Source: of the sum, InsightFace's verification.py and its IJB evaluation.
    """

    def __init__(
        self, network: Network, *, dimension: int | None = None, norm: bool = False, flip: bool = False
    ) -> None:
        vector, *rest = network.outputs
        if len(vector) != 1 or dimension not in (None, *vector) or rest != ([(1,)] if norm else []):
            expected = f"one vector{f' of {dimension} values' if dimension else ''}{' and its length' if norm else ''}"
            hint = (
                "; where the second output is the length that the vector had, say so in its entry of models.toml:"
                " output = { ..., norm = true }"
                if rest == [(1,)] and not norm
                else ": is it a recogniser, and is the `output` of its entry in models.toml right?"
            )
            raise NetworkError(f"{network.path} gives {network.outputs} for a picture, expected {expected}{hint}")
        self._network, self._norm, self._flip = network, norm, flip

    def __call__(self, faces: FaceBatch) -> Measures:
        """Embed every face.

        Returns:
            `embedding` float16 [N, D], brought to unit length before it is rounded, and `norm` float32 [N], the
            length before that, or what the network gives for it. Where that is 0, the vector has no direction: both
            are NaN and the status is `no_face`.

        Raises:
            NetworkError: if a value is not finite, which a sound network does not give; names the face.
        """
        vectors, length, norm = self._embed(faces.images)
        lost = (length == 0.0) | (norm == 0.0)
        wrong = ~np.isfinite(norm) | ~(np.isfinite(length) | lost)  # unit vectors of length 0 are 0 / 0
        if wrong.any():
            key = faces.keys[wrong][0]
            raise NetworkError(
                f"{self._network.path} gives values that are not finite for the image with key {key}:"
                " the weights are damaged, or overflow on this device"
            )
        return Measures(
            columns={
                "embedding": (vectors / np.where(lost, np.nan, length)[:, None]).astype(np.float16),
                "norm": np.where(lost, np.nan, norm).astype(np.float32),
            },
            status=[Status.NO_FACE if gone else Status.OK for gone in lost],
        )

    def _embed(
        self, images: NDArray[np.uint8]
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64], NDArray[np.float64]]:
        """Vectors [N, D], their lengths [N], and the norms [N]."""
        found = read_outputs(self._network.run(images), norm=self._norm)
        if not self._flip:
            return found
        turned = read_outputs(self._network.run(images[:, :, ::-1]), norm=self._norm)
        vectors = _stretch(*found) + _stretch(*turned)
        length = np.linalg.norm(vectors.astype(np.float64), axis=1)
        return vectors, length, length


def read_outputs(
    outputs: list[NDArray[np.float32]], *, norm: bool
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """What a recogniser gives: vectors [N, D], their lengths [N], and the lengths [N] that the network tells.

    Args:
        outputs: of the network.
        norm: whether it gives the lengths itself; else both lengths are the same.
    """
    vectors = outputs[0]
    length = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return vectors, length, outputs[1][:, 0].astype(np.float64) if norm else length


def _stretch(
    vectors: NDArray[np.float32], length: NDArray[np.float64], norm: NDArray[np.float64]
) -> NDArray[np.floating[Any]]:
    """Vectors [N, D] that are as long as the network says; 0 where it says 0."""
    if norm is length:
        return vectors
    return np.where((norm == 0.0)[:, None], 0.0, vectors * (norm / length)[:, None])
