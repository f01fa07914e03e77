"""What the few names that a pickle of image pairs may hold stand for; nothing is imported for them.

A pickle names functions and asks for their calls. Each name stands for one of the functions below, which check all that
they are given, call no NumPy, and copy no bytes: an image that a file holds once stays one object, however often it is
asked for. Python 3 writes bytes as texts of one byte a character in protocols 0 to 2; they stay texts until they are
used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    Stored: TypeAlias = bytes | bytearray | str

_ITEM_TYPES = frozenset({"b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"})
_MOST_DIMENSIONS = 32


class PickleDataError(ValueError):
    """A pickle is damaged, or asks for more than data; says what is wrong, without the file's name.

    Attributes:
        position: how many bytes of the pickle were read.
    """

    position: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class ItemType:
    """The type of an array's items. Not frozen: a pickle makes it first, and tells the byte order later.

    Attributes:
        code: `b1`, or `u` or `i` with the size in bytes.
        order: `<` little-endian, `>` big-endian, `|` where it makes no difference, `=` as this machine has it.
    """

    code: str
    order: str = "="

    def __setstate__(self, state: object) -> None:
        """Take the byte order from numpy's state of a type; its other parts must say that the type is plain."""
        match state:
            case (3, "<" | ">" | "|" | "=" | b"<" | b">" | b"|" | b"=" as order, None, None, None, -1, -1, 0):
                self.order = _as_text(order)
            case _:
                raise PickleDataError(f"a state of numpy.dtype other than that of a plain {self.code} is not allowed")

    @property
    def size(self) -> int:
        """The bytes that one item takes."""
        return int(self.code[1:])

    def read(self, data: Stored) -> NDArray[np.integer]:
        """The items in some bytes, [N], truth values as uint8 as they were stored."""
        code = "u1" if self.code == "b1" else self.code
        return np.frombuffer(to_bytes(data), np.dtype(self.order + code))


@dataclass(slots=True, kw_only=True, eq=False)
class Array:
    """A pickled array. Not frozen: a pickle makes it empty first, and fills it later.

    Attributes:
        type: of its items; None before it is filled.
        shape: the product is the number of items.
        data: the items' bytes; their order, C or Fortran, is not kept.
    """

    type: ItemType | None = None
    shape: tuple[int, ...] = ()
    data: Stored = b""

    def __setstate__(self, state: object) -> None:
        """Fill it from numpy's state of an array: version 1, shape, type, whether Fortran's order, bytes."""
        if self.type is not None:
            raise PickleDataError("an array that is filled twice is not allowed")
        match state:
            case (1, tuple() as shape, ItemType() as item_type, int(), (bytes() | bytearray() | str()) as data):
                self.fill(item_type, shape, data)
            case _:
                raise PickleDataError(
                    "a state of numpy.ndarray that is damaged, or not numbers as bytes, is not allowed"
                )

    def fill(self, item_type: ItemType, shape: tuple[object, ...], data: Stored) -> None:
        """Take type, shape and bytes after checking that they belong together."""
        lengths = tuple(length for length in shape if type(length) is int and length >= 0)
        if len(lengths) != len(shape) or len(shape) > _MOST_DIMENSIONS:
            raise PickleDataError("a shape of numpy.ndarray is damaged")
        if math.prod(lengths) * item_type.size != len(data):
            raise PickleDataError(
                f"{len(data)} bytes for an array of {item_type.code} {list(lengths)} are not enough or too many"
            )
        self.type, self.shape, self.data = item_type, lengths, data


def to_bytes(data: Stored) -> bytes:
    """The bytes that a pickle holds, be it as a text of one byte a character.

    Raises:
        PickleDataError: if a character is none.
    """
    if not isinstance(data, str):
        return bytes(data)
    try:
        return data.encode("latin-1")
    except UnicodeEncodeError as error:
        raise PickleDataError(f"a text that does not hold bytes ({error.reason})") from error


def _as_text(value: object) -> str:
    """A short text, which Python 2 writes as bytes; empty for anything else."""
    if isinstance(value, bytes):
        return value[:16].decode("latin-1")
    return value[:16] if isinstance(value, str) else ""


def _keep_bytes(*arguments: object) -> Stored:
    """`bytes()`, `bytearray(bytes)`, `bytearray(text, "latin-1")` or `encode(text, "latin1")`; no size, other codec."""
    match arguments:
        case ():
            return b""
        case ((bytes() | bytearray() | str()) as data,) | (str() as data, "latin1" | "latin-1" | b"latin-1"):
            return data
    raise PickleDataError("bytes of anything but bytes, or text in latin-1, are not allowed")


def _make_item_type(*arguments: object) -> ItemType:
    """`numpy.dtype(code, False, True)`; the types of Python objects, records and texts are not among the codes."""
    code = _as_text(arguments[0]) if len(arguments) == 3 else ""
    if code not in _ITEM_TYPES or arguments[1:] != (0, 1):
        raise PickleDataError(f"numpy.dtype of {code!r} is not allowed, only whole numbers and truth values are")
    return ItemType(code=code)


def _make_array(*arguments: object) -> Array:
    """`_reconstruct(numpy.ndarray, (0,), b"b")`, an array that is filled later."""
    match arguments:
        case ("numpy.ndarray", (0,), b"b" | "b"):
            return Array()
    raise PickleDataError("_reconstruct of anything but an empty numpy.ndarray is not allowed")


def _make_array_from_buffer(*arguments: object) -> Array:
    """`_frombuffer(bytes, type, shape, order)`, how protocol 5 writes arrays."""
    match arguments:
        case ((bytes() | bytearray()) as data, ItemType() as item_type, tuple() as shape, "C" | "F"):
            array = Array()
            array.fill(item_type, shape, data)
            return array
    raise PickleDataError("_frombuffer of anything but numbers as bytes is not allowed")


def _make_number(*arguments: object) -> int:
    """`scalar(type, bytes)`, one number."""
    match arguments:
        case (ItemType() as item_type, (bytes() | str()) as data) if len(data) == item_type.size:
            return int(item_type.read(data)[0])
    raise PickleDataError("scalar of anything but one number is not allowed")


NAMES: dict[str, object] = {
    "_codecs.encode": _keep_bytes,
    "__builtin__.bytes": _keep_bytes,
    "builtins.bytes": _keep_bytes,
    "__builtin__.bytearray": _keep_bytes,
    "builtins.bytearray": _keep_bytes,
    "numpy.ndarray": "numpy.ndarray",
    "numpy.dtype": _make_item_type,
    "numpy.core.multiarray._reconstruct": _make_array,
    "numpy._core.multiarray._reconstruct": _make_array,
    "numpy.core.multiarray.scalar": _make_number,
    "numpy._core.multiarray.scalar": _make_number,
    "numpy.core.numeric._frombuffer": _make_array_from_buffer,
    "numpy._core.numeric._frombuffer": _make_array_from_buffer,
}
"""Every name that a pickle of image pairs may hold: of Python 2 and 3, and of NumPy before (`core`) and since 2.0."""
