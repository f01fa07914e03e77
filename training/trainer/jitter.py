"""Faces that are moved by a few pixels, as another detector would have found their landmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.trainer.sampler import Work

_SHIFT = 2
"""Kind of draw, beside order and mirroring (training/trainer/sampler.py)."""


def draw_shifts(work: Work, pixels: int, seed: int) -> NDArray[np.int64]:
    """By how much every image of a micro-batch is moved; the same in however many processes the batch is computed.

    Args:
        work: the micro-batch.
        pixels: at most, down or up and to the right or left.
        seed: of the training.

    Returns:
        int64 [n, 2], rows and columns.
    """
    random = np.random.Generator(np.random.PCG64([seed, work.step, _SHIFT]))
    shifts = random.integers(-pixels, pixels + 1, (len(work.whole), 2))
    order = np.argsort(work.whole)
    return shifts[order[np.searchsorted(work.whole, work.rows, sorter=order)]]


def shift(images: NDArray[np.uint8], shifts: NDArray[np.int64]) -> None:
    """Move images in place; beyond the border the border is repeated.

    Args:
        images: uint8 [n, H, W, 3].
        shifts: [n, 2], rows down and columns to the right.
    """
    _, height, width, _ = images.shape
    for image, (down, right) in zip(images, shifts, strict=True):
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        columns = np.clip(np.arange(width) - right, 0, width - 1)
        image[:] = image[rows[:, None], columns]
