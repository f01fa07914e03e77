"""The columns of the `labels` table that a training uses, as arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.recordio.record_file import UNKNOWN_IDENTITY
from data_manifests.storage.shard_file import DamagedShardError, name_damage
from data_manifests.storage.values import first_line
from data_manifests.tables.stages import CLASSES, Factor, Status
from training.dataset.images import TrainingDataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

UNREADABLE = (Status.MISSING, Status.RECORD_ERROR, Status.DECODE_ERROR, Status.WRONG_SIZE)
"""Causes for which there is no picture to learn from."""

_COLUMNS = ("key", "identity", "quality", *(factor.value for factor in Factor), "status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The columns of the `labels` table that a training uses; N rows, keys ascending.

    Attributes:
        keys: int32 [N].
        identities: int32 [N], -1 where the person is not known.
        quality: float32 [N] in [0, 1], NaN for null.
        classes: int8 [N, 5] in the order of `Factor`, indices into CLASSES, -1 for null.
        readable: bool [N], whether there is a picture to learn from.
        status: text [N], `ok` or all causes of nulls.
        fingerprint: of the stage that wrote the table, as its file metadata says; empty where that says nothing.
        content: 12 hexadecimal digits of a SHA-256 over keys, identities, quality and classes: what a training depends
            on.
    """

    keys: NDArray[np.int32]
    identities: NDArray[np.int32]
    quality: NDArray[np.float32]
    classes: NDArray[np.int8]
    readable: NDArray[np.bool_]
    status: pl.Series
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
        with name_damage(*{file.parent for file in files}):
            frame = pl.scan_parquet(files, glob=False).select(_COLUMNS).with_columns(*map(_codes, Factor)).collect()
    except DamagedShardError as error:
        raise TrainingDataError(str(error)) from error
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        why = f"does not hold the table `labels` of this version ({first_line(error)}): label anew"
        raise TrainingDataError(f"{folder}: {why}") from error
    frame = frame.sort("key")
    keys = frame["key"].cast(pl.Int32).to_numpy()
    identities = frame["identity"].cast(pl.Int32).fill_null(UNKNOWN_IDENTITY).to_numpy()
    quality = frame["quality"].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    _check(keys, quality, folder)
    classes = np.stack([frame[factor.value].to_numpy() for factor in Factor], axis=1)
    return Labels(
        keys=keys,
        identities=identities,
        quality=quality,
        classes=classes,
        readable=_readable(frame["status"]),
        status=frame["status"].cast(pl.String).cast(pl.Categorical),
        fingerprint=fingerprint,
        content=_digest(keys, identities, quality, classes),
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


def _readable(status: pl.Series) -> NDArray[np.bool_]:
    """Bool [N]: whether none of the causes, which stand joined by `+`, is that there is no picture."""
    # Millions of rows have a handful of different texts.
    texts = status.cast(pl.String).unique().drop_nulls().to_list()
    without = [text for text in texts if set(text.split("+")) & set(UNREADABLE)]
    return ~status.cast(pl.String).is_in(without).fill_null(value=False).to_numpy()
