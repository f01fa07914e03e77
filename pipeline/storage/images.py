"""Stored images, read by the rows of the index: what travels to a worker is where they lie, never their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from data_manifests.image_folder import ImageFileError, ImageFolder
from data_manifests.recordio.record_file import RecordError, RecordReader
from data_manifests.tables.stages import Status
from data_manifests.verification import read_bin

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """Where the images of a data set lie.

    Attributes:
        record_file: the .rec file, for RecordIO.
        bin_file: the .bin file, for verification pairs in one file.
        folder: the folder below which the images lie as files, for all others.
    """

    record_file: Path | None = None
    bin_file: Path | None = None
    folder: Path | None = None

    def read(self, rows: pa.Table) -> list[bytes | Status]:
        """Read the stored bytes of the given rows of the index, or the status by which reading failed.

        Args:
            rows: rows of the `index` table with N rows.

        Returns:
            N items in the order of the rows.
        """
        status = rows["status"].to_pylist()
        if self.record_file is not None:
            reader = _open_records(self.record_file)
            places = zip(rows["offset"].to_pylist(), rows["length"].to_pylist(), status, strict=True)
            return [_read_record(reader, *place) if s == Status.OK else Status(s) for *place, s in places]
        if self.bin_file is not None:
            images = _open_bin(self.bin_file)
            numbers = zip(rows["offset"].to_pylist(), status, strict=True)
            return [_take(images, number) if s == Status.OK else Status(s) for number, s in numbers]
        if self.folder is not None:
            folder = _open_folder(self.folder)
            names = zip(rows["path"].to_pylist(), status, strict=True)
            return [_read_file(folder, name) if s == Status.OK else Status(s) for name, s in names]
        raise ValueError("an image source is a record file, a .bin or a folder: name one")


def _read_record(reader: RecordReader, offset: int, length: int) -> bytes | Status:
    """The payload of the record at an offset."""
    try:
        return reader.at(offset, length).payload
    except RecordError as error:
        return error.status


def _take(images: list[bytes], number: int) -> bytes | Status:
    """An image of a .bin by its number."""
    return images[number] if number < len(images) else Status.MISSING


def _read_file(folder: ImageFolder, name: str) -> bytes | Status:
    """The bytes of an image file."""
    try:
        return folder.read(name)
    except ImageFileError as error:
        return error.status


@lru_cache(maxsize=2)
def _open_records(record_file: Path) -> RecordReader:
    """The open record file, once a process."""
    return RecordReader(record_file)


@lru_cache(maxsize=1)
def _open_bin(bin_file: Path) -> list[bytes]:
    """The images of a .bin, read once a process: about 100 MB for the usual 12,000."""
    return read_bin(bin_file)[0]


@lru_cache(maxsize=2)
def _open_folder(root: Path) -> ImageFolder:
    """The image folder, once a process."""
    return ImageFolder(root)
