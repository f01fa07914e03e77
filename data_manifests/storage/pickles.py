"""Reads a pickle of image pairs: plain values only, and no function but the few of `pickled_names`.

A pickle is a list of steps that Python's unpickler carries out. Closing its `find_class` keeps foreign code out, but
neither a file of 7 bytes that makes it reserve gigabytes (a memo number is the size of a table, and a length is
reserved before it is read), nor deep tuples as a dictionary's key, which overflow its stack. So all steps are checked
first: only opcodes of plain values, arguments within the file, no memo number above the number of steps so far.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Final

from data_manifests.storage.pickled_names import NAMES, PickleDataError

MOST_STEPS: Final = 4_000_000
"""No pickle has more steps: enough for 60,000 pairs of images stored as arrays, or a million stored as bytes."""

_LONGEST_NAME_SHOWN: Final = 100
_OPCODES: Final = {info.code.encode("latin-1"): info for info in pickletools.opcodes}
_ALLOWED: Final = frozenset({
    "PROTO", "FRAME", "STOP", "NONE", "NEWTRUE", "NEWFALSE", "INT", "LONG", "LONG1", "BININT", "BININT1", "BININT2",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "MARK", "TUPLE", "EMPTY_TUPLE", "TUPLE1", "TUPLE2",
    "TUPLE3", "LIST", "EMPTY_LIST", "APPEND", "APPENDS", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    "GET", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
})  # fmt: skip
"""Opcodes as `pickletools` names and describes them; none makes a dictionary, a set or an object of another class."""

_LENGTH_BYTES: Final = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_NUMBERS: Final = ("INT", "LONG", "LONG1", "PUT", "GET")
_LONGEST_NUMBER: Final = 22
"""Bytes of a number of 64 bits, written in decimal digits with its sign, an L and the line's end."""

_DAMAGE: Final = (pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError)
"""What Python's unpickler raises for damaged pickles."""


def read_pickle(data: bytes) -> object:
    """The value that a pickle of protocol 0 to 5 holds, of Python 2 or 3.

    Args:
        data: the whole pickle.

    Returns:
        None, bool, int, str, bytes (of Python 2's texts too), bytearray, what `NAMES` gives, or lists and tuples of
        such. What the pickle refers to twice is one object, so a list may hold itself.

    Raises:
        PickleDataError: if the pickle is damaged, or asks for anything else.
    """
    stream = io.BytesIO(data)
    try:
        _check_steps(stream)
        stream.seek(0)
        return _PlainUnpickler(stream, encoding="bytes").load()
    except PickleDataError as error:
        error.position = stream.tell()
        raise
    except _DAMAGE as error:
        damage = PickleDataError(f"a damaged pickle ({error})")
        damage.position = stream.tell()
        raise damage from error


class _PlainUnpickler(pickle.Unpickler):
    """Python's unpickler, which finds our own functions by the names that a pickle may hold, and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        text = f"{module}.{name}"
        if text not in NAMES:
            harmless = len(text) <= _LONGEST_NAME_SHOWN and text.isprintable()
            raise PickleDataError(f"{text if harmless else ascii(text[:_LONGEST_NAME_SHOWN])} is not allowed")
        return NAMES[text]


def _check_steps(stream: io.BytesIO) -> None:
    """Refuse what the unpickler must not see; every step is read as it will read it."""
    frame_end = 0
    for number in range(MOST_STEPS):
        start = stream.tell()
        name, argument = take_step(stream, _ALLOWED)
        if name == "FRAME":
            if start < frame_end:
                raise PickleDataError("a frame within a frame is not allowed")
            frame_end = stream.tell() + int.from_bytes(argument, "little")
        elif start < frame_end < stream.tell():  # the unpickler would leave the rest of the frame out
            raise PickleDataError("a frame that ends within a step is not allowed")
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo = int(argument) if name == "PUT" else int.from_bytes(argument, "little")
            if memo > number:
                raise PickleDataError(f"the memo number {memo} in step {number} is not allowed")
        elif name == "STOP":
            if frame_end > stream.tell():
                raise PickleDataError("the end of a frame is missing")
            if left := len(stream.read()):
                raise PickleDataError(f"{left} bytes left behind the end are not allowed")
            return
    raise PickleDataError(f"more than {MOST_STEPS} steps are not allowed")


def take_step(stream: io.BytesIO, allowed: frozenset[str]) -> tuple[str, bytes]:
    """The next opcode's name, as `pickletools` calls it, and the bytes of its argument.

    Raises:
        PickleDataError: if the opcode is not among those allowed, or the pickle ends within it.
    """
    code = stream.read(1)
    if not code:
        raise PickleDataError("the end is missing")
    opcode = _OPCODES.get(code)
    if opcode is None or opcode.name not in allowed:
        raise PickleDataError(f"the opcode {code.hex() if opcode is None else opcode.name} is not allowed")
    size = opcode.arg.n if opcode.arg else 0
    if size == pickletools.UP_TO_NEWLINE:
        lines = [stream.readline() for _ in range(2 if opcode.name == "GLOBAL" else 1)]
        if not lines[-1].endswith(b"\n"):
            raise PickleDataError("the end of a line is missing")
        argument = b"".join(lines)
    else:
        if size < 0:
            size = int.from_bytes(_take(stream, _LENGTH_BYTES[size]), "little")
        argument = _take(stream, size)
    if opcode.name in _NUMBERS and len(argument) > _LONGEST_NUMBER:
        raise PickleDataError(f"a number of {len(argument)} bytes is not allowed")
    return opcode.name, argument


def _take(stream: io.BytesIO, size: int) -> bytes:
    taken = stream.read(size)
    if len(taken) != size:
        raise PickleDataError("the end is missing")
    return taken
