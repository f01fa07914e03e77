"""All impostor pairs of an identity set, block by block: counted in one pass, some of them looked up in another.

Products of up to 16,000 images are kept from the one for the other; those of more are made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, starmap
from typing import TYPE_CHECKING

import numpy as np

from labelers.runtime.device import Device
from labelers.runtime.threads import map_products, processor_threads
from training.evaluation.pairs.blocks import SHAPES, Block, BlockShape, open_blocks
from training.evaluation.pairs.histogram import BINS
from training.evaluation.pairs.similarity import pair_similarities

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

    from training.evaluation.pairs.rejection_levels import Band, RejectionLevels

    BandCounts = list[tuple[int, NDArray[np.int64]]]

KEPT = 1 << 27
"""Products on the processor that are kept: 512 MB, for 16,384 images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarityCounts:
    """Exact similarities of impostor pairs; pairs that are alike in all three are counted together.

    Attributes:
        level: [K].
        bin: of the product that found the pair [K].
        similarity: float32 [K].
        count: int64 [K].
    """

    level: NDArray[np.intp]
    bin: NDArray[np.intp]
    similarity: NDArray[np.float32]
    count: NDArray[np.int64]


class Impostors:
    """The impostor pairs of N images.

    Args:
        units: float32 [N, D], of unit length.
        genuine: the genuine pairs, [G] rows of `units` twice.
        levels: by which the pairs are told apart.
        device: where products are made.
        shape: of a block; the device's own where it is not given.
    """

    def __init__(
        self,
        units: NDArray[np.float32],
        genuine: tuple[NDArray[np.intp], NDArray[np.intp]],
        levels: RejectionLevels,
        *,
        device: Device = Device.CPU,
        shape: BlockShape | None = None,
    ) -> None:
        self._units = units[levels.order]
        self._levels = levels
        self._shape = shape or SHAPES[device]
        self._kept: dict[tuple[int, int], Any] | None = None
        if device is Device.CPU and len(units) ** 2 // 2 <= KEPT:
            self._kept = {}
        self._threads = processor_threads() if device is Device.CPU else 1
        position = np.empty(len(units), np.intp)
        position[levels.order] = np.arange(len(units))
        ends = position[genuine[0]], position[genuine[1]]
        rows, columns = np.minimum(*ends), np.maximum(*ends)
        by_row = np.argsort(rows, kind="stable")
        self._genuine_rows = rows[by_row]
        self._blocks = open_blocks(self._units, (self._genuine_rows, columns[by_row]), device)

    @property
    def dimension(self) -> int:
        """D, the values of an embedding."""
        return int(self._units.shape[1])

    def count(self) -> NDArray[np.int64]:
        """How many pairs of each level have a product in each bin, [levels, 65,536]."""
        counts = np.zeros((self._levels.count, BINS), np.int64)
        for found in map_products(self._count_band, self._bands(), self._threads):
            for level, part in found:
                counts[level] += part
        return counts

    def collect(self, wanted: NDArray[np.bool_]) -> SimilarityCounts:
        """Look up the pairs of some levels and bins, a table [levels, 65,536] of which are wanted.

        Memory grows with the number of distinct similarities among them.
        """
        keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        sought = np.asarray(wanted.any(axis=0))
        waiting = [(keys, counts)]
        for found in map_products(lambda band: self._collect_band(band, wanted, sought), self._bands(), self._threads):
            waiting.append(found)
            if sum(len(part) for part, _ in waiting[1:]) > max(len(waiting[0][0]), 1 << 20):
                waiting = [_merge(waiting)]
        keys, counts = _merge(waiting)
        return SimilarityCounts(
            level=(keys >> 48).astype(np.intp),
            bin=(keys >> 32 & 0xFFFF).astype(np.intp),
            similarity=(keys & 0xFFFFFFFF).astype(np.uint32).view(np.float32),
            count=counts,
        )

    def _bands(self) -> Iterator[Band]:
        """All rows of the triangle."""
        return self._levels.bands(self._shape.rows * self._shape.stack)

    def _products(self, band: Band) -> Iterator[tuple[Block, Any]]:
        """The products of a band's rows, hidden where a pair is genuine or does not come in order."""
        room = min(self._shape.rows, len(self._units)) * self._shape.columns
        matrix = self._blocks.new_matrix(room if self._kept is None else 0)
        bounds = [*range(band.rows.start, band.rows.stop, self._shape.rows), band.rows.stop]
        hidden = [slice(*pair) for pair in pairwise(np.searchsorted(self._genuine_rows, bounds).tolist())]
        for start in range(band.rows.start, len(self._units), self._shape.columns):
            stop = min(start + self._shape.columns, len(self._units))
            for rows, left_out in zip(starmap(slice, pairwise(bounds)), hidden, strict=True):
                columns = slice(max(start, rows.start), stop)
                if rows.start < stop:
                    block = Block(rows=rows, columns=columns, hidden=left_out)
                    yield block, self._multiply(block, matrix)

    def _multiply(self, block: Block, matrix: Any) -> Any:
        """The products of a block: in that room, or those that were kept."""
        if self._kept is None:
            return self._blocks.fill(matrix, block)
        place = block.rows.start, block.columns.start
        if place not in self._kept:
            rows, columns = block.shape
            self._kept[place] = self._blocks.fill(self._blocks.new_matrix(rows * columns), block)
        return self._kept[place]

    def _count_band(self, band: Band) -> BandCounts:
        """Counts of a band by level."""
        counts: dict[int, Any] = {}
        for block, products in self._products(band):
            for level, part in self._by_level(band, block, products):
                if level not in counts:
                    counts[level] = self._blocks.new_counts()
                self._blocks.count(part, counts[level])
        return [(level, self._blocks.read(part)) for level, part in counts.items()]

    def _by_level(self, band: Band, block: Block, products: Any) -> Iterator[tuple[int, Any]]:
        """The products of each level in a block."""
        if not band.split:
            yield band.level, products
            return
        rows, columns = np.arange(block.rows.start, block.rows.stop), np.arange(block.columns.start, block.columns.stop)
        levels = band.levels(rows[:, None], columns[None, :])  # [R, C]
        for level in np.unique(levels).tolist():
            yield level, self._blocks.keep(products, levels == level)

    def _collect_band(
        self, band: Band, wanted: NDArray[np.bool_], sought: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Keys and counts of a band's wanted pairs."""
        parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
        for block, products in self._products(band):
            found = self._blocks.find(products, sought)
            rows, columns = found.rows + block.rows.start, found.columns + block.columns.start
            levels = band.levels(rows, columns)
            chosen = np.flatnonzero(wanted[levels, found.bins])
            similarity = pair_similarities(self._units, rows[chosen], columns[chosen])
            keys = _pack(levels[chosen], found.bins[chosen], similarity)
            parts.append((keys, np.ones(len(keys), np.int64)))
        return _merge(parts)


def _pack(levels: NDArray[np.intp], bins: NDArray[np.int32], similarity: NDArray[np.float32]) -> NDArray[np.int64]:
    """One number for level, bin and similarity."""
    return levels.astype(np.int64) << 48 | bins.astype(np.int64) << 32 | similarity.view(np.uint32).astype(np.int64)


def _merge(
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct keys, ascending, and the sum of each one's counts."""
    keys, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(keys)
    keys = keys[order]
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))[: len(keys)]
    return keys[first], np.add.reduceat(counts[order], first) if len(first) else counts
