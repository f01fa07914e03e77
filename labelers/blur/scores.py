"""How sharp a face is: CPBD, and the score that the released CLIB-FIQA code uses in its place."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.tables.stages import Status
from labelers.blur.canny import BLOCK, GAUSSIAN, find_edge_blocks
from labelers.blur.cpbd_kernels import Tiling, score
from labelers.blur.edge_ratio import edge_ratio
from labelers.faces import grey
from labelers.labeler import Measures
from labelers.runtime.compilation import compile_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from labelers.faces import FaceBatch


class Edges(StrEnum):
    """Which program's edge detector CPBD uses."""

    MATLAB = "matlab"
    """The authors' own: `edge(I, 'Sobel', 2, 'vertical')`, a fixed cutoff."""
    PYTHON = "python"
    """The package `cpbd` of PyPI: a cutoff that depends on the image, strict thinning."""


class Blocks(StrEnum):
    """Which 64x64 blocks CPBD scores."""

    REFERENCE = "reference"
    """Side by side from the upper left, whole blocks only: of 112x112 only the pixels [0:64, 0:64]."""
    COVER = "cover"
    """As few blocks as cover the whole image, evenly spaced and overlapping."""


def cpbd(gray: NDArray[np.uint8], edges: str = Edges.MATLAB, blocks: str = Blocks.REFERENCE) -> float:
    """CPBD, the share of edges whose blur is not noticed (Narvekar & Karam 2011).

    Equal to PyPI cpbd 1.0.7 with `edges="python", blocks="reference"`, and to the same with the authors' MATLAB edge
    detector with `edges="matlab"`.

    With `blocks="cover"` an axis of n pixels gets k = ceil(n / 64) blocks, block i starting at
    floor(i (n - 64) / (k - 1)): for 112 at 0 and 48. A block's contrast and its Canny edges are taken over all its
    64x64 pixels; of the pixels that two neighbours share, the first scores the edges in the half next to it
    (rounded down), the second the others. So every edge of the image is scored once, and where both sides are
    multiples of 64 `cover` and `reference` are the same.

    In 112x112 the blocks of `reference` are one, the pixels [0:64, 0:64]: the upper left third of a face.

    Args:
        gray: uint8 [H, W], BT.601 luma (labelers.faces.grey).
        edges: an Edges value.
        blocks: a Blocks value.

    Returns:
        0 (all blurred) to 1 (sharp); 0.0 for an image without an edge that counts, or with a side under 64 pixels.

    Raises:
        ValueError: if the array is not uint8 [H, W], or a choice is unknown.
    """
    if gray.dtype != np.uint8 or gray.ndim != 2:
        raise ValueError(f"CPBD needs a grey image, uint8 [H, W], not {gray.dtype} {list(gray.shape)}")
    tiling = tile(gray.shape[0], gray.shape[1], Blocks(blocks))
    python_rule = Edges(edges) is Edges.PYTHON
    if min(gray.shape) < BLOCK:
        return 0.0
    own = _own(gray)
    counted = find_edge_blocks(own, tiling.row_starts, tiling.column_starts, GAUSSIAN)
    return score(own, tiling, counted, python_rule)


@lru_cache(maxsize=64)
def tile(height: int, width: int, blocks: Blocks) -> Tiling:
    """The blocks of an image of that many pixels; see cpbd for the rule."""
    return Tiling(*_tile_axis(height, blocks), *_tile_axis(width, blocks))


def _tile_axis(pixels: int, blocks: Blocks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the blocks of one axis start [k], and where the pixels that each answers for begin and end [k + 1]."""
    count = pixels // BLOCK
    if blocks is Blocks.REFERENCE or count == 0:
        starts = BLOCK * np.arange(count, dtype=np.int64)
        return starts, BLOCK * np.arange(count + 1, dtype=np.int64)
    count = -(-pixels // BLOCK)
    starts = np.arange(count, dtype=np.int64) * (pixels - BLOCK) // max(count - 1, 1)
    between = (starts[:-1] + BLOCK + starts[1:]) // 2
    return starts, np.concatenate(([0], between, [pixels])).astype(np.int64)


def sobel(rgb: NDArray[np.uint8]) -> float:
    """Mean 3x3 Sobel magnitude of OpenCV's 8-bit L*, times 0.01: what the released CLIB-FIQA code calls CPBD.

    Args:
        rgb: uint8 [H, W, 3], at least 2 x 2.

    Returns:
        The score, at least 0; sharp aligned faces lie around 0.5 to 0.9.

    Raises:
        ValueError: if the array is not uint8 [H, W, 3] or too small.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or min(rgb.shape[:2]) < 2:
        raise ValueError(f"the Sobel score needs an RGB image, uint8 [H, W, 3], not {rgb.dtype} {list(rgb.shape)}")
    return _mean_magnitude(_own(rgb), _LUMINANCE, _LIGHTNESS) * 0.01


def _own(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image as the kernels are compiled for it: a plain, contiguous array that may be written."""
    return np.require(image, requirements=["C", "W", "E"])


def _lightness_tables() -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """OpenCV's 8-bit L* of sRGB in whole numbers: L* = lightness[(sum of luminance[c, value_c]) >> 12].

    Returns:
        luminance int32 [3, 256], linear light of each channel in steps of 1/2040 times its weight in Y times 4096,
        the first one with half a step added; lightness uint8 [2041], of Y in steps of 1/2040, 255 = white.
    """
    srgb = np.arange(256) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    weights = np.rint(np.array([0.212671, 0.715160, 0.072169]) * 4096)  # Y of linear sRGB under D65
    luminance = np.rint(linear * 2040)[None, :] * weights[:, None]  # [3, 256]
    luminance[0] += 2048
    y = np.arange(2041) / 2040
    root = np.where(y < 216 / 24389, 841 / 108 * y + 16 / 116, np.cbrt(y))  # CIE L*: 116 root - 16
    fixed = np.rint(root * 32768).astype(np.int64)
    lightness = ((116 * 255 + 50) // 100 * fixed - (16 * 255 * 32768 + 50) // 100 + 16384) >> 15
    return luminance.astype(np.int32), lightness.astype(np.uint8)


_LUMINANCE, _LIGHTNESS = _lightness_tables()


@compile_kernel
def _mean_magnitude(rgb: NDArray[np.uint8], luminance: NDArray[np.int32], lightness: NDArray[np.uint8]) -> float:
    """Mean length of the 3x3 Sobel gradient of L*, the image mirrored about its outermost pixels."""
    height, width = rgb.shape[:2]
    light = np.empty((height, width + 2), np.int32)  # [H, W + 2]
    for row in range(height):
        for column in range(width):
            red, green, blue = rgb[row, column, 0], rgb[row, column, 1], rgb[row, column, 2]
            y = np.uint32(luminance[0, red] + luminance[1, green] + luminance[2, blue]) >> np.uint32(12)
            light[row, column + 1] = lightness[y]
        light[row, 0] = light[row, 2]
        light[row, width + 1] = light[row, width - 1]
    sums = np.zeros(width)
    two = np.int32(2)  # numba would widen to 64 bits and halve the speed
    for row in range(height):
        above = light[row - 1 if row > 0 else 1]
        here = light[row]
        below = light[row + 1 if row < height - 1 else height - 2]
        for column in range(width):
            corners = below[column + 2] - above[column]
            others = above[column + 2] - below[column]
            dx = corners + others + two * (here[column + 2] - here[column])
            dy = corners - others + two * (below[column + 1] - above[column + 1])
            sums[column] += np.sqrt(np.float64(np.int32(dx * dx + dy * dy)))
    return float(sums.sum() / (height * width))


class BlurLabeler:
    """Measures `cpbd` and `sobel` of faces; every face has both, an image without an edge 0.0.

    Args:
        edges: the edge detector of CPBD.
        blocks: the blocks that CPBD scores.
        edge_ratio: measure `edge_ratio` too; a face without enough edges has none, and the status `no_edges`.
    """

    def __init__(
        self, edges: Edges = Edges.MATLAB, blocks: Blocks = Blocks.REFERENCE, *, edge_ratio: bool = False
    ) -> None:
        self.edges = Edges(edges)
        self.blocks = Blocks(blocks)
        self.edge_ratio = edge_ratio

    def __call__(self, faces: FaceBatch) -> Measures:
        """Measure N faces: columns `cpbd` and `sobel`, and `edge_ratio` where that is asked for, float32 [N]."""
        greys = [grey(image) for image in faces.images]
        columns = {
            "cpbd": np.array([cpbd(image, self.edges, self.blocks) for image in greys], np.float32),
            "sobel": np.array([sobel(image) for image in faces.images], np.float32),
        }
        if not self.edge_ratio:
            return Measures(columns=columns, status=[Status.OK] * len(faces))
        columns["edge_ratio"] = np.array([edge_ratio(image) for image in greys], np.float32)
        status = [Status.NO_EDGES if none else Status.OK for none in np.isnan(columns["edge_ratio"])]
        return Measures(columns=columns, status=status)
