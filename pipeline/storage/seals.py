"""What every shard was when it was written: a line of size and hash, beside the receipts of its stage."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from data_manifests.storage.atomic import explain_full_disk
from data_manifests.storage.json_files import parse_json

if TYPE_CHECKING:
    from pathlib import Path

SEALS = "shards.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What one shard was when it was written.

    Attributes:
        shard: its number.
        rows: that it has.
        bytes: of the file.
        sha256: of the file, in hexadecimal.
    """

    shard: int
    rows: int
    bytes: int
    sha256: str


def append_seal(path: Path, seal: Seal) -> None:
    """Append a line to the seals of a stage; of two lines of one shard the later counts.

    Raises:
        DiskFullError: if no space is left.
    """
    with explain_full_disk(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            # The line before may be torn.
            os.write(handle, f"\n{json.dumps(asdict(seal))}\n".encode())
            os.fsync(handle)
        finally:
            os.close(handle)


def read_seals(path: Path) -> dict[int, Seal]:
    """The seals of a stage by shard; lines that are damaged count as none."""
    try:
        stat = path.stat()
        return _read(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))
    except OSError:
        return {}


@lru_cache(maxsize=64)
def _read(path: Path, stamp: tuple[int, int, int]) -> dict[int, Seal]:  # noqa: ARG001 - a changed file is read anew
    found = {}
    for line in path.read_bytes().splitlines():
        try:
            seal = Seal(**parse_json(line))
        except (ValueError, TypeError):
            continue
        if isinstance(seal.shard, int) and isinstance(seal.bytes, int):
            found[seal.shard] = seal
    return found
