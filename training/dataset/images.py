"""Stored images and the people whom they show: what every training reads, whatever it learns of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from data_manifests.image_folder import ImageFolder
from data_manifests.recordio.record_file import RecordFile, RecordReader
from labelers.faces import DecodeError, decode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


class TrainingDataError(ValueError):
    """The labels or the images cannot be used, or do not belong together; names the place and the remedy."""


class Images(Protocol):
    """Stored images by their place in the training set."""

    def read(self, row: int) -> bytes:
        """The encoded bytes of an image."""
        ...


@dataclass(frozen=True, kw_only=True)
class RecordImages:
    """Images in a .rec file.

    Attributes:
        rec: the file.
        offsets: int64 [N], where each record starts.
        lengths: int32 [N], stored bytes.
    """

    rec: Path
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int32]

    def read(self, row: int) -> bytes:
        """The encoded bytes of an image; RecordError if the record is damaged."""
        return self._reader.at(int(self.offsets[row]), int(self.lengths[row])).payload

    @cached_property
    def _reader(self) -> RecordReader:
        return RecordReader(self.rec)


@dataclass(frozen=True, kw_only=True)
class FileImages:
    """Images as files below a folder.

    Attributes:
        root: the folder.
        paths: N paths below it.
    """

    root: Path
    paths: tuple[str, ...]

    def read(self, row: int) -> bytes:
        """The encoded bytes of an image; ImageFileError if the file is gone."""
        return self._folder.read(self.paths[row])

    @cached_property
    def _folder(self) -> ImageFolder:
        return ImageFolder(self.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """All images of a data set, in key order.

    Attributes:
        place: the .rec file or the folder.
        keys: int32 [N], ascending.
        identities: int32 [N], -1 where the person is not known.
        choose: rows, int64 [M], to where those M images lie.
    """

    place: Path
    keys: NDArray[np.int32]
    identities: NDArray[np.int32]
    choose: Callable[[NDArray[np.int64]], Images]


def open_source(place: Path) -> Source:
    """Find the images of a data set.

    Args:
        place: a .rec file (its .idx beside it), or an image folder.

    Raises:
        TrainingDataError: if there is no such place, or no image.
        RecordError, ImageFolderError: if the images' index is damaged.
    """
    if place.is_dir():
        if records := sorted(place.glob("*.rec")):
            raise TrainingDataError(f"{place}: is a folder of records; name the file, {records[0]}")
        source = _open_folder(place)
    elif place.is_file():
        source = _open_records(place)
    else:
        raise TrainingDataError(f"{place}: no such file or folder; name the .rec file or the folder of images")
    if not len(source.keys):
        raise TrainingDataError(f"{place}: holds no image; name the images to learn from")
    return source


def decode_face(encoded: Callable[[], bytes], target: NDArray[np.uint8], explain: Callable[[str], str]) -> None:
    """Read and decode one image.

    Args:
        encoded: reads its bytes.
        target: uint8 [112, 112, 3], gets the RGB picture.
        explain: from what is wrong to the message of the error.

    Raises:
        TrainingDataError: if it cannot be read, or has another size.
    """
    try:
        image = decode(encoded())
    except (DecodeError, OSError, ValueError) as error:
        raise TrainingDataError(explain(str(error))) from error
    if image.shape != target.shape:
        raise TrainingDataError(explain(f"it has the shape {image.shape}"))
    target[:] = image


def _open_folder(place: Path) -> Source:
    """The images of a folder."""
    folder = ImageFolder(place)

    def choose(rows: NDArray[np.int64]) -> FileImages:
        return FileImages(root=place, paths=tuple(folder.paths[i] for i in rows))

    return Source(place=place, keys=folder.keys, identities=folder.identities, choose=choose)


def _open_records(place: Path) -> Source:
    """The images of a .rec file."""
    index = RecordFile(place).index()

    def choose(rows: NDArray[np.int64]) -> RecordImages:
        return RecordImages(rec=place, offsets=index.offsets[rows], lengths=index.lengths[rows])

    return Source(place=place, keys=index.keys, identities=index.identities, choose=choose)
