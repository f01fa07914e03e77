"""What a training learns from: the `labels` table as arrays, and the images where they lie."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.image_folder import ImageFolder
from data_manifests.recordio import RecordFile, RecordReader
from data_manifests.tables import CLASSES, Factor, Status
from labelers.faces import DecodeError, decode

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from numpy.typing import NDArray

UNREADABLE = (Status.MISSING, Status.RECORD_ERROR, Status.DECODE_ERROR, Status.WRONG_SIZE)
"""Causes for which there is no picture to learn from."""

_COLUMNS = ("key", "identity", "quality", *(factor.value for factor in Factor), "status")


class TrainingDataError(ValueError):
    """The labels or the images cannot be used, or do not belong together; names the place and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The columns of the `labels` table that a training uses; N rows, keys ascending.

    Attributes:
        keys: int32 [N].
        identities: int32 [N].
        quality: float32 [N] in [0, 1], NaN for null.
        classes: int8 [N, 5] in the order of `Factor`, indices into CLASSES, -1 for null.
        readable: bool [N], whether there is a picture to learn from.
        fingerprint: of the stage that wrote the table, as its file metadata says; empty where that says nothing.
        content: 12 hexadecimal digits of a SHA-256 over keys, quality and classes: what a training depends on.
    """

    keys: NDArray[np.int32]
    identities: NDArray[np.int32]
    quality: NDArray[np.float32]
    classes: NDArray[np.int8]
    readable: NDArray[np.bool_]
    fingerprint: str
    content: str

    def __len__(self) -> int:
        return len(self.keys)


def read_labels(folder: Path) -> Labels:
    """Read a folder of Parquet files, or one file, that holds the `labels` table.

    Raises:
        TrainingDataError: if there is none, if it is not that table, or if two runs wrote into it.
    """
    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder]
    if not files or not files[0].is_file():
        raise TrainingDataError(f"{folder}: no Parquet file there; name the folder that `labels/current` points to")
    try:
        fingerprint = _fingerprint(files, folder)
        frame = pl.scan_parquet(files).select(_COLUMNS).with_columns(*map(_codes, Factor)).collect().sort("key")
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        raise TrainingDataError(f"{folder}: does not hold the table `labels` ({error})") from error
    keys = frame["key"].cast(pl.Int32).to_numpy()
    quality = frame["quality"].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    _check(keys, quality, folder)
    classes = np.stack([frame[factor.value].to_numpy() for factor in Factor], axis=1)
    return Labels(
        keys=keys,
        identities=frame["identity"].cast(pl.Int32).fill_null(-1).to_numpy(),
        quality=quality,
        classes=classes,
        readable=_readable(frame["status"]),
        fingerprint=fingerprint,
        content=_digest(keys, quality, classes),
    )


def _fingerprint(files: list[Path], folder: Path) -> str:
    """The fingerprint in the metadata of the files; all must have the same."""
    metadata = [pq.read_schema(file).metadata or {} for file in files]
    found: set[str] = {entry.get(b"fingerprint", b"").decode() for entry in metadata}
    if len(found) > 1:
        raise TrainingDataError(f"{folder}: its files are of different runs ({', '.join(sorted(found))}); label anew")
    return found.pop()


def _codes(factor: Factor) -> pl.Expr:
    """A factor's classes, whatever kind of text column they are, as int8 with -1 for null."""
    names = pl.Enum(CLASSES[factor])
    return pl.col(factor.value).cast(pl.String).cast(names).to_physical().cast(pl.Int8).fill_null(-1)


def _check(keys: NDArray[np.int32], quality: NDArray[np.float32], folder: Path) -> None:
    """Raise unless every key stands there once and every quality lies within [0, 1]."""
    if not len(keys):
        raise TrainingDataError(f"{folder}: the labels have no row")
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        raise TrainingDataError(f"{folder}: the key {keys[twice[0]]} stands there twice; label anew")
    outside = np.flatnonzero((quality < 0) | (quality > 1))
    if len(outside):
        row = outside[0]
        raise TrainingDataError(f"{folder}: the quality of key {keys[row]} is {quality[row]}, not within [0, 1]")


def _digest(*arrays: NDArray[np.generic]) -> str:
    state = hashlib.sha256()
    for array in arrays:
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()[:12]


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
class TrainingSet:
    """M images with their labels; it holds no open file and no pixel, so it travels to another process as it is.

    Attributes:
        labels: all N rows of the table.
        rows: int64 [M], the rows of the labels that are learned from, ascending.
        quality: float32 [M], NaN for null.
        classes: int8 [M, 5], -1 for null.
        images: where the M images lie.
        left_out: cause -> number of rows that are not learned from.
    """

    labels: Labels
    rows: NDArray[np.int64]
    quality: NDArray[np.float32]
    classes: NDArray[np.int8]
    images: Images
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.rows)

    def decode_into(self, target: NDArray[np.uint8], row: int) -> None:
        """Decode one image.

        Args:
            target: uint8 [112, 112, 3], gets the RGB picture.
            row: 0 to M - 1.

        Raises:
            TrainingDataError: if the image cannot be read although the labels say that it could be.
        """
        try:
            image = decode(self.images.read(row))
        except (DecodeError, OSError, ValueError) as error:
            raise self._changed(row, str(error)) from error
        if image.shape != target.shape:
            raise self._changed(row, f"it has the shape {image.shape}")
        target[:] = image

    def counts(self) -> dict[str, dict[str, int]]:
        """How many of the M images have each label."""
        found = {"quality": {"labelled": int(np.isfinite(self.quality).sum())}}
        for place, factor in enumerate(Factor):
            codes = self.classes[:, place]
            found[factor.value] = {name: int((codes == code).sum()) for code, name in enumerate(CLASSES[factor])}
        return found

    def _changed(self, row: int, why: str) -> TrainingDataError:
        return TrainingDataError(
            f"key {self.labels.keys[self.rows[row]]} cannot be used, though the labels say it can: {why}; if the "
            "images have changed since, label them anew"
        )


def load_training_set(
    labels: Path, images: Path, *, quality: bool = True, factors: Collection[Factor] = tuple(Factor)
) -> TrainingSet:
    """Join labels and images.

    Left out, and counted, is what cannot be read, and what lacks every label that the training uses.

    Args:
        labels: a folder of the `labels` table.
        images: a .rec file (its .idx beside it), or an image folder.
        quality: whether the training uses the quality.
        factors: the factors that it uses.

    Raises:
        TrainingDataError: if labels and images do not belong together, or nothing is left to learn from.
        RecordError, ImageFolderError: if the images' index is damaged.
    """
    table = read_labels(labels)
    readable = table.readable
    used = [place for place, factor in enumerate(Factor) if factor in factors]
    labelled = (table.classes[:, used] >= 0).any(axis=1)
    if quality:
        labelled |= np.isfinite(table.quality)
    rows = np.flatnonzero(readable & labelled)
    if not len(rows):
        raise TrainingDataError(f"{labels}: no row has an image that can be read and a label to learn from")
    return TrainingSet(
        labels=table,
        rows=rows,
        quality=table.quality[rows],
        classes=table.classes[rows],
        images=_find_images(images, table, rows),
        left_out={"unreadable": int((~readable).sum()), "unlabelled": int((readable & ~labelled).sum())},
    )


def _readable(status: pl.Series) -> NDArray[np.bool_]:
    """Bool [N]: whether none of the causes, which stand joined by `+`, is that there is no picture."""
    # Millions of rows have a handful of different texts.
    texts = status.cast(pl.String).unique().drop_nulls().to_list()
    without = [text for text in texts if set(text.split("+")) & set(UNREADABLE)]
    return ~status.cast(pl.String).is_in(without).fill_null(value=False).to_numpy()


def _find_images(place: Path, table: Labels, rows: NDArray[np.int64]) -> Images:
    """Where the images of the given rows of the labels lie."""
    if place.is_dir():
        if records := sorted(place.glob("*.rec")):
            raise TrainingDataError(f"{place}: is a folder of records; name the file, {records[0]}")
        folder = ImageFolder(place)
        found = _match(place, table, folder.keys, folder.identities)[rows]
        return FileImages(root=place, paths=tuple(folder.paths[i] for i in found))
    if not place.is_file():
        raise TrainingDataError(f"{place}: no such file or folder; name the .rec file or the folder of images")
    index = RecordFile(place).index()
    found = _match(place, table, index.keys, index.identities)[rows]
    return RecordImages(rec=place, offsets=index.offsets[found], lengths=index.lengths[found])


def _match(place: Path, table: Labels, keys: NDArray[np.int32], identities: NDArray[np.int32]) -> NDArray[np.int64]:
    """Int64 [N]: where every row of the labels lies. That the people agree tells that both belong together."""
    if not len(keys):
        raise TrainingDataError(f"{place}: holds no image; name the images that were labelled")
    found = np.minimum(np.searchsorted(keys, table.keys), len(keys) - 1)
    other = np.flatnonzero((keys[found] != table.keys) | (identities[found] != table.identities))
    if len(other):
        key = table.keys[other[0]]
        raise TrainingDataError(
            f"{place}: does not belong to the labels, which have a person {table.identities[other[0]]} under the key "
            f"{key}; name the images that were labelled"
        )
    return found
