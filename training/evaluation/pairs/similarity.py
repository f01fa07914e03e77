"""Cosine similarity of pairs of images: one number a pair, however the pairs are grouped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labelers.anchors.centres import unit_rows
from labelers.runtime.compilation import compile_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VALUES = 1 << 20
"""Values brought to unit length at a time: 8 MB in float64."""

_SUMS = 16


def unit_embeddings(embeddings: NDArray[np.floating[Any]], rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Some rows of embeddings [N, D] at unit length, float32 [K, D]; a row without direction becomes NaN."""
    units = np.empty((len(rows), embeddings.shape[1]), np.float32)
    step = max(_VALUES // max(embeddings.shape[1], 1), 1)
    for start in range(0, len(rows), step):
        units[start : start + step] = unit_rows(embeddings[rows[start : start + step]])
    return units


def pair_similarities(
    units: NDArray[np.float32], a: NDArray[np.integer[Any]], b: NDArray[np.integer[Any]]
) -> NDArray[np.float32]:
    """Cosine similarity of the images of each pair.

    The product is summed in float64 and rounded once, so it is the same for (a, b) and (b, a), and does not depend on
    which other pairs are asked for.

    Args:
        units: float32 [N, D], of unit length.
        a: rows of `units`, [P].
        b: rows of `units`, [P].

    Returns:
        float32 [P], clipped to [-1, 1]; NaN where an embedding is.

    Raises:
        IndexError: if a pair names a row that is not there.
    """
    left, right = np.ascontiguousarray(a, np.intp), np.ascontiguousarray(b, np.intp)
    for rows in (left, right):
        if len(rows) and (rows.min() < 0 or rows.max() >= len(units)):
            raise IndexError(f"pairs of rows {rows.min()} to {rows.max()} of {len(units)} embeddings")
    similarity = np.empty(len(left), np.float32)
    _multiply_pairs(np.ascontiguousarray(units), left, right, similarity)
    return np.clip(similarity, np.float32(-1), np.float32(1), out=similarity)


@compile_kernel
def _multiply_pairs(
    units: NDArray[np.float32], a: NDArray[np.intp], b: NDArray[np.intp], products: NDArray[np.float32]
) -> None:
    """Products of rows in float64, in sixteen sums side by side that are then added from the first to the last."""
    sums = np.zeros(_SUMS)
    whole = units.shape[1] // _SUMS * _SUMS
    for pair in range(a.size):
        left, right = units[a[pair]], units[b[pair]]
        sums[:] = 0.0
        for start in range(0, whole, _SUMS):
            for place in range(_SUMS):
                sums[place] += np.float64(left[start + place]) * np.float64(right[start + place])
        total = 0.0
        for place in range(_SUMS):
            total += sums[place]
        for value in range(whole, units.shape[1]):
            total += np.float64(left[value]) * np.float64(right[value])
        products[pair] = total
