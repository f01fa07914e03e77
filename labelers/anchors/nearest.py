"""The nearest centre of another class, exactly, in tiles that fit a cache rather than one product of all pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from labelers.runtime.device import Device, TorchProducts
from labelers.runtime.threads import map_products, processor_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from labelers.anchors.centres import Centres

ROWS = 256
"""Embeddings in a tile on a processor."""

COLUMNS = 1024
"""Centres in a tile on a processor: 1 MB of products, which are compared while they are in the core's own cache."""

GPU_ROWS = 2048
"""Embeddings in a tile on a GPU."""

GPU_COLUMNS = 32_768
"""Centres in a tile on a GPU: at most 268 MB of products, and few kernels to start."""


class CentreSearch(Protocol):
    """Class centres, made ready to be searched as often as wanted.

    The products are float32, so of centres that are equally near within 2e-7 any may be named.
    """

    @property
    def centres(self) -> Centres:
        """What is searched, of any length."""

    def nearest_other(self, units: NDArray[np.float32], own: NDArray[np.intp]) -> NDArray[np.int32]:
        """For every embedding, which centre other than its own is most similar.

        Args:
            units: float32 [N, D], finite, of unit length.
            own: [N], the row of the own class's centre.

        Returns:
            [N], rows of the centres; -1 where there is no other class.
        """


def open_search(
    centres: Centres, device: Device = Device.CPU, *, rows: int = ROWS, columns: int = COLUMNS
) -> CentreSearch:
    """Make centres ready: a processor takes them as they are, a GPU keeps them at unit length in its memory.

    Args:
        centres: of any length; one without direction is at a right angle to everything.
        device: where the products are made.
        rows: embeddings in a tile on a processor.
        columns: centres in a tile on a processor.

    Raises:
        ProviderError: if CUDA is asked for and cannot be used.
    """
    return TorchSearch(centres, "cuda") if device is Device.CUDA else NumpySearch(centres, rows, columns)


class NumpySearch:
    """By the processor's matrix product, tile by tile, on as many threads as it may use."""

    def __init__(self, centres: Centres, rows: int, columns: int) -> None:
        from labelers.anchors.largest import keep_largest  # noqa: PLC0415 - loads numba, which who merely plans does without

        self.centres = centres
        self._scale = _scale(centres)
        self._rows, self._columns = rows, columns
        self._threads = processor_threads()
        self._keep_largest = keep_largest

    def nearest_other(self, units: NDArray[np.float32], own: NDArray[np.intp]) -> NDArray[np.int32]:
        """See `CentreSearch`."""
        largest, nearest = _nothing_yet(len(units))
        own_rows = own.astype(np.int32)
        firsts = range(0, len(self.centres), self._columns)
        for found, rows in map_products(lambda first: self._search_tile(first, units, own_rows), firsts, self._threads):
            larger = found > largest
            largest[larger], nearest[larger] = found[larger], rows[larger]
        return nearest

    def _search_tile(
        self, first: int, units: NDArray[np.float32], own: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """The largest similarity of every embedding in the tile that starts there, and its centre, [N] each."""
        tile = slice(first, first + self._columns)
        centres, scale = self.centres.sums[tile], self._scale[tile]
        largest, nearest = _nothing_yet(len(units))
        room = np.empty(len(centres) * min(self._rows, len(units)), np.float32)
        for start in range(0, len(units), self._rows):
            part = slice(start, min(start + self._rows, len(units)))
            products = room[: len(centres) * (part.stop - start)].reshape(len(centres), -1)
            np.matmul(centres, units[part].T, out=products)  # [T, R]
            self._keep_largest(products, scale, first, own[part], largest[part], nearest[part])
        return largest, nearest


class TorchSearch:
    """The same by PyTorch, on a GPU, which is waited for when it has compared some rows with all centres."""

    def __init__(self, centres: Centres, device: str, rows: int = GPU_ROWS, columns: int = GPU_COLUMNS) -> None:
        self.centres = centres
        self._products = TorchProducts(device, "class centres were to be compared")
        self._units = self._products.move(centres.sums).mul_(self._products.move(_scale(centres))[:, None])  # [C, D]
        self._rows, self._columns = rows, columns

    def nearest_other(self, units: NDArray[np.float32], own: NDArray[np.intp]) -> NDArray[np.int32]:
        """See `CentreSearch`."""
        nearest = np.empty(len(units), np.int32)
        for start in range(0, len(units), self._rows):
            part = slice(start, start + self._rows)
            nearest[part] = self._search_all(units[part], own[part])
        return nearest

    def _search_all(self, units: NDArray[np.float32], own: NDArray[np.intp]) -> NDArray[np.int64]:
        """The centre of the largest similarity of every embedding, [N]."""
        torch = self._products.torch
        left, own_rows = self._products.move(units), self._products.move(own)
        largest, nearest = (self._products.move(start) for start in _nothing_yet(len(units)))
        room = left.new_empty(len(units) * min(self._columns, len(self.centres)))
        for first in range(0, len(self.centres), self._columns):
            tile = self._units[first : first + self._columns]
            similarity = self._products.multiply(left, tile, room)  # [N, T]
            place = (own_rows - first).clamp(0, len(tile) - 1)[:, None]
            inside = (own_rows - first)[:, None] == place
            similarity.scatter_(1, place, similarity.gather(1, place).masked_fill(inside, -torch.inf))
            found, columns = similarity.max(dim=1)
            nearest = torch.where(found > largest, columns + first, nearest)
            largest = torch.maximum(found, largest)
        found_rows: NDArray[np.int64] = nearest.cpu().numpy()
        return found_rows


def _nothing_yet(count: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The largest similarity and the nearest centre of so many embeddings before any is compared."""
    return np.full(count, -np.inf, np.float32), np.full(count, -1, np.int32)


def _scale(centres: Centres) -> NDArray[np.float32]:
    """By what each centre is to be multiplied to have unit length, [C]; 0 for a centre without direction."""
    return (1.0 / np.where(centres.lengths > 0.0, centres.lengths, np.inf)).astype(np.float32)
