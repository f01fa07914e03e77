"""Similarities of blocks of images, on the processor or on a GPU, and what is counted and found in them.

A block's similarities are float32 products, off by a few units of 1e-8: they say where to look. Whatever is decided is
decided on `pair_similarities`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from labelers.runtime.device import Device, TorchProducts
from training.evaluation.pairs.histogram import (
    BINS,
    HALF,
    HIDDEN,
    PLACES,
    VISIBLE,
    WIDTH,
    bins_of,
    count_bins,
    read_bins,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]


class BlockShape(NamedTuple):
    """How all pairs are cut.

    Attributes:
        rows: largest number of first images in a block.
        columns: largest number of second images in a block.
        stack: blocks of other rows that follow each other on the same columns, while these are in a cache.
    """

    rows: int
    columns: int
    stack: int = 1


SHAPES = {Device.CPU: BlockShape(256, 1024, stack=4), Device.CUDA: BlockShape(2048, 8192)}
"""1 MB of similarities, which are counted while they are in a core's own cache; 64 MB on a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some images against others, each pair with its first image before its second one.

    Attributes:
        rows: the first images.
        columns: the second images, from `rows.start` on.
        hidden: which of the pairs that are to be left out have their first image among the rows.
    """

    rows: slice
    columns: slice
    hidden: slice

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


def open_blocks(units: NDArray[np.float32], hidden: Pairs, device: Device) -> Blocks:
    """Compute similarities of units [N, D] on a device.

    Args:
        units: float32 [N, D].
        hidden: pairs that are to be left out, [H] first and [H] second images.
        device: where the products are made.

    Raises:
        ProviderError: if CUDA is asked for and cannot be used.
    """
    return TorchBlocks(units, hidden, "cuda") if device is Device.CUDA else NumpyBlocks(units, hidden)


class NumpyBlocks:
    """Similarities by the processor's matrix product, made as [C, R]: OpenBLAS is faster where R is the smaller one."""

    def __init__(self, units: NDArray[np.float32], hidden: Pairs) -> None:
        self._units = units
        self._hidden = hidden

    def new_matrix(self, size: int) -> NDArray[np.float32]:
        """See `Blocks`."""
        return np.empty(size, np.float32)

    def fill(self, matrix: NDArray[np.float32], block: Block) -> NDArray[np.float32]:
        """See `Blocks`."""
        rows, columns = block.shape
        products = matrix[: rows * columns].reshape(columns, rows)
        np.matmul(self._units[block.columns], self._units[block.rows].T, out=products)
        similarity = products.T
        if block.overlap:
            first = np.arange(block.rows.start, block.rows.stop)
            second = np.arange(block.columns.start, block.columns.start + block.overlap)
            np.copyto(products[: block.overlap], HIDDEN, where=second[:, None] <= first)
        first, second = (ends[block.hidden] for ends in self._hidden)
        inside = (second >= block.columns.start) & (second < block.columns.stop)
        similarity[first[inside] - block.rows.start, second[inside] - block.columns.start] = HIDDEN
        return similarity

    def keep(self, similarity: NDArray[np.float32], kept: NDArray[np.bool_]) -> NDArray[np.float32]:
        """See `Blocks`."""
        return np.where(kept, similarity, HIDDEN)

    def new_counts(self) -> NDArray[np.int64]:
        """See `Blocks`."""
        return np.zeros(PLACES, np.int64)

    def count(self, similarity: NDArray[np.float32], counts: NDArray[np.int64]) -> None:
        """See `Blocks`."""
        count_bins(similarity.T.reshape(-1), counts)

    def read(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Blocks`."""
        return read_bins(counts)

    def find(self, similarity: NDArray[np.float32], sought: NDArray[np.bool_]) -> Found:
        """See `Blocks`."""
        flat = similarity.T.reshape(-1)
        near = np.flatnonzero(flat > _just_below(sought))
        bins = bins_of(flat[near])
        inside = sought[bins]
        columns, rows = np.divmod(near[inside], len(similarity))
        return Found(rows, columns, bins[inside])


class TorchBlocks:
    """The same by PyTorch, on a GPU, which is waited for where something is read or found, not by every block."""

    def __init__(self, units: NDArray[np.float32], hidden: Pairs, device: str) -> None:
        self._products = TorchProducts(device, "all pairs were to be compared")
        self._torch = self._products.torch
        self._units, *self._hidden = (self._products.move(array) for array in (units, *hidden))
        self._one = self._products.move(np.ones(1, np.int64))
        self._half = self._products.move(np.full(1, HALF, np.float32))

    def new_matrix(self, size: int) -> Any:
        """See `Blocks`; one more, into which goes what is not to be written."""
        return self._half.new_empty(size + 1)

    def fill(self, matrix: Any, block: Block) -> Any:
        """See `Blocks`."""
        rows, columns = block.rows, block.columns
        similarity = self._products.multiply(self._units[rows], self._units[columns], matrix)
        if block.overlap:
            first = self._arange(rows.start, rows.stop)
            second = self._arange(columns.start, columns.start + block.overlap)
            similarity[:, : block.overlap].masked_fill_(second <= first[:, None], float(HIDDEN))
        # Choosing those inside the block, as on the processor, would wait for their number.
        first, second = (ends[block.hidden] for ends in self._hidden)
        inside = (second >= columns.start) & (second < columns.stop)
        places = (first - rows.start) * similarity.shape[1] + (second - columns.start)
        matrix.index_fill_(0, places.where(inside, len(matrix) - 1), float(HIDDEN))
        return similarity

    def keep(self, similarity: Any, kept: NDArray[np.bool_]) -> Any:
        """See `Blocks`."""
        return similarity.masked_fill(self._products.move(~kept), float(HIDDEN))

    def new_counts(self) -> Any:
        """See `Blocks`."""
        return self._one.new_zeros(PLACES)

    def count(self, similarity: Any, counts: Any) -> None:
        """See `Blocks`."""
        # Not bincount, which reads all places twice more and waits for the least and the largest of them.
        places = self._bins(similarity).add_(HALF).view(-1)
        counts.index_add_(0, places, self._one.expand(len(places)))

    def read(self, counts: Any) -> NDArray[np.int64]:
        """See `Blocks`."""
        return read_bins(counts.cpu().numpy())

    def find(self, similarity: Any, sought: NDArray[np.bool_]) -> Found:
        """See `Blocks`."""
        rows, columns = (similarity > float(_just_below(sought))).nonzero(as_tuple=True)
        bins = self._bins(similarity[rows, columns]).clamp_(0, BINS - 1)
        inside = self._products.move(sought)[bins]
        return Found(*(part[inside].cpu().numpy() for part in (rows, columns, bins)))

    def _bins(self, similarity: Any) -> Any:
        """`bins_of` on the device, below the first and above the last bin too."""
        # One pass, and equal to (similarity + 1) * HALF, since a power of two only moves the exponent.
        return self._torch.add(self._half, similarity, alpha=HALF).to(self._torch.int32)

    def _arange(self, start: int, stop: int) -> Any:
        """Whole numbers on the device."""
        return self._torch.arange(start, stop, device=self._products.device)


def _just_below(sought: NDArray[np.bool_]) -> np.float32:
    """A similarity that all in the sought bins exceed."""
    lowest = int(sought.argmax())
    return VISIBLE if lowest == 0 else np.float32(-1.0 + WIDTH * (lowest - 1))
