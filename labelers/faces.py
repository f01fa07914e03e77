"""Decoded faces: the one place where decoding, size and colour order are decided."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg

from data_manifests.tables.stages import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SIDE = 112
"""Height and width of an aligned face in pixels (the ArcFace template)."""


MAX_PIXELS = 1 << 24
"""An image of more pixels (50 MB decoded) is no face, and is not decoded: a kilobyte can say that it has billions."""

_PNG = b"\x89PNG\r\n\x1a\n"


class DecodeError(ValueError):
    """The bytes are not an image that decodes."""


class TooLargeError(DecodeError):
    """The image has far more pixels than a face."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceBatch:
    """N aligned faces.

    Attributes:
        keys: int32 [N].
        images: uint8 [N, 112, 112, 3], RGB. A face that could not be read is black.
        identities: int32 [N].
    """

    keys: NDArray[np.int32]
    images: NDArray[np.uint8]
    identities: NDArray[np.int32]

    def __post_init__(self) -> None:
        count = len(self.keys)
        if self.images.shape != (count, SIDE, SIDE, 3) or self.images.dtype != np.uint8:
            found = f"{self.images.dtype} {list(self.images.shape)}"
            raise ValueError(f"faces must be uint8 [{count}, {SIDE}, {SIDE}, 3] RGB, not {found}")
        if len(self.identities) != count:
            raise ValueError(f"{count} keys but {len(self.identities)} identities")

    def __len__(self) -> int:
        return len(self.keys)


def decode(encoded: bytes) -> NDArray[np.uint8]:
    """Decode an encoded image to RGB.

    Args:
        encoded: JPEG, PNG, BMP or WebP bytes. EXIF orientation is not applied: aligned crops carry none.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        TooLargeError: if the image says that it has more than `MAX_PIXELS`; it is not decoded.
        DecodeError: if the bytes do not decode to a whole image.
    """
    width, height = read_size(encoded)
    if width * height > MAX_PIXELS:
        raise TooLargeError(f"{width} x {height} pixels are not those of a face: at most {MAX_PIXELS:,} are decoded")
    if simplejpeg.is_jpeg(encoded):
        try:
            rgb: NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded, "RGB", strict=True)
        except ValueError as error:
            raise DecodeError(str(error)) from error
        return rgb
    return _decode_other(encoded)


def read_size(encoded: bytes) -> tuple[int, int]:
    """Width and height by the header of a JPEG or PNG; zeros for formats that cannot hold as much in as few bytes.

    Raises:
        DecodeError: if a JPEG has no header that is whole.
    """
    if simplejpeg.is_jpeg(encoded):
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(encoded)
        except ValueError as error:
            raise DecodeError(str(error)) from error
        return int(width), int(height)
    if encoded.startswith(_PNG) and len(encoded) >= 24:
        width, height = struct.unpack(">II", encoded[16:24])
        return width, height
    return 0, 0


def _decode_other(encoded: bytes) -> NDArray[np.uint8]:
    """Decode PNG, BMP, WebP and the like through OpenCV."""
    if not encoded:
        raise DecodeError("no bytes")
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as error:
        raise DecodeError(str(error)) from error
    if image is None:
        raise DecodeError("not an image format that OpenCV reads")
    return np.asarray(image, dtype=np.uint8)


def grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """BT.601 luma as OpenCV and Pillow compute it, uint8 [H, W] from uint8 [H, W, 3] RGB."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def decode_batch(
    keys: NDArray[np.int32], identities: NDArray[np.int32], encoded: Sequence[bytes | Status]
) -> tuple[FaceBatch, list[Status]]:
    """Decode N stored images; what cannot be used becomes a black face with a status, and every row stays.

    Args:
        keys: int32 [N].
        identities: int32 [N].
        encoded: for each image its bytes, or the status by which reading it failed.

    Returns:
        The faces, and one status an image.
    """
    images = np.zeros((len(encoded), SIDE, SIDE, 3), np.uint8)
    status = []
    for row, stored in enumerate(encoded):
        status.append(stored if isinstance(stored, Status) else _decode_into(images[row], stored))
    return FaceBatch(keys=keys, images=images, identities=identities), status


def _decode_into(target: NDArray[np.uint8], stored: bytes) -> Status:
    """Decode one image into its row of the batch and say how that went."""
    try:
        image = decode(stored)
    except TooLargeError:
        return Status.WRONG_SIZE
    except DecodeError:
        return Status.DECODE_ERROR
    if image.shape != target.shape:
        return Status.WRONG_SIZE
    target[:] = image
    return Status.OK
