"""Decoding of photos as cameras and people leave them: turned upright, any depth, any size."""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg

from labelers.faces import DecodeError, read_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MAX_PIXELS = 1 << 28
"""A larger photo (over 268 million pixels, 805 MB decoded) is refused before it fills the memory."""

MAX_SIDE = (1 << 15) - 2
"""OpenCV's warpAffine takes no picture that is wider or higher."""

_HARMLESS = ("extraneous bytes before marker", "Invalid SOS parameters")
"""What libjpeg says of some cameras' files although every pixel is there."""

_EXIF = b"Exif\x00\x00"
_ORIENTATION = 0x0112
_SHORT = 3
_APP1 = 0xE1
_END_OF_HEADER = (0xDA, 0xD9)
"""Start of the scan, end of the image."""


def decode_photo(encoded: bytes) -> NDArray[np.uint8]:
    """Decode a photo and turn it upright.

    Grey becomes three equal channels, 16 bits a channel become 8, transparency is left out of account. The pixels are
    those of OpenCV's `imread`; a JPEG with damaged data is refused, which OpenCV fills with grey.

    Args:
        encoded: JPEG, PNG, WebP, BMP or another format that OpenCV reads.

    Returns:
        uint8 [H, W, 3], RGB; EXIF's orientation is applied.

    Raises:
        DecodeError: if the bytes do not decode to a whole picture within `MAX_PIXELS` and `MAX_SIDE`.
    """
    _require_size(*read_size(encoded))
    if simplejpeg.is_jpeg(encoded):
        return _turn(_decode_jpeg(encoded), read_orientation(encoded))
    if not encoded:
        raise DecodeError("no bytes")
    try:
        with _no_stderr():
            image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise DecodeError(str(error)) from error
    if image is None:
        raise DecodeError("not a whole picture in a format that OpenCV reads")
    _require_size(image.shape[1], image.shape[0])
    return np.asarray(image, dtype=np.uint8)


def read_orientation(jpeg: bytes) -> int:
    """How a JPEG is to be turned: EXIF's orientation, 1 to 8; 1, upright, where it says nothing sensible."""
    for kind, content in _segments(jpeg):
        if kind == _APP1 and content.startswith(_EXIF):
            return _read_tag(content[len(_EXIF) :])
    return 1


def _require_size(width: int, height: int) -> None:
    """Refuse what would fill the memory, or what cannot be warped."""
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise DecodeError(f"{width} x {height} pixels: at most {MAX_PIXELS:,}, and {MAX_SIDE:,} on a side, are taken")


def _decode_jpeg(encoded: bytes) -> NDArray[np.uint8]:
    """The pixels as they are stored."""
    try:
        try:
            rgb: NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded, "RGB", strict=True)
        except ValueError as error:
            if not any(text in str(error) for text in _HARMLESS):
                raise
            rgb = simplejpeg.decode_jpeg(encoded, "RGB", strict=False)
    except ValueError as error:
        raise DecodeError(str(error)) from error
    return rgb


def _segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker segments before the first scan: kind and content."""
    place = 2
    while place + 4 <= len(jpeg) and jpeg[place] == 0xFF:
        kind = jpeg[place + 1]
        if kind == 0xFF:  # a fill byte
            place += 1
            continue
        length = int.from_bytes(jpeg[place + 2 : place + 4], "big")
        if kind in _END_OF_HEADER or length < 2:
            return
        yield kind, jpeg[place + 4 : place + 2 + length]
        place += 2 + length


def _read_tag(tiff: bytes) -> int:
    """The orientation in EXIF's first directory (EXIF 2.3, section 4.6.2: little- or big-endian TIFF)."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack(f"{order}I", tiff[4:8])
    (count,) = struct.unpack(f"{order}H", tiff[start : start + 2].ljust(2, b"\0"))
    for place in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack(f"{order}HHIH", tiff[place : place + 10])
        if tag == _ORIENTATION:
            return value if kind == _SHORT and 1 <= value <= 8 else 1
    return 1


def _turn(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn stored pixels upright (EXIF 2.3, tag 0x0112).

    5 to 8 are stored with rows and columns exchanged; then the first row may be at the bottom, the first column on the
    right.
    """
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Hold back what libpng writes to stderr about each odd colour profile: the status of a row says what matters."""
    screen = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(screen, 2)
        os.close(nothing)
        os.close(screen)
