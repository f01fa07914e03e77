"""CPBD's inner loops, compiled: edges, edge widths, the score. Everything is decided on whole numbers.

Narvekar & Karam, "A no-reference image blur metric based on the cumulative probability of blur detection", IEEE
Transactions on Image Processing 20 (2011). Two programs are reproduced: the authors' MATLAB edge detector, and the
Python package `cpbd` 1.0.7, whose other rules hold for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from labelers.blur.canny import BLOCK
from labelers.runtime.compilation import compile_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOW_CONTRAST = 50
"""Largest range of grey levels in a block that lets wider edges pass as sharp (Narvekar & Karam 2011)."""
JUST_NOTICEABLE_WIDTHS = (5, 3)
"""Just-noticeable edge width in pixels of a block of low and of higher contrast (Narvekar & Karam 2011)."""
MATLAB_CUTOFF = 256
"""MATLAB's `edge(I, 'Sobel', 2)` wants (kernel / 8)^2 over 4; the gradients here are 8 times as large."""


class Tiling(NamedTuple):
    """Which blocks are looked at, and which pixels each answers for.

    Block (i, j) covers 64 rows from `row_starts[i]` and 64 columns from `column_starts[j]`; its contrast and its Canny
    edges are taken there. The edges it scores are those in rows `row_bounds[i]` to `row_bounds[i + 1]` and columns
    `column_bounds[j]` to `column_bounds[j + 1]`, so that no edge is scored twice. All int64.
    """

    row_starts: NDArray[np.int64]
    row_bounds: NDArray[np.int64]
    column_starts: NDArray[np.int64]
    column_bounds: NDArray[np.int64]


@compile_kernel
def measure_gradients(grey: NDArray[np.uint8]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Absolute 3x3 Sobel gradients over columns and over rows, 8 times the normalised ones, border replicated.

    Args:
        grey: uint8 [H, W], at least 2 x 2.

    Returns:
        int16 [H, W] twice: over columns (vertical edges), over rows.
    """
    height, width = grey.shape
    across = np.empty((height, width), np.int16)
    along = np.empty((height, width), np.int16)
    total = np.empty(width, np.int16)
    rise = np.empty(width, np.int16)
    last = width - 1
    for row in range(height):
        above, below = grey[max(row - 1, 0)], grey[min(row + 1, height - 1)]
        for column in range(width):
            total[column] = np.int16(above[column]) + np.int16(2) * grey[row, column] + below[column]
            rise[column] = np.int16(below[column]) - np.int16(above[column])
        for column in range(1, last):
            across[row, column] = abs(np.int32(total[column + 1]) - total[column - 1])
            along[row, column] = abs(np.int32(rise[column - 1]) + np.int32(2) * rise[column] + rise[column + 1])
        across[row, 0] = abs(total[1] - total[0])
        across[row, last] = abs(total[last] - total[last - 1])
        along[row, 0] = abs(3 * rise[0] + rise[1])
        along[row, last] = abs(3 * rise[last] + rise[last - 1])
    return across, along


@compile_kernel
def find_edges(grey: NDArray[np.uint8], python_rule: bool) -> NDArray[np.bool_]:
    """Vertical edges, thinned to a line.

    Args:
        grey: uint8 [H, W], at least 2 x 2.
        python_rule: PyPI cpbd's cutoff, 2 * sqrt(mean of the squared gradient), and its strict thinning; otherwise
            MATLAB's fixed cutoff and its thinning.

    Returns:
        bool [H, W]; the outermost rows and columns, where no width is measured, hold no edge.
    """
    across, along = measure_gradients(grey)
    height, width = grey.shape
    edges = np.zeros((height, width), np.bool_)
    cutoff = np.float64(MATLAB_CUTOFF)
    if python_rule:
        energy = np.int64(0)
        for row in range(height):
            for column in range(width):
                energy += np.int32(across[row, column]) * np.int32(across[row, column])
        cutoff = 64.0 * (2.0 * np.sqrt(energy / 64.0 / (height * width)))
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            here = across[row, column]
            if np.int32(here) * np.int32(here) <= cutoff:
                continue
            left, right = across[row, column - 1], across[row, column + 1]
            up, down = across[row - 1, column], across[row + 1, column]
            if python_rule:
                edges[row, column] = (here > left and here > right) or (here > up and here > down)
            else:
                edges[row, column] = (here >= along[row, column] and here >= left and here > right) or (
                    here >= up and here > down
                )
    return edges


@compile_kernel
def has_direction(grey: NDArray[np.uint8]) -> bool:
    """Whether a gradient of the image has an angle other than 0; PyPI cpbd measures no width where none has."""
    height, width = grey.shape
    for row in range(height):
        for column in range(width):
            dx = np.int64(grey[row, min(column + 1, width - 1)]) - np.int64(grey[row, max(column - 1, 0)])
            dy = np.int64(grey[min(row + 1, height - 1), column]) - np.int64(grey[max(row - 1, 0), column])
            if dx < 0 or (dx > 0 and dy != 0):
                return True
    return False


@compile_kernel
def measure_width(grey: NDArray[np.uint8], row: int, column: int, limit: int) -> int:
    """Marziliano's width of the edge at a pixel: how far the grey level keeps rising, or falling, along the row.

    Args:
        grey: uint8 [H, W].
        row: of the edge, not the first or last one.
        column: of the edge, not the first or last one.
        limit: the width beyond which counting stops.

    Returns:
        0 if the gradient is more than 22.5 degrees off the row; the width in pixels, at least 2, up to the limit;
        limit + 1 if it is wider. A pixel without a gradient over columns counts as a rising edge, as in PyPI cpbd.
        (PyPI cpbd stops counting at 101 pixels on either side, far beyond every just-noticeable width.)
    """
    dx = np.int64(grey[row, column + 1]) - np.int64(grey[row, column - 1])
    dy = np.int64(grey[row + 1, column]) - np.int64(grey[row - 1, column])
    # abs(dy / dx) < tan(22.5 degrees) = sqrt(2) - 1, in whole numbers; the two are never equal
    if dx != 0 and (abs(dx) + abs(dy)) ** 2 > 2 * dx * dx:
        return 0
    sign = -1 if dx < 0 else 1
    width = 2
    left = column - 1
    while width <= limit and left > 0 and sign * (np.int64(grey[row, left]) - np.int64(grey[row, left - 1])) > 0:
        width += 1
        left -= 1
    right = column + 1
    last = grey.shape[1] - 1
    while width <= limit and right < last and sign * (np.int64(grey[row, right + 1]) - np.int64(grey[row, right])) > 0:
        width += 1
        right += 1
    return width


@compile_kernel
def count_widths(
    grey: NDArray[np.uint8], edges: NDArray[np.bool_], box: tuple[int, int, int, int], limit: int
) -> tuple[int, int]:
    """Count the edge widths in rows box[0] to box[1] and columns box[2] to box[3]: (those up to the limit, all)."""
    narrow = total = 0
    for row in range(box[0], box[1]):
        for column in range(box[2], box[3]):
            if edges[row, column]:
                width = measure_width(grey, row, column, limit)
                if width > 0:
                    total += 1
                    narrow += width <= limit
    return narrow, total


@compile_kernel
def find_limit(grey: NDArray[np.uint8], top: int, left: int) -> int:
    """The just-noticeable width in the 64x64 block that starts there, from its contrast, max - min."""
    lowest = highest = grey[top, left]
    for row in range(top, top + BLOCK):
        for column in range(left, left + BLOCK):
            lowest = min(lowest, grey[row, column])
            highest = max(highest, grey[row, column])
    return JUST_NOTICEABLE_WIDTHS[0 if np.int64(highest) - np.int64(lowest) <= LOW_CONTRAST else 1]


@compile_kernel
def score(grey: NDArray[np.uint8], tiling: Tiling, counted: NDArray[np.bool_], python_rule: bool) -> float:
    """CPBD of a grey image over the blocks of a tiling.

    Args:
        grey: uint8 [H, W], large enough for the tiling.
        tiling: I x J blocks.
        counted: bool [I, J], the blocks that hold enough Canny edges.
        python_rule: see find_edges.

    Returns:
        The share, in [0, 1], of edge widths that are at most the just-noticeable one of their block; 0 without edges.
    """
    if not has_direction(grey):
        return 0.0
    height, width = grey.shape
    edges = find_edges(grey, python_rule)
    narrow = total = 0
    for i in range(len(tiling.row_starts)):
        for j in range(len(tiling.column_starts)):
            if not counted[i, j]:
                continue
            # the outermost pixels have no width
            box = (
                max(tiling.row_bounds[i], 1),
                min(tiling.row_bounds[i + 1], height - 1),
                max(tiling.column_bounds[j], 1),
                min(tiling.column_bounds[j + 1], width - 1),
            )
            limit = find_limit(grey, tiling.row_starts[i], tiling.column_starts[j])
            few, some = count_widths(grey, edges, box, limit)
            narrow += few
            total += some
    return narrow / total if total > 0 else 0.0
