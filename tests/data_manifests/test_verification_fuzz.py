"""Twelve thousand random damages: never anything but a VerificationError, soon, and in little memory.

What is still accepted must be what Python's own unpickler makes of the same bytes. This file runs itself as a script,
so that memory is measured, and limited, in a process of its own.
"""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from data_manifests.verification import VerificationError, read_bin

ROUNDS = 12_000
SLOWEST_SECONDS = 2.0
MEMORY_KIB = 32 * 1024
LIMIT_BYTES = 2 << 30
PIECES = [
    b"(",
    b".",
    b"0",
    b"R",
    b"b",
    b"\x85",
    b"q\x00",
    b"h\x00",
    b"h\x01",
    b"r\xff\xff\xff\x7f",
    b"\xff" * 8,
    b"I9\n",
]
IMAGES = [b"\xff\xd8 one", b"\x89PNG\n", b"three", b"\x00\x80"]


def make_files() -> list[bytes]:
    """Whole files of every form."""
    flags = [True, False]
    arrays = [np.frombuffer(image, np.uint8) for image in IMAGES]
    contents = [
        (IMAGES, flags),
        ([image.decode("latin-1") for image in IMAGES], np.array(flags)),
        ([bytearray(image) for image in IMAGES], [np.bool_(flag) for flag in flags]),
        (arrays, np.array(flags, ">i4")),
    ]
    files = [pickle.dumps(content, protocol) for content in contents for protocol in range(6)]
    python2 = b"".join(b"U" + bytes([len(image)]) + image + b"q" + bytes([k]) for k, image in enumerate(IMAGES))
    return [*files, b"\x80\x02](" + python2 + b"e](\x88\x89e\x86."]


def damage_pickle(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three of: change a byte, flip a bit, cut the end, leave a stretch out, repeat one, put steps in."""
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if not damaged:
            break
        place = int(rng.integers(len(damaged)))
        stretch = slice(place, place + int(rng.integers(1, 16)))
        match int(rng.integers(6)):
            case 0:
                damaged[place] = int(rng.integers(256))
            case 1:
                damaged[place] ^= 1 << int(rng.integers(8))
            case 2:
                del damaged[place if rng.integers(4) == 0 else -1 :]
            case 3:
                del damaged[stretch]
            case 4:
                damaged[place:place] = damaged[stretch]
            case 5:
                damaged[place:place] = PIECES[int(rng.integers(len(PIECES)))]
    return bytes(damaged)


def read_by_python(data: bytes) -> tuple[list[bytes], list[bool]] | None:
    """The same by Python's unpickler, None where it gives up, mostly for want of memory.

    To be called only for files that were accepted, which name nothing but NumPy's parts.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about its own old form
        try:
            images, flags = pickle.loads(data, encoding="latin-1")
        except (MemoryError, TypeError, ValueError):
            return None
    images = [item.encode("latin-1") if isinstance(item, str) else bytes(item) for item in images]
    return images, [bool(flag) for flag in flags]


def fuzz(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    warnings.simplefilter("error")
    rng = np.random.default_rng(20262)
    path = folder / "pairs.bin"
    files = make_files()
    slowest, largest = 0.0, 0
    accepted, compared, refused_whole = 0, 0, 0
    for turn in range(ROUNDS):
        data = damage_pickle(files[turn % len(files)], rng) if turn >= len(files) else files[turn]
        path.write_bytes(data)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        try:
            images, flags = read_bin(path)
        except VerificationError:
            refused_whole += turn < len(files)
            continue
        finally:
            slowest = max(slowest, time.perf_counter() - started)
            largest = max(largest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        accepted += 1
        assert turn >= len(files) or (images, flags.tolist()) == (IMAGES, [True, False])
        reference = read_by_python(data)
        compared += reference is not None
        assert reference in (None, (images, flags.tolist())), data
    assert refused_whole == 0
    assert slowest < SLOWEST_SECONDS, slowest
    assert largest < MEMORY_KIB, largest
    assert 200 < compared <= accepted < ROUNDS // 2, (compared, accepted)
    assert compared > 0.8 * accepted, (compared, accepted)


def test_twelve_thousand_random_damages_give_verification_errors_only() -> None:
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


if __name__ == "__main__":
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=in_memory if os.access(in_memory, os.W_OK) else None) as place:
        fuzz(Path(place))
