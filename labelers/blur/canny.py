"""Canny's edge detector as far as CPBD needs it: does a block hold enough edge pixels?

scikit-image's `canny` with its defaults on float64 0..255 is repeated operation by operation, in its order, because
the gradients on the two sides of a step must come out equal where scikit-image's do. Only the rows that decide a
block are computed: in nearly every block the first few hold enough strong edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

from labelers.runtime.compilation import compile_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 64
"""Side of a block in pixels (Narvekar & Karam 2011)."""
MOST_EDGES = 8
"""A block counts when it holds more Canny edge pixels: 0.2 % of 64 x 64 is 8.192 (Narvekar & Karam 2011)."""
LOW = float(np.float32(0.1))
"""scikit-image's low threshold, which its compiled code takes in single precision."""
HIGH = 0.2
"""scikit-image's high threshold."""
RADIUS = 4
"""Radius in pixels of scikit-image's Gaussian of sigma 1, cut at 4 sigma."""


class Gaussian(NamedTuple):
    """scikit-image's smoothing of sigma 1.

    Attributes:
        weights: float64 [5], of the pixels 4, 3, 2, 1 and 0 away.
        share: float64 [5, 5], the sum of the weights that fall inside the image, for a pixel min(4, rows to the
            border), min(4, columns to the border) away from it; scikit-image divides by it.
    """

    weights: NDArray[np.float64]
    share: NDArray[np.float64]


def _read_gaussian() -> Gaussian:
    """Take the weights from SciPy itself, so that they are equal to the last bit."""
    side = 2 * RADIUS + 1
    impulse = np.zeros(side)
    impulse[RADIUS] = 1.0
    weights = ndimage.gaussian_filter1d(impulse, 1.0, mode="constant", truncate=RADIUS)
    share = ndimage.gaussian_filter(np.ones((side, side)), 1.0, mode="constant", truncate=RADIUS)
    share += np.finfo(np.float64).eps
    return Gaussian(weights[: RADIUS + 1].copy(), share[: RADIUS + 1, : RADIUS + 1].copy())


GAUSSIAN = _read_gaussian()


class Canny(NamedTuple):
    """Scratch space for Canny's steps, filled row by row as they are asked for; all [H, W] but `ready`.

    Attributes:
        smooth: the smoothed image.
        down: its derivative over rows.
        right: its derivative over columns.
        strength: the length of the gradient.
        ready: uint8 [2, H], whether a row of `smooth`, and one of the three others, has been filled.
    """

    smooth: NDArray[np.float64]
    down: NDArray[np.float64]
    right: NDArray[np.float64]
    strength: NDArray[np.float64]
    ready: NDArray[np.uint8]


@compile_kernel
def smooth_row(grey: NDArray[np.uint8], gaussian: Gaussian, row: int, out: NDArray[np.float64]) -> None:
    """One row of scikit-image's Gaussian: over rows, then over columns, black outside, divided by what was inside."""
    height, width = grey.shape
    weights = gaussian.weights
    padded = np.zeros(width + 2 * RADIUS)
    middle = padded[RADIUS : RADIUS + width]
    for column in range(width):
        middle[column] = grey[row, column] * weights[RADIUS]
    for step in range(RADIUS):
        away = RADIUS - step
        inside_above, inside_below = row - away >= 0, row + away < height
        above, below = grey[max(row - away, 0)], grey[min(row + away, height - 1)]
        for column in range(width):
            pair = np.int64(above[column]) * inside_above + np.int64(below[column]) * inside_below
            middle[column] += pair * weights[step]
    share = gaussian.share[min(row, height - 1 - row, RADIUS)]
    for column in range(width):
        value = padded[column + RADIUS] * weights[RADIUS]
        for step in range(RADIUS):
            value += (padded[column + step] + padded[column + 2 * RADIUS - step]) * weights[step]
        out[column] = value / share[min(column, width - 1 - column, RADIUS)]


@compile_kernel
def prepare_row(grey: NDArray[np.uint8], gaussian: Gaussian, canny: Canny, row: int) -> None:
    """Fill one row of the gradients, and the rows of the smoothed image that they need, unless filled already."""
    if canny.ready[1, row]:
        return
    canny.ready[1, row] = 1
    height, width = grey.shape
    first, final = max(row - 1, 0), min(row + 1, height - 1)
    for needed in range(first, final + 1):
        if not canny.ready[0, needed]:
            canny.ready[0, needed] = 1
            smooth_row(grey, gaussian, needed, canny.smooth[needed])
    above, here, below = canny.smooth[first], canny.smooth[row], canny.smooth[final]
    down, right, strength = canny.down[row], canny.right[row], canny.strength[row]
    for column in range(width):
        before, after = max(column - 1, 0), min(column + 1, width - 1)
        fall_before, fall_after = below[before] - above[before], below[after] - above[after]
        down[column] = (below[column] - above[column]) * 2.0 + (fall_before + fall_after)
        rise_above, rise_below = above[after] - above[before], below[after] - below[before]
        right[column] = (here[after] - here[before]) * 2.0 + (rise_above + rise_below)
        strength[column] = np.sqrt(down[column] * down[column] + right[column] * right[column])


@compile_kernel
def is_peak(canny: Canny, row: int, column: int) -> bool:
    """Whether no point a pixel away, up or down the gradient, is stronger; between pixels the strength is linear."""
    down, right = canny.down[row, column], canny.right[row, column]
    strength = canny.strength
    diagonal = 1 if (down > 0) == (right > 0) else -1
    steep, flat = abs(down), abs(right)
    if steep > flat:
        share = flat / steep
        ahead = strength[row + 1, column + diagonal] * share + strength[row + 1, column] * (1.0 - share)
        behind = strength[row - 1, column - diagonal] * share + strength[row - 1, column] * (1.0 - share)
    else:
        share = steep / flat
        ahead = strength[row + diagonal, column + 1] * share + strength[row, column + 1] * (1.0 - share)
        behind = strength[row - diagonal, column - 1] * share + strength[row, column - 1] * (1.0 - share)
    peak = strength[row, column]
    return bool(ahead <= peak and behind <= peak)


@compile_kernel
def trace_canny(grey: NDArray[np.uint8], gaussian: Gaussian, canny: Canny) -> NDArray[np.bool_]:
    """Canny's edge map of the whole image: the strong edges and the weak ones joined to them by any neighbour."""
    height, width = grey.shape
    weak = np.zeros((height, width), np.bool_)
    edges = np.zeros((height, width), np.bool_)
    stack = []
    for row in range(height):
        prepare_row(grey, gaussian, canny, row)
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            if canny.strength[row, column] >= LOW and is_peak(canny, row, column):
                weak[row, column] = True
                if canny.strength[row, column] >= HIGH:
                    edges[row, column] = True
                    stack.append((row, column))
    while stack:
        row, column = stack.pop()
        for beside_row in range(row - 1, row + 2):
            for beside_column in range(column - 1, column + 2):
                if weak[beside_row, beside_column] and not edges[beside_row, beside_column]:
                    edges[beside_row, beside_column] = True
                    stack.append((beside_row, beside_column))
    return edges


@compile_kernel
def is_edge_block(grey: NDArray[np.uint8], gaussian: Gaussian, canny: Canny, start: tuple[int, int]) -> bool:
    """Whether the block that starts at a (row, column) counts; reads no more rows than it needs."""
    height, width = grey.shape
    top, left = start
    strong = weak = 0
    for row in range(max(top, 1), min(top + BLOCK, height - 1)):
        for needed in range(row - 1, row + 2):
            prepare_row(grey, gaussian, canny, needed)
        for column in range(max(left, 1), min(left + BLOCK, width - 1)):
            if canny.strength[row, column] >= LOW and is_peak(canny, row, column):
                if canny.strength[row, column] >= HIGH:
                    strong += 1
                    if strong > MOST_EDGES:
                        return True
                else:
                    weak += 1
    if strong + weak <= MOST_EDGES:
        return False
    edges = trace_canny(grey, gaussian, canny)
    return bool(np.count_nonzero(edges[top : top + BLOCK, left : left + BLOCK]) > MOST_EDGES)


@compile_kernel
def find_edge_blocks(
    grey: NDArray[np.uint8], row_starts: NDArray[np.int64], column_starts: NDArray[np.int64], gaussian: Gaussian
) -> NDArray[np.bool_]:
    """Which 64x64 blocks count: those of whose pixels over 0.2 % are Canny edges of the whole image.

    Args:
        grey: uint8 [H, W], both at least 64.
        row_starts: int64 [I], first row of every row of blocks.
        column_starts: int64 [J], first column of every column of blocks.
        gaussian: GAUSSIAN; an argument, so that the compiled code on the disk never outlives SciPy's weights.

    Returns:
        bool [I, J].
    """
    height, width = grey.shape
    canny = Canny(
        np.empty((height, width)),
        np.empty((height, width)),
        np.empty((height, width)),
        np.empty((height, width)),
        np.zeros((2, height), np.uint8),
    )
    counted = np.empty((len(row_starts), len(column_starts)), np.bool_)
    for i in range(len(row_starts)):
        for j in range(len(column_starts)):
            counted[i, j] = is_edge_block(grey, gaussian, canny, (row_starts[i], column_starts[j]))
    return counted
