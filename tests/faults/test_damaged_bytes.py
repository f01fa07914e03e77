"""Every reader of files that people bring takes bytes that are damaged by chance, and raises its own errors alone.

The short form of `python -m benchmarks.fuzz`, and what that found.
"""

from __future__ import annotations

import contextlib
import random
import re
import struct
from typing import TYPE_CHECKING

import pytest

from benchmarks.fuzz_readers import READERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRIES = 60

pytestmark = pytest.mark.filterwarnings("ignore")  # of PyTorch, on what is damaged


def damage(seeds: list[bytes], chance: random.Random) -> Iterator[bytes]:
    """Files with some bytes changed, cut out, doubled, or replaced by those of another."""
    for _ in range(TRIES):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 2, 8))):
            place = chance.randrange(len(data) + 1)
            end = min(place + chance.choice((1, 4, 8, 64)), len(data))
            other = chance.choice(seeds)
            data[place:end] = chance.choice(
                (
                    bytes(chance.randrange(256) for _ in range(end - place)),
                    b"",
                    bytes(data[place:end]) * 2,
                    b"\xff" * (end - place),
                    other[place:end],
                )
            )
        yield bytes(data)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_raises_its_own_errors_alone(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    path = tmp_path / reader.file
    seeds = reader.seeds()
    path.write_bytes(seeds[0])
    with contextlib.suppress(*reader.errors):
        reader.read(path)
    for data in damage(seeds, random.Random(name)):
        path.write_bytes(data)
        with contextlib.suppress(*reader.errors):
            reader.read(path)


def found() -> Iterator[tuple[str, bytes]]:
    """What raised a foreign error once: reader and file."""
    header = b"{'descr': '<f4', 'shape': (2,"
    yield "head_npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    (whole,) = READERS["onnx"].seeds()
    yield "onnx", whole.replace(b"\x08\x01\x12", b"\x08\x32\x12")  # elements of the type 50
    yield "onnx", whole.replace(b"x", b"\xff")
    (shard,) = READERS["shard"].seeds()
    yield "shard", shard.replace(b"cpbd", b"\x97pbd")
    old = READERS["head_pt"].seeds()[1]
    yield "head_pt", re.sub(rb"\d(?=\d{9})", b"x", old, count=1)  # the number of a storage that is not there
    (params,) = READERS["recogniser_mxnet"].seeds()
    yield "recogniser_mxnet", params.replace(struct.pack("<Q", 16), b"\xff" * 8)
    # Its Arrow schema, in base64, still has the column.
    yield "scores_parquet", READERS["scores_parquet"].seeds()[0].replace(b"quality", b"qualitx")
    yield "shard", shard.replace(b"sobel", b"sobex")
    yield "manifest", b"a = " + b"[" * 5000 + b"]" * 5000
    yield "receipts", b"[" * 100_000


@pytest.mark.parametrize(("name", "data"), tuple(found()))
def test_what_was_found_is_named(name: str, data: bytes, tmp_path: Path) -> None:
    reader = READERS[name]
    assert data not in reader.seeds()
    path = tmp_path / reader.file
    path.write_bytes(data)
    if not reader.errors:  # it warns, and goes on
        reader.read(path)
        return
    with pytest.raises(reader.errors, match=path.name):
        reader.read(path)
