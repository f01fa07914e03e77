"""Ten thousand random damages: never anything but a RecordError, soon, and in little memory.

This file runs itself as a script, so that memory is measured in a process of its own.
"""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.recordio.format import MAGIC_BYTES
from data_manifests.recordio.record_file import RecordError, RecordFile, RecordReader
from data_manifests.recordio.writer import write_ms1mv2

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 10_000
SLOWEST_SECONDS = 5.0
MEMORY_KIB = 64 * 1024


def damage_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three of: flip a byte, wipe a stretch, cut the end, leave a stretch out, put another in."""
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if not damaged:
            break
        place = int(rng.integers(len(damaged)))
        stretch = slice(place, place + int(rng.integers(1, 24)))
        match int(rng.integers(6)):
            case 0 | 1:
                damaged[place] = int(rng.integers(256))
            case 2:
                damaged[stretch] = bytes(len(damaged[stretch]))
            case 3:
                del damaged[place:]
            case 4:
                del damaged[stretch]
            case 5:
                damaged[place:place] = rng.choice(
                    [MAGIC_BYTES, b"\xff\xff\xff\xff", b"\n", b"\t", b"9" * 20, data[:40]]
                )
    return bytes(damaged)


def use_everything(rec: Path) -> int:
    """Ask a file for all that it can tell; gives how many RecordErrors came."""
    damaged: list[int] = []
    with RecordFile(rec) as records:
        errors = fails(lambda: RecordReader(rec).at(40))
        if fails(lambda: len(records)):
            return errors + 1
        index = records.index()
        read = sum(1 for _ in records.images(damaged=lambda key, _: damaged.append(key)))
        assert read + len(damaged) == len(records) == len(index)
        errors += fails(lambda: records.identities)
        errors += sum(fails(lambda key=key: records.read(key)) for key in (0, 1, 9, 14))
    return errors + len(damaged)


def fails(question: Callable[[], object]) -> bool:
    """Whether a question ends in a RecordError; any other exception passes through."""
    try:
        question()
    except RecordError:
        return True
    return False


def fuzz(folder: Path) -> None:
    logging.disable()
    rng = np.random.default_rng(20261)
    write_ms1mv2(folder, [(k // 3, b"payload %d" % k + MAGIC_BYTES * (k % 3)) for k in range(10)])
    rec, idx = folder / "train.rec", folder / "train.idx"
    whole_rec, whole_idx = rec.read_bytes(), idx.read_bytes()
    assert use_everything(rec) == 0
    baseline = 0
    slowest = 0.0
    failures = 0
    for turn in range(ROUNDS):
        mode = turn % 4
        rec.write_bytes(damage_bytes(whole_rec, rng) if mode != 1 else whole_rec)
        if mode == 2:
            idx.unlink(missing_ok=True)
        else:
            idx.write_bytes(damage_bytes(whole_idx, rng) if mode in (1, 3) else whole_idx)
        started = time.perf_counter()
        failures += use_everything(rec) > 0
        slowest = max(slowest, time.perf_counter() - started)
        if turn == 200:
            baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - baseline
    assert slowest < SLOWEST_SECONDS, slowest
    assert growth < MEMORY_KIB, growth
    assert failures > ROUNDS // 2, failures


def test_ten_thousand_random_damages_give_record_errors_only() -> None:
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


if __name__ == "__main__":
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=in_memory if os.access(in_memory, os.W_OK) else None) as place:
        fuzz(Path(place))
