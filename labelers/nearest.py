"""The nearest centre of another class, exactly, in tiles that fit the cache rather than one product of all pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labelers.device import Device, exact_products, torch_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ROWS = 1024
"""Embeddings in a tile."""

COLUMNS = 8192
"""Centres in a tile; a tile of similarities takes 32 MB."""


def nearest_other(  # noqa: PLR0913 - two matrices with their companions, and how to cut them
    units: NDArray[np.float32],
    own: NDArray[np.intp],
    centres: NDArray[np.float32],
    lengths: NDArray[np.float64],
    *,
    device: Device = Device.CPU,
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> NDArray[np.intp]:
    """For every embedding, which centre other than its own is most similar.

    The products are float32, so of centres that are equally near within 2e-7 any may be named.

    Args:
        units: float32 [N, D], finite, of unit length.
        own: [N], the row of the own class's centre.
        centres: float32 [C, D], of any length.
        lengths: float64 [C], their lengths.
        device: where the products are made.
        rows: embeddings in a tile.
        columns: centres in a tile.

    Returns:
        [N], rows of `centres`; -1 where there is no other class.

    Raises:
        ProviderError: if CUDA is asked for and cannot be used.
    """
    best = np.full(len(units), -np.inf, np.float32)
    nearest = np.full(len(units), -1, np.intp)
    search = _TorchTile(units, "cuda") if device is Device.CUDA else _NumpyTile(units, rows, columns)
    for first, tile in _unit_tiles(centres, lengths, columns):
        search.load(tile)
        for start in range(0, len(units), rows):
            stop = min(start + rows, len(units))
            inside = np.flatnonzero((own[start:stop] >= first) & (own[start:stop] < first + len(tile)))
            values, positions = search.best(start, stop, inside, own[start:stop][inside] - first)
            better = values > best[start:stop]
            best[start:stop][better] = values[better]
            nearest[start:stop][better] = positions[better] + first
    return nearest


def _unit_tiles(
    centres: NDArray[np.float32], lengths: NDArray[np.float64], columns: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Tiles of centres at unit length with the row where each starts; a centre without direction stays zero."""
    scale = (1.0 / np.where(lengths > 0.0, lengths, np.inf)).astype(np.float32)
    for first in range(0, len(centres), columns):
        yield first, centres[first : first + columns] * scale[first : first + columns, None]


class _NumpyTile:
    """Similarities of a tile by the processor's matrix product, in one buffer."""

    def __init__(self, units: NDArray[np.float32], rows: int, columns: int) -> None:
        self._units = units
        self._buffer = np.empty(min(rows, len(units)) * columns, np.float32)

    def load(self, tile: NDArray[np.float32]) -> None:
        """Take the next centres [T, D]."""
        self._tile = tile

    def best(
        self, start: int, stop: int, inside: NDArray[np.intp], own: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """Value and position of the largest similarity of each row, own classes left out."""
        similarity = self._buffer[: (stop - start) * len(self._tile)].reshape(stop - start, len(self._tile))
        np.matmul(self._units[start:stop], self._tile.T, out=similarity)  # [R, T]
        similarity[inside, own] = -np.inf
        positions = similarity.argmax(axis=1)
        return similarity[np.arange(stop - start), positions], positions


class _TorchTile:
    """The same by PyTorch, on a GPU."""

    def __init__(self, units: NDArray[np.float32], device: str) -> None:
        # Here because importing PyTorch takes seconds, and the processor's way does without it.
        import torch  # noqa: PLC0415

        self._torch = torch
        self._device = torch_device(device, "class centres were to be compared")
        self._units = torch.from_numpy(units).to(self._device)

    def load(self, tile: NDArray[np.float32]) -> None:
        """Take the next centres [T, D]."""
        self._tile = self._torch.from_numpy(tile).to(self._device)

    def best(self, start: int, stop: int, inside: NDArray[np.intp], own: NDArray[np.intp]) -> tuple[Any, Any]:
        """Value and position of the largest similarity of each row, own classes left out."""
        torch = self._torch
        with exact_products():
            similarity = self._units[start:stop] @ self._tile.T  # [R, T]
        rows, columns = (torch.from_numpy(index).to(self._device) for index in (inside, own))
        similarity[rows, columns] = float("-inf")
        values, positions = similarity.max(dim=1)
        return values.cpu().numpy(), positions.cpu().numpy()
