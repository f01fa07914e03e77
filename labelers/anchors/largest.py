"""The inner loop of the search for the nearest centre. A module of its own, since numba takes a second to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labelers.runtime.compilation import compile_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray


@compile_kernel
def keep_largest(  # noqa: PLR0913, PLR0917 - what is compared, what is left out, and where the largest is kept
    products: NDArray[np.float32],
    scale: NDArray[np.float32],
    first: int,
    own: NDArray[np.int32],
    largest: NDArray[np.float32],
    nearest: NDArray[np.int32],
) -> None:
    """Keep the largest similarity of each of R embeddings, in one pass over their products with T centres.

    Embeddings lie side by side, so that several are compared at once.

    Args:
        products: float32 [T, R].
        scale: float32 [T], by which each centre's products become similarities.
        first: the row of the first of the centres.
        own: int32 [R], the row of the own class's centre, which is left out.
        largest: float32 [R], which is kept.
        nearest: int32 [R], the row of the centre to which it belongs.
    """
    for t in range(products.shape[0]):
        factor, row = scale[t], np.int32(first + t)
        for r in range(products.shape[1]):
            similarity = products[t, r] * factor
            larger = (similarity > largest[r]) & (own[r] != row)
            largest[r] = similarity if larger else largest[r]
            nearest[r] = row if larger else nearest[r]
