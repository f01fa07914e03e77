"""Reads a pickle as data: nothing in it is imported, called or run.

Python's own unpickler is not used, even with its `find_class` locked: a file of 7 bytes makes it fill gigabytes (it
takes the number of a memo for the size of a table), and nested tuples as a dictionary's key overflow its stack, which
ends the process. Here a pickle is a list of steps on plain values, each checked and bounded. They give lists, tuples,
whole numbers, truth values, texts, bytes, and what the calls of `pickled_names` make, in protocols 0 to 5 of Python 2
and 3. Whatever else a pickle asks for is refused by its name.
"""

from __future__ import annotations

import pickletools
import re
from typing import TYPE_CHECKING, Final

from data_manifests.storage.pickle_machine import PickleMachine, parse_number
from data_manifests.storage.pickled_names import NAMES, Array, ItemType, Name, PickleDataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Step: TypeAlias = Callable[[PickleMachine], None]

MOST_STEPS: Final = 4_000_000
"""No pickle has more steps: enough for 60,000 pairs of images stored as arrays, or a million stored as bytes."""

_STOP: Final = b"."
_HIGHEST_PROTOCOL: Final = 5
_MOST_INTEGER_BYTES: Final = 8
_LONGEST_NAME_SHOWN: Final = 100
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.?)", re.DOTALL)
_ESCAPED: Final = {b"\\": b"\\", b"'": b"'", b'"': b'"', b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def read_pickle(data: bytes) -> object:
    """The value that a pickle holds.

    Args:
        data: the whole pickle.

    Returns:
        None, bool, int, str, bytes (of bytearrays and of Python 2's texts too), `pickled_names.Array`, `ItemType` or
        `Name`, or lists and tuples of such. What the pickle refers to twice is one object, so a list may hold itself.

    Raises:
        PickleDataError: if the pickle is damaged, or asks for anything else.
    """
    machine = PickleMachine(data)
    try:
        return _run(machine)
    except PickleDataError as error:
        error.position = machine.position
        raise


def _run(machine: PickleMachine) -> object:
    for _ in range(MOST_STEPS):
        code = machine.take(1)
        if code == _STOP:
            return machine.end()
        step = _STEPS.get(code)
        if step is None:
            raise PickleDataError(f"{_describe(code)} is not allowed")
        step(machine)
    raise PickleDataError(f"more than {MOST_STEPS} steps are not allowed")


def _describe(code: bytes) -> str:
    """An opcode by its name, such as `the opcode INST`."""
    names = {opcode.code: opcode.name for opcode in pickletools.opcodes}
    return f"the opcode {names.get(code.decode('latin-1'), code.hex())}"


def _find_name(module: object, name: object) -> Name:
    """An allowed name. No other is looked up anywhere, so that asking for it does nothing."""
    if not (isinstance(module, str) and isinstance(name, str)):
        raise PickleDataError("a name is damaged")
    text = f"{module}.{name}"
    if text not in NAMES:
        harmless = len(text) <= _LONGEST_NAME_SHOWN and text.isprintable()
        raise PickleDataError(f"{text if harmless else ascii(text[:_LONGEST_NAME_SHOWN])} is not allowed")
    return NAMES[text]


def _decode(data: bytes, encoding: str, errors: str = "strict") -> str:
    try:
        return data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise PickleDataError(f"a text is damaged ({error.reason})") from error


def _unquote(line: bytes) -> bytes:
    """The bytes of a text in Python 2's protocol 0, which is quoted and escaped as in source code."""
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise PickleDataError("a text is damaged (no quotes)")
    return _ESCAPE.sub(_unescape, line[1:-1])


def _unescape(match: re.Match[bytes]) -> bytes:
    escape = match[1]
    if len(escape) == 3:
        return bytes([int(escape[1:], 16)])
    if escape not in _ESCAPED:
        raise PickleDataError("a text is damaged (unknown escape)")
    return _ESCAPED[escape]


def _constant(value: object) -> Step:
    return lambda machine: machine.push(value)


def _number(width: int, *, signed: bool = False) -> Step:
    return lambda machine: machine.push(machine.take_integer(width, signed=signed))


def _bytes(width: int) -> Step:
    """Bytes that stand behind their length, which takes `width` bytes itself."""
    return lambda machine: machine.push(machine.take(machine.take_integer(width)))


def _text(width: int) -> Step:
    """As `_bytes`, in UTF-8; half characters too, which Python writes as they are."""
    return lambda machine: machine.push(_decode(machine.take(machine.take_integer(width)), "utf-8", "surrogatepass"))


def _tuple(count: int) -> Step:
    return lambda machine: machine.push(tuple([machine.pop() for _ in range(count)][::-1]))


def _put(take: Callable[[PickleMachine], int]) -> Step:
    def step(machine: PickleMachine) -> None:
        machine.memo[take(machine)] = machine.top()

    return step


def _get(take: Callable[[PickleMachine], int]) -> Step:
    def step(machine: PickleMachine) -> None:
        number = take(machine)
        if number not in machine.memo:
            raise PickleDataError(f"value {number} of the memo is missing")
        machine.push(machine.memo[number])

    return step


def _take_protocol(machine: PickleMachine) -> None:
    protocol = machine.take_integer(1)
    if protocol > _HIGHEST_PROTOCOL:
        raise PickleDataError(f"protocol {protocol} is not allowed, the highest is {_HIGHEST_PROTOCOL}")


def _take_frame(machine: PickleMachine) -> None:
    """A length, of which more bytes must follow; what they hold is read like all others."""
    length = machine.take_integer(8)
    if length > len(machine.data) - machine.position:
        raise PickleDataError("the end of a frame is missing")


def _take_int(machine: PickleMachine) -> None:
    """A line with a number, or with a truth value as 00 or 01."""
    line = machine.take_line()
    machine.push(line == b"01" if line in (b"00", b"01") else parse_number(line))


def _take_long_line(machine: PickleMachine) -> None:
    machine.push(parse_number(machine.take_line().removesuffix(b"L")))


def _take_long(machine: PickleMachine) -> None:
    width = machine.take_integer(1)
    if width > _MOST_INTEGER_BYTES:
        raise PickleDataError(f"a number of {width} bytes is not allowed")
    machine.push(machine.take_integer(width, signed=True))


def _append(machine: PickleMachine) -> None:
    value = machine.pop()
    machine.top_list().append(value)


def _append_all(machine: PickleMachine) -> None:
    values = machine.pop_to_mark()
    machine.top_list().extend(values)


def _take_name(machine: PickleMachine) -> None:
    module, name = machine.take_line(), machine.take_line()
    machine.push(_find_name(_decode(module, "utf-8"), _decode(name, "utf-8")))


def _pop_name(machine: PickleMachine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(_find_name(module, name))


def _refuse_instance(machine: PickleMachine) -> None:
    """Names a class and calls it in one step; read as far as the name, which the message tells."""
    _take_name(machine)
    raise PickleDataError("the opcode INST is not allowed")


def _call(machine: PickleMachine) -> None:
    arguments, name = machine.pop(), machine.pop()
    if not (isinstance(name, Name) and name.call is not None and isinstance(arguments, tuple)):
        raise PickleDataError("a call of what is no function is not allowed")
    machine.push_made(name.call(arguments))


def _set_state(machine: PickleMachine) -> None:
    state, target = machine.pop(), machine.top()
    if not isinstance(target, (Array, ItemType)):
        raise PickleDataError(f"a state for {type(target).__name__} is not allowed")
    target.set_state(state)


_STEPS: Final[dict[bytes, Step]] = {
    b"\x80": _take_protocol, b"\x95": _take_frame,
    b"N": _constant(None), b"\x88": _constant(True), b"\x89": _constant(False), b")": _constant(()),
    b"I": _take_int, b"L": _take_long_line, b"\x8a": _take_long,
    b"J": _number(4, signed=True), b"K": _number(1), b"M": _number(2),
    b"U": _bytes(1), b"T": _bytes(4), b"C": _bytes(1), b"B": _bytes(4), b"\x8e": _bytes(8), b"\x96": _bytes(8),
    b"S": lambda machine: machine.push(_unquote(machine.take_line())),
    b"\x8c": _text(1), b"X": _text(4), b"\x8d": _text(8),
    b"V": lambda machine: machine.push(_decode(machine.take_line(), "raw-unicode-escape")),
    b"(": PickleMachine.push_mark,
    b"\x85": _tuple(1), b"\x86": _tuple(2), b"\x87": _tuple(3),
    b"t": lambda machine: machine.push(tuple(machine.pop_to_mark())),
    b"]": lambda machine: machine.push([]),
    b"l": lambda machine: machine.push(machine.pop_to_mark()),
    b"a": _append, b"e": _append_all,
    b"p": _put(PickleMachine.take_number), b"g": _get(PickleMachine.take_number),
    b"q": _put(lambda machine: machine.take_integer(1)), b"h": _get(lambda machine: machine.take_integer(1)),
    b"r": _put(lambda machine: machine.take_integer(4)), b"j": _get(lambda machine: machine.take_integer(4)),
    b"\x94": _put(lambda machine: len(machine.memo)),
    b"c": _take_name, b"\x93": _pop_name, b"i": _refuse_instance, b"R": _call, b"b": _set_state,
}  # fmt: skip
"""What every allowed opcode does (Python's `pickletools` describes them)."""
