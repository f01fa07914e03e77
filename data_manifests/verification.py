"""Reads InsightFace's verification files (`lfw.bin` and the like): a pickle of 2P encoded images and P flags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.storage.pickled_names import Array, PickleDataError, to_bytes
from data_manifests.storage.pickles import read_pickle

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BYTES = 1 << 32
"""No verification file is larger: at 10 kB an image, it would hold 200,000 pairs."""

_REPACK = "pack the pairs again as pickle.dump((list of 2P image files as bytes, list of P bool), file)"


class VerificationError(ValueError):
    """A verification file is damaged, holds something else, or asks for more than data; names file and remedy."""


def read_bin(path: Path | str) -> tuple[list[bytes], NDArray[np.bool_]]:
    """Read a verification file, without running anything that it may hold.

    The file is a pickle of Python 2 or 3, protocols 0 to 5. An image may be stored as bytes, as a text of one byte a
    character, as a bytearray, or as a uint8 array of the encoded bytes; a flag as truth value or as 0 or 1, of Python
    or of NumPy, and all flags also as one array.

    Args:
        path: of the `.bin` file.

    Returns:
        The encoded images, 2P of them (pair p is images 2p and 2p + 1), which are not decoded here; and whether both
        images of a pair show the same person, bool [P].

    Raises:
        VerificationError: if the file cannot be read, is damaged, names anything but the few functions that these
            forms need (which stand for functions of our own), or does not hold 2P images for P flags.
    """
    path = Path(path)
    try:
        value = read_pickle(_read_file(path))
    except PickleDataError as error:
        raise VerificationError(
            f"{error} in {path}, up to byte {error.position}: nothing of it was run; get the file again from who "
            f"published it, or {_REPACK}"
        ) from error
    match value:
        case [list() | tuple() as images, list() | tuple() | Array() as flags]:
            return _check_counts(_convert_images(images, path), _convert_flags(flags, path), path)
    raise _error(path, "does not hold two lists, of images and of flags")


def _read_file(path: Path) -> bytes:
    try:
        # a pipe would keep the reader waiting
        if path.exists() and not path.is_file():
            raise VerificationError(f"{path} is not a file: name the .bin file itself")
        if path.stat().st_size > MAX_BYTES:
            raise _error(path, f"holds {path.stat().st_size} bytes, which no verification file does")
        return path.read_bytes()
    except OSError as error:
        raise VerificationError(
            f"{path} cannot be read ({error.strerror}): check the path, or get the file from who published it"
        ) from error


def _error(path: Path, problem: str) -> VerificationError:
    return VerificationError(f"{path} {problem}: check that it is a verification file, or {_REPACK}")


def _convert_images(items: list[object] | tuple[object, ...], path: Path) -> list[bytes]:
    """The images as bytes; bytes that a file holds once and refers to often are converted once."""
    converted: dict[int, bytes] = {}
    images = []
    for number, item in enumerate(items):
        stored = _find_bytes(item, f"image {number}", path)
        if id(stored) not in converted:
            try:
                converted[id(stored)] = to_bytes(stored)
            except PickleDataError as error:
                raise _error(path, f"holds as image {number} {error}") from error
        images.append(converted[id(stored)])
    return images


def _find_bytes(item: object, place: str, path: Path) -> bytes | bytearray | str:
    """The bytes of one image, as the file holds them."""
    match item:
        case bytes() | bytearray() | str():
            return item
        case Array(type=item_type, shape=shape, data=data) if item_type is not None and item_type.code == "u1":
            # old versions of OpenCV encode images as [N, 1]
            if shape and sum(length != 1 for length in shape) <= 1:
                return data
            raise _error(path, f"holds as {place} an array {list(shape)}, which is a picture and not encoded bytes [N]")
        case Array(type=item_type):
            kind = "nothing" if item_type is None else item_type.code
            raise _error(path, f"holds as {place} an array of {kind}, not of uint8 as encoded bytes are")
    raise _error(path, f"holds as {place} {_name_type(item)} instead of encoded bytes")


def _convert_flags(flags: list[object] | tuple[object, ...] | Array, path: Path) -> NDArray[np.bool_]:
    """The flags as bool [P]."""
    if isinstance(flags, Array):
        return _convert_flag_array(flags, path)
    for number, flag in enumerate(flags):
        if not isinstance(flag, int):
            raise _error(path, f"holds as flag {number} {_name_type(flag)} instead of True or False")
        if flag not in (0, 1):
            raise _error(path, f"holds as flag {number} the number {flag}, not 0 or 1")
    return np.array(flags, dtype=np.bool_)


def _convert_flag_array(flags: Array, path: Path) -> NDArray[np.bool_]:
    """An array of flags as bool [P]."""
    if flags.type is None or len(flags.shape) != 1:
        raise _error(path, f"holds an array {list(flags.shape)} of flags, not [P]")
    numbers = flags.type.read(flags.data)  # [P]
    wrong = np.flatnonzero((numbers != 0) & (numbers != 1))
    if len(wrong):
        raise _error(path, f"holds as flag {wrong[0]} the number {numbers[wrong[0]]}, not 0 or 1")
    return numbers.astype(np.bool_)


def _check_counts(images: list[bytes], flags: NDArray[np.bool_], path: Path) -> tuple[list[bytes], NDArray[np.bool_]]:
    """Refuse a file whose two lists do not belong together."""
    if not len(flags) or len(images) != 2 * len(flags):
        raise _error(path, f"holds {len(images)} images and {len(flags)} flags, not two images for every flag")
    return images, flags


def _name_type(value: object) -> str:
    """What a value is, without its content, which may be long or hold itself."""
    return "nothing" if value is None else f"a value of type {type(value).__name__}"
