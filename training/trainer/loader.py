"""Batches of decoded images, made ahead of the step that needs them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from labelers.faces import SIDE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

_PIECE = 32
"""Images that one thread decodes in one go: small enough to share a batch out, large enough to be worth a hand-over."""


class Images(Protocol):
    """M images that can be decoded, in any order and by several threads at once."""

    def __len__(self) -> int: ...

    def decode_into(self, target: NDArray[np.uint8], row: int) -> None:
        """Decode one image into uint8 [112, 112, 3], RGB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some of the images of a set.

    Attributes:
        rows: int64 [N], their rows in the set.
        images: uint8 [N, 112, 112, 3], RGB, in page-locked memory where the loader was told so.
    """

    rows: NDArray[np.int64]
    images: Tensor


def read_spread(data: Images, count: int = 256) -> Tensor:
    """Some images from all over a set, in one thread.

    Args:
        data: what is read.
        count: how many, where there are so many.

    Returns:
        uint8 [count, 112, 112, 3], RGB.
    """
    rows = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(np.int64)
    images = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
    for image, row in zip(images, rows, strict=True):
        data.decode_into(image, int(row))
    return torch.from_numpy(images)


class Loader:
    """Decodes batches in threads.

    Reading and JPEG decoding run without Python's lock, so threads share the work as processes would, and nothing has
    to be copied between processes, or forked beside CUDA.

    Args:
        data: what is read.
        threads: at least one.
        ahead: batches that wait decoded, or are being decoded.
        pinned: whether to use page-locked memory, from which a GPU copies while it computes.
    """

    def __init__(self, data: Images, *, threads: int, ahead: int = 4, pinned: bool = False) -> None:
        if threads < 1 or ahead < 1:
            raise ValueError(f"a loader needs at least one thread and one batch ahead, not {threads} and {ahead}")
        self._data = data
        self._ahead = ahead
        self._pinned = pinned
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop decoding; what has not begun is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def batches(self, rows: Iterable[NDArray[np.int64]]) -> Iterator[Batch]:
        """Decode batches in the given order.

        Args:
            rows: for every batch its rows; it is asked for a few batches ahead.

        Raises:
            TrainingDataError: when the batch comes up in which an image cannot be read.
        """
        waiting: deque[tuple[Batch, list[Future[None]]]] = deque()
        try:
            for chosen in rows:
                waiting.append(self._begin(chosen))
                if len(waiting) > self._ahead:
                    yield _finish(*waiting.popleft())
            while waiting:
                yield _finish(*waiting.popleft())
        finally:
            for _, pieces in waiting:
                for piece in pieces:
                    piece.cancel()

    def _begin(self, rows: NDArray[np.int64]) -> tuple[Batch, list[Future[None]]]:
        """Hand a batch to the threads."""
        images = torch.empty((len(rows), SIDE, SIDE, 3), dtype=torch.uint8, pin_memory=self._pinned)
        pixels = images.numpy()
        pieces = [
            self._pool.submit(self._decode, pixels[start : start + _PIECE], rows[start : start + _PIECE])
            for start in range(0, len(rows), _PIECE)
        ]
        return Batch(rows=rows, images=images), pieces

    def _decode(self, pixels: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        for target, row in zip(pixels, rows, strict=True):
            self._data.decode_into(target, int(row))


def _finish(batch: Batch, pieces: list[Future[None]]) -> Batch:
    """Wait until a batch is whole."""
    for piece in pieces:
        piece.result()
    return batch
