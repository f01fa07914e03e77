"""Shards as they are read back: nothing is believed before the file has said what it is."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

REMEDY = "run the task that makes it again with --recheck, which sets the file aside and makes it anew"

READ_ERRORS = (OSError, pa.ArrowException, ValueError, KeyError, OverflowError, MemoryError)
"""What PyArrow raises of a damaged Parquet file: ValueError of names that are no UTF-8, KeyError of a column that its
Arrow schema has and the file lacks, the last two of false sizes."""


class DamagedShardError(ValueError):
    """A shard is not what it should be; names the file, what is wrong, and the remedy.

    Attributes:
        path: the file.
        why: what is wrong with it.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{self.path} is damaged ({self.why}): {REMEDY}"


def open_shard(path: Path, stage: str, fingerprint: str = "") -> pq.ParquetFile:
    """Open a shard, at the cost of its footer, after comparing what it says of itself.

    Args:
        path: the file.
        stage: that it must be of; empty for any.
        fingerprint: that it must have; empty for any.

    Raises:
        DamagedShardError: if it is no whole Parquet file, or another one.
    """
    file = _open(path)
    says = metadata_of(file)
    for name, wanted in (("stage", stage), ("fingerprint", fingerprint)):
        if wanted and says.get(name) != wanted:
            raise DamagedShardError(path, f"its {name} is {says.get(name, 'not told')} instead of {wanted}")
    if not says.get("shards", "").isdecimal():
        raise DamagedShardError(path, "it does not say how many shards there are")
    return file


@contextlib.contextmanager
def name_damage(*folders: Path) -> Iterator[None]:
    """Within, where Polars cannot read the shards of these folders, the error names the one that is damaged.

    Raises:
        DamagedShardError: instead of Polars' own error, which names no file; that stays where none is damaged.
    """
    import polars as pl  # noqa: PLC0415 - Polars is loaded by who needs it

    try:
        yield
    except pl.exceptions.PolarsError:
        for path in sorted(path for folder in folders for path in folder.glob("*.parquet")):
            read_columns(_open(path), path)
        raise


def _open(path: Path) -> pq.ParquetFile:
    """Open a Parquet file."""
    try:
        return pq.ParquetFile(path, memory_map=True)
    except FileNotFoundError:
        raise DamagedShardError(path, "it is missing") from None
    except READ_ERRORS as error:
        why = "a folder in its place" if path.is_dir() else "no whole Parquet file"
        raise DamagedShardError(path, why) from error


def metadata_of(file: pq.ParquetFile) -> dict[str, str]:
    """The key-value metadata of a Parquet file as text."""
    found = file.metadata.metadata or {}
    return {k.decode(errors="replace"): v.decode(errors="replace") for k, v in found.items() if k != b"ARROW:schema"}


def read_columns(file: pq.ParquetFile, path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read columns of an open shard, all without a choice, in the order that is asked for.

    Raises:
        DamagedShardError: if it lacks one, or its pages are damaged.
    """
    lacking = sorted(set(columns or ()) - set(file.schema_arrow.names))
    if lacking:
        raise DamagedShardError(path, f"it has no column {', '.join(lacking)}")
    try:
        table = file.read(None if columns is None else list(columns), use_threads=False)
        return table if columns is None else table.select(columns)
    except READ_ERRORS as error:
        raise DamagedShardError(path, "its pages cannot be read") from error
