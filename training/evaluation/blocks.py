"""Similarities of blocks of images, on the processor or on a GPU, and what is counted and found in them.

A block's similarities are float32 products, off by a few units of 1e-8: they say where to look. Whatever is decided is
decided on `pair_similarities`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from labelers.device import Device, exact_products, torch_device
from training.evaluation.histogram import BINS, HIDDEN, VISIBLE, WIDTH, bins_of, count_bins

if TYPE_CHECKING:
    from numpy.typing import NDArray


class BlockShape(NamedTuple):
    """Largest number of images on the two sides of a block."""

    rows: int
    columns: int


SHAPES = {Device.CPU: BlockShape(512, 4096), Device.CUDA: BlockShape(2048, 8192)}
"""8 MB of similarities for each processor core, 64 MB on a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some images against others, each pair with its first image before its second one.

    Attributes:
        rows: the first images.
        columns: the second images, from `rows.start` on.
        hidden_rows: of pairs in the block that are to be left out, rows counted from `rows.start` [H].
        hidden_columns: likewise, columns counted from `columns.start` [H].
    """

    rows: slice
    columns: slice
    hidden_rows: NDArray[np.intp]
    hidden_columns: NDArray[np.intp]

    @property
    def shape(self) -> tuple[int, int]:
        """Images on the two sides."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def overlap(self) -> int:
        """How many of the first columns hold pairs that are in wrong order in some row."""
        return int(min(max(self.rows.stop - self.columns.start, 0), self.shape[1]))


class Found(NamedTuple):
    """Pairs of a block: row and column within it, and bin, each [K]."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    bins: NDArray[np.int32]


class Blocks(Protocol):
    """Where similarities are computed. A matrix belongs to the implementation; `Any` here."""

    def new_matrix(self, size: int) -> Any:
        """Room for `size` similarities, for one thread."""

    def fill(self, matrix: Any, block: Block) -> Any:
        """The block's similarities [R, C], in that room; `HIDDEN` where a pair is left out or in wrong order."""

    def keep(self, similarity: Any, kept: NDArray[np.bool_]) -> Any:
        """A copy [R, C] with `HIDDEN` where `kept` [R, C] is false."""

    def new_counts(self) -> Any:
        """Zeros for `count`."""

    def count(self, similarity: Any, counts: Any) -> None:
        """Add similarities that are not hidden to their bins."""

    def read(self, counts: Any) -> NDArray[np.int64]:
        """What was counted, [65,536]."""

    def find(self, similarity: Any, sought: NDArray[np.bool_]) -> Found:
        """The pairs in those of the bins [65,536] that are sought, hidden ones left out."""


def open_blocks(units: NDArray[np.float32], device: Device) -> Blocks:
    """Compute similarities of units [N, D] on a device.

    Raises:
        ProviderError: if CUDA is asked for and cannot be used.
    """
    return TorchBlocks(units, "cuda") if device is Device.CUDA else NumpyBlocks(units)


class NumpyBlocks:
    """Similarities by the processor's matrix product."""

    def __init__(self, units: NDArray[np.float32]) -> None:
        self._units = units

    def new_matrix(self, size: int) -> NDArray[np.float32]:
        """See `Blocks`."""
        return np.empty(size, np.float32)

    def fill(self, matrix: NDArray[np.float32], block: Block) -> NDArray[np.float32]:
        """See `Blocks`."""
        rows, columns = block.shape
        similarity = matrix[: rows * columns].reshape(rows, columns)
        np.matmul(self._units[block.rows], self._units[block.columns].T, out=similarity)
        similarity[:, : block.overlap][_wrong_order(block)] = HIDDEN
        similarity[block.hidden_rows, block.hidden_columns] = HIDDEN
        return similarity

    def keep(self, similarity: NDArray[np.float32], kept: NDArray[np.bool_]) -> NDArray[np.float32]:
        """See `Blocks`."""
        return np.where(kept, similarity, HIDDEN)

    def new_counts(self) -> NDArray[np.int64]:
        """See `Blocks`."""
        return np.zeros(BINS, np.int64)

    def count(self, similarity: NDArray[np.float32], counts: NDArray[np.int64]) -> None:
        """See `Blocks`."""
        count_bins(similarity.reshape(-1), counts)

    def read(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Blocks`."""
        return counts

    def find(self, similarity: NDArray[np.float32], sought: NDArray[np.bool_]) -> Found:
        """See `Blocks`."""
        flat = similarity.reshape(-1)
        near = np.flatnonzero(flat > _just_below(sought))
        bins = bins_of(flat[near])
        inside = sought[bins]
        rows, columns = np.divmod(near[inside], similarity.shape[1])
        return Found(rows, columns, bins[inside])


class TorchBlocks:
    """The same by PyTorch, on a GPU."""

    def __init__(self, units: NDArray[np.float32], device: str) -> None:
        # Here because importing PyTorch takes seconds, and the processor's way does without it.
        import torch  # noqa: PLC0415

        self._torch = torch
        self._device = torch_device(device, "all pairs were to be compared")
        self._units = torch.from_numpy(units).to(self._device)

    def new_matrix(self, size: int) -> Any:
        """See `Blocks`."""
        return self._torch.empty(size, dtype=self._torch.float32, device=self._device)

    def fill(self, matrix: Any, block: Block) -> Any:
        """See `Blocks`."""
        torch = self._torch
        rows, columns = block.shape
        similarity = matrix[: rows * columns].view(rows, columns)
        with exact_products():
            torch.mm(self._units[block.rows], self._units[block.columns].T, out=similarity)
        if block.overlap:
            similarity[:, : block.overlap].masked_fill_(self._move(_wrong_order(block)), float(HIDDEN))
        similarity[self._move(block.hidden_rows), self._move(block.hidden_columns)] = float(HIDDEN)
        return similarity

    def keep(self, similarity: Any, kept: NDArray[np.bool_]) -> Any:
        """See `Blocks`."""
        return similarity.masked_fill(self._move(~kept), float(HIDDEN))

    def new_counts(self) -> Any:
        """See `Blocks`."""
        return self._torch.zeros(BINS + 1, dtype=self._torch.int64, device=self._device)

    def count(self, similarity: Any, counts: Any) -> None:
        """See `Blocks`."""
        places = self._bins(similarity).add_(1)
        places[similarity <= float(VISIBLE)] = 0
        counts += self._torch.bincount(places.view(-1), minlength=BINS + 1)

    def read(self, counts: Any) -> NDArray[np.int64]:
        """See `Blocks`."""
        found: NDArray[np.int64] = counts[1:].cpu().numpy()
        return found

    def find(self, similarity: Any, sought: NDArray[np.bool_]) -> Found:
        """See `Blocks`."""
        rows, columns = (similarity > float(_just_below(sought))).nonzero(as_tuple=True)
        bins = self._bins(similarity[rows, columns])
        inside = self._move(sought)[bins]
        return Found(*(part[inside].cpu().numpy() for part in (rows, columns, bins)))

    def _bins(self, similarity: Any) -> Any:
        """`bins_of` on the device."""
        return ((similarity + 1.0) * (BINS / 2)).to(self._torch.int32).clamp_(0, BINS - 1)

    def _move(self, array: NDArray[Any]) -> Any:
        """An array on the device."""
        return self._torch.from_numpy(array).to(self._device)


def _wrong_order(block: Block) -> NDArray[np.bool_]:
    """Which of the block's first columns [R, overlap] do not come after the row."""
    columns = np.arange(block.columns.start, block.columns.start + block.overlap)
    return columns[None, :] <= np.arange(block.rows.start, block.rows.stop)[:, None]


def _just_below(sought: NDArray[np.bool_]) -> np.float32:
    """A similarity that all in the sought bins exceed."""
    lowest = int(sought.argmax())
    return VISIBLE if lowest == 0 else np.float32(-1.0 + WIDTH * (lowest - 1))
