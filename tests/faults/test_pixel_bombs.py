"""Images that say that they have billions of pixels become rows with a status, without the memory that they ask for."""

from __future__ import annotations

import struct
import subprocess
import sys
import textwrap
import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np

from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 1 << 30


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def huge_png(side: int, rows: int) -> bytes:
    """A black picture, of which only the first rows are there."""
    packer = zlib.compressobj(9)
    content = b"".join(packer.compress(bytes(1 + 3 * side)) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def lying_jpeg() -> bytes:
    """A face whose header says 65,500 x 65,500."""
    content = bytearray(cv2.imencode(".jpg", np.zeros((112, 112, 3), np.uint8))[1].tobytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(content)


def test_a_pixel_bomb_is_a_row_and_takes_no_memory(tmp_path: Path) -> None:
    """In a process that may take 1 GB, beside a whole face."""
    images = [huge_png(50_000, 4), huge_png(30_000, 4), lying_jpeg()]
    images.append(cv2.imencode(".png", np.full((112, 112, 3), 9, np.uint8))[1].tobytes())
    for number, content in enumerate(images):
        (tmp_path / f"{number}.img").write_bytes(content)
    program = f"""
        import pathlib, resource, sys
        import numpy as np
        from labelers.faces import DecodeError, decode_batch
        from labelers.photos import decode_photo
        resource.setrlimit(resource.RLIMIT_DATA, ({MOST_BYTES}, {MOST_BYTES}))
        encoded = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[1]).iterdir())]
        faces, status = decode_batch(np.arange(4, dtype=np.int32), np.zeros(4, np.int32), encoded)
        print(*status, faces.images[3].min())
        for photo in encoded[:3]:
            try:
                decode_photo(photo)
            except DecodeError as error:
                print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "wrong_size wrong_size wrong_size ok 9"
    assert len(said) == 4
    assert all("pixels: at most" in line for line in said[1:])
