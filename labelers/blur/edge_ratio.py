"""How sharp the edges of a face are, whatever its light, contrast and noise: the score of the recipe `robust`.

Smoothed by 1 pixel, an edge is steeper than smoothed by 2, the less so the more blurred it is (Zhuo & Sim, "Defocus
map estimation from a single image", Pattern Recognition 44, 2011). Squared gradients summed across an edge that a
Gaussian of s pixels has blurred go as (s^2 + 4/3)^(-1/2) and (s^2 + 13/3)^(-1/2), where a third is the Sobel operator's
own, so that the root of their ratio is ((s^2 + 13/3) / (s^2 + 4/3))^(1/4): 1.34 and more where the edge is sharp, 1.28
for s = 0.7, 1.15 for s = 1.6, and 1 in the end. It does not change with contrast, and what is smoothed by a pixel holds
little noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FINE, COARSE = 1.0, 2.0
"""The two scales: sigmas of Gaussians in pixels."""
STRONGEST = 0.25
"""The share of the pixels, those of the strongest gradient at the fine scale, that count as edges."""
FAINTEST = 1.0
"""The smallest gradient of an edge, in grey levels a pixel."""
DIRECTIONS = 4
"""Edges are told apart by the direction across them, in steps of 45 degrees: motion blurs those that it crosses."""
FEWEST = 40
"""Pixels that a direction must have at least, to be judged."""
STEEPEST = 1.7
"""No edge of a photo has a larger ratio: what is steeper is noise alone, as in a face that is nearly black or white."""


def edge_ratio(gray: NDArray[np.uint8]) -> float:
    """How much steeper edges are at the fine scale than at the coarse one, in the direction in which least.

    In each direction: the root of the squared gradients at the fine scale, summed over edge pixels, by those at the
    coarse scale.

    Args:
        gray: uint8 [H, W], BT.601 luma (labelers.faces.grey).

    Returns:
        About 1 (all blurred) to 1.4 (sharp), STEEPEST at most; NaN where no direction has enough edges, or where there
        is noise alone.

    Raises:
        ValueError: if the array is not uint8 [H, W].
    """
    if gray.dtype != np.uint8 or gray.ndim != 2:
        raise ValueError(f"the edge ratio needs a grey image, uint8 [H, W], not {gray.dtype} {list(gray.shape)}")
    across, down = _gradients(gray, FINE)
    fine = across**2 + down**2  # [H, W]
    place = int((1 - STRONGEST) * fine.size)
    edges = fine >= max(float(np.partition(fine, place, axis=None)[place]), FAINTEST**2)
    steps = np.rint(np.arctan2(down[edges], across[edges]) * (DIRECTIONS / np.pi)).astype(np.int64) % DIRECTIONS
    coarse = sum(part[edges] ** 2 for part in _gradients(gray, COARSE))
    counts, *energies = (np.bincount(steps, weights, DIRECTIONS) for weights in (None, fine[edges], coarse))
    judged = counts >= FEWEST
    ratio = np.sqrt(energies[0][judged] / energies[1][judged]).min(initial=np.inf)
    return float(ratio) if ratio <= STEEPEST else float("nan")


def _gradients(gray: NDArray[np.uint8], sigma: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Derivatives over columns and over rows of the smoothed image, float32 [H, W], in grey levels a pixel."""
    smooth = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), sigma)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    return np.asarray(across, np.float32), np.asarray(down, np.float32)
