"""Aligned faces as people give them in Python: an array, the path of an image, of several, or of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_manifests.image_folder import ImageFileError, ImageFolder
from data_manifests.tables.stages import Status
from labelers.faces import SIDE, decode_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


class GivenImagesError(ValueError):
    """These are no aligned faces; says what is expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenImages:
    """N aligned faces.

    Attributes:
        paths: of the files [N], as they were given; below the folder, where that was given; None for an array.
        folder: where the paths start; None where each is whole.
        pixels: uint8 [N, 112, 112, 3], RGB; None for files.
    """

    paths: tuple[str, ...] | None = None
    folder: Path | None = None
    pixels: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.pixels) if self.pixels is not None else len(self.paths or ())

    def read(self, start: int, stop: int) -> tuple[NDArray[np.uint8], list[Status]]:
        """Some of them, uint8 [stop - start, 112, 112, 3] RGB, black where one cannot be read, and how that went."""
        if self.pixels is not None:
            return self.pixels[start:stop], [Status.OK] * (stop - start)
        stored = [self._fetch(path) for path in (self.paths or ())[start:stop]]
        none = np.full(stop - start, -1, np.int32)
        faces, status = decode_batch(none, none, stored)
        return faces.images, status

    def _fetch(self, path: str) -> bytes | Status:
        """The content of a file, or why there is none."""
        try:
            whole = Path(path)
            return ImageFolder(self.folder or whole.parent).read(path if self.folder else whole.name)
        except ImageFileError as error:
            return error.status


def read_given(images: ArrayLike | str | Path | Sequence[str | Path]) -> GivenImages:
    """Understand what was given.

    Args:
        images: uint8 [N, 112, 112, 3] or [112, 112, 3], RGB; or the path of an image, of several, or of a folder, whose
            images are then taken as a data set does: sorted by their paths, its folders too.

    Raises:
        GivenImagesError: if it is none of these, or empty.
        ImageFolderError: if the folder holds no image.
    """
    if isinstance(images, str | Path):
        place = Path(images)
        if place.is_dir():
            return GivenImages(paths=ImageFolder(place).paths, folder=place)
        _require_file(place)
        return GivenImages(paths=(str(images),))
    if isinstance(images, list | tuple) and images and all(isinstance(one, str | Path) for one in images):
        for one in images:
            _require_file(Path(one))
        return GivenImages(paths=tuple(str(one) for one in images))
    pixels: NDArray[Any] = np.asarray(images)
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (SIDE, SIDE, 3) or not len(pixels):
        raise GivenImagesError(
            f"aligned faces are uint8 [N, {SIDE}, {SIDE}, 3] in RGB, or paths of images, not {pixels.dtype} "
            f"{list(pixels.shape)}: labelers.align cuts them out of photos, and each that it finds has them as `image`"
        )
    return GivenImages(pixels=pixels)


def _require_file(place: Path) -> None:
    """Refuse a path that leads nowhere: a slip, not a broken image."""
    if not place.is_file():
        raise GivenImagesError(f"{place}: no such file or folder: check the path")
