"""What the footer of a shard tells, and whether it is believed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.storage.shard_file import READ_ERRORS, DamagedShardError, metadata_of, open_shard
from data_manifests.tables.scores import STAGE_TABLES
from data_manifests.tables.stages import EMBEDDING

if TYPE_CHECKING:
    from pathlib import Path

Stamp = tuple[int, int, int]
"""Inode, size and time of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """What a shard tells of itself: rows, size, and of how many it is one; or why it is not believed."""

    why: str = ""
    rows: int = 0
    bytes: int = 0
    shards: int = 0


def stamp_of(path: Path) -> Stamp:
    """What tells a file from another one in its place; all 0 where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=4096)
def read_footer(path: Path, stage: str, fingerprint: str, stamp: Stamp) -> Footer:
    """The footer of a file that was seen with an inode, a size and a time."""
    try:
        with open_shard(path, stage, fingerprint) as file:
            if why := _wrong_schema(stage, file.schema_arrow):
                return Footer(why=why)
            shards = int(metadata_of(file)["shards"])
            return Footer(rows=file.metadata.num_rows, bytes=stamp[1], shards=shards)
    except DamagedShardError as error:
        return Footer(why=error.why)


def _wrong_schema(stage: str, found: pa.Schema) -> str:
    """How columns or types differ from those of the stage's table; empty where they do not."""
    table = STAGE_TABLES.get(stage)
    if table is None:
        return ""
    promised = table.written(found.names)
    if found.names != [column.name for column in promised]:
        return f"its columns are {', '.join(found.names)}"
    for column in promised:
        kind = found.field(column.name).type
        fits = pa.types.is_fixed_size_binary(kind) if column.type == EMBEDDING else kind == column.type
        if not fits:
            return f"its column {column.name} is {kind} instead of {column.type}"
    return ""


def count_rows(path: Path) -> int | None:
    """The rows of a Parquet file, from its footer; None where it is no whole one."""
    try:
        rows: int = pq.read_metadata(path).num_rows
    except READ_ERRORS:
        return None
    return rows
