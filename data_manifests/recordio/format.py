"""The bytes of a RecordIO file: dmlc's framing and MXNet's image header, apart from any file.

A file is a chain of parts. A part is the magic word, a word with a flag (3 bits) and a length (29 bits), the data, and
zeros up to the next multiple of four. Data in which the magic word itself stands at a multiple of four is cut there
into several parts, and the word is left out; a reader puts it back between them (dmlc-core, `recordio.h`). The data
begins with MXNet's header `IRHeader` (`<IfQQ`: flag, label, id, id2); a flag above 0 says how many float32 labels
follow it (mxnet, `recordio.py`).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from data_manifests.tables.stages import Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    Label: TypeAlias = float | np.number[Any] | Sequence[float] | NDArray[np.float32]

MAGIC = 0xCED7230A
MAGIC_BYTES = MAGIC.to_bytes(4, "little")
LENGTH_BITS = 29
MAX_BYTES = (1 << LENGTH_BITS) - 1
"""The largest record that the framing can hold, without framing."""

FRAME = struct.Struct("<II")
HEADER = struct.Struct("<IfQQ")
_SCALAR_RECORD = struct.Struct("<IIIfQQ")

UNKNOWN_IDENTITY = -1
"""Stands for a person whose number nothing in the file tells."""


class PartFlag(IntEnum):
    """What a part is of its record."""

    WHOLE = 0
    FIRST = 1
    MIDDLE = 2
    LAST = 3


class RecordError(ValueError):
    """A record, an index or their framing is damaged; names the file, the place and the remedy."""

    status: ClassVar[Status] = Status.RECORD_ERROR


class RecordMissingError(RecordError):
    """The index points outside the file, or has no such key."""

    status: ClassVar[Status] = Status.MISSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record.

    Attributes:
        flag: the number of labels behind the header; 0 for one label within it.
        label: float32 [max(flag, 1)].
        id: the writer's number of the record, by custom its key.
        id2: zero in every known file.
        payload: the encoded image; empty in header and identity records.
    """

    flag: int
    label: NDArray[np.float32]
    id: int
    id2: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordHead:
    """What stands before the payload of a record.

    Attributes:
        flag: the number of labels behind the header; 0 for one label within it.
        label: float32 [max(flag, 1)].
        id: the writer's number of the record, by custom its key.
        bare: whether no payload follows.
    """

    flag: int
    label: NDArray[np.float32]
    id: int
    bare: bool


def labels_end(data: bytes, stored: int) -> int:
    """Where the labels end and the payload starts.

    Args:
        data: at least the header of the record.
        stored: the number of bytes that the whole record holds.

    Raises:
        RecordError: if the record is too short for its header or its labels; without the file's name.
    """
    if stored < HEADER.size:
        raise RecordError(f"it holds {stored} bytes, fewer than the {HEADER.size} of an image header")
    flag = int.from_bytes(data[:4], "little")
    end = HEADER.size + 4 * flag
    if end > stored:
        raise RecordError(f"its header promises {flag} labels but only {stored - HEADER.size} bytes follow")
    return end


def unpack_label(data: bytes, flag: int) -> NDArray[np.float32]:
    """The labels of a record, float32 [max(flag, 1)], from bytes that hold them."""
    if flag:
        return np.frombuffer(data, "<f4", flag, HEADER.size).astype(np.float32)
    return np.frombuffer(data, "<f4", 1, 4).astype(np.float32)


def unpack(data: bytes) -> Record:
    """Take the joined data of a record apart.

    Raises:
        RecordError: if it is too short for its header or its labels; without the file's name.
    """
    end = labels_end(data, len(data))
    flag, _, number, number2 = HEADER.unpack_from(data)
    return Record(flag=flag, label=unpack_label(data, flag), id=number, id2=number2, payload=data[end:])


def encode(label: Label, payload: bytes, number: int, number2: int = 0) -> bytes:
    """The bytes of one record with its framing, as MXNet writes them.

    Args:
        label: one number (flag 0), or several (flag = how many).
        payload: the encoded image.
        number: the header's id, unsigned 64 bits.
        number2: the header's id2.

    Raises:
        ValueError: if there is no label, or more bytes than the framing can hold.
    """
    if len(payload) > MAX_BYTES - HEADER.size:
        raise ValueError(f"a record holds at most {MAX_BYTES} bytes with its header, not {HEADER.size + len(payload)}")
    if isinstance(label, (int, float, np.number)):
        if MAGIC_BYTES not in payload:
            size = HEADER.size + len(payload)
            start = _SCALAR_RECORD.pack(MAGIC, size, 0, label, number, number2)
            if MAGIC_BYTES not in start[8:]:
                return b"".join((start, payload, bytes(-size % 4)))
        return frame(HEADER.pack(0, label, number, number2) + payload)
    labels = np.asarray(label, "<f4").ravel()
    if not labels.size:
        raise ValueError("a record needs at least one label")
    return frame(HEADER.pack(labels.size, 0.0, number, number2) + labels.tobytes() + payload)


def frame(data: bytes) -> bytes:
    """Frame data, cut into parts wherever the magic word stands at a multiple of four (dmlc-core, `recordio.cc`).

    Raises:
        ValueError: if there is more of it than the framing can hold.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"a record holds at most {MAX_BYTES} bytes, not {len(data)}")
    pieces = []
    start = 0
    for cut in _aligned_magic(data):
        flag = PartFlag.MIDDLE if start else PartFlag.FIRST
        pieces += [FRAME.pack(MAGIC, flag << LENGTH_BITS | cut - start), data[start:cut]]
        start = cut + 4
    flag = PartFlag.LAST if start else PartFlag.WHOLE
    pieces += [FRAME.pack(MAGIC, flag << LENGTH_BITS | len(data) - start), data[start:], bytes(-len(data) % 4)]
    return b"".join(pieces)


def _aligned_magic(data: bytes) -> list[int]:
    """Where the magic word stands at a multiple of four."""
    places = []
    place = data.find(MAGIC_BYTES)
    while place >= 0:
        if place % 4 == 0:
            places.append(place)
        place = data.find(MAGIC_BYTES, place + 1)
    return places


def identity_of(label: NDArray[np.float32]) -> int:
    """The person's number in a label, its first value; -1 where that is not a whole number from 0 to 2^31 - 1."""
    value = float(label[0])
    if not math.isfinite(value) or value != int(value) or not 0 <= value < 2**31:
        return UNKNOWN_IDENTITY
    return int(value)
