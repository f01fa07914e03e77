"""Parquet files that are whole or absent; the same rows give the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.storage.atomic import sha256_of, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

ROW_GROUP = 65_536
"""Rows of a row group: what is read at the least."""


def write_table(path: Path, table: pa.Table) -> str:
    """Write a Parquet file atomically, and read its footer back before it is shown.

    Returns:
        The SHA-256 of its content, in hexadecimal.

    Raises:
        DiskFullError: if no space is left; nothing stays behind.
    """
    hashes = []

    def check(written: Path) -> None:
        hashes.append(sha256_of(written))
        rows = pq.read_metadata(written).num_rows
        if rows != table.num_rows:
            raise OSError(f"{path.name}: {table.num_rows} rows were written but {rows} came back")

    # Measures hardly repeat: a dictionary of them costs more than half of the time of writing, and saves nothing.
    # Split into streams of like bytes they compress by a sixth more (docs/scale.md).
    text = [field.name for field in table.schema if _is_text(field.type)]
    floats = [field.name for field in table.schema if pa.types.is_float32(field.type)]
    write_atomically(
        path,
        lambda file: pq.write_table(
            table, file, compression="zstd", row_group_size=ROW_GROUP, store_schema=True, use_dictionary=text,
            use_byte_stream_split=floats,
        ),
        check=check,
    )  # fmt: skip
    return hashes[0]


def _is_text(kind: pa.DataType) -> bool:
    """Whether values of a column repeat."""
    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))
