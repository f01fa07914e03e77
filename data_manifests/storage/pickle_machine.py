"""The state that a pickle's steps work on: the bytes, a stack of values, marks in it, and a memo of numbered values."""

from __future__ import annotations

import re
from typing import Final

from data_manifests.storage.pickled_names import PickleDataError

_MOST_MADE: Final = 2
"""A call may make as many bytes as the file holds, and a bytearray of protocol 2 is made in two calls."""

_INTEGER = re.compile(rb"-?[0-9]{1,19}")


class PickleMachine:
    """Reads the bytes forwards; whatever is missing, there or on the stack, is a `PickleDataError`.

    Attributes:
        data: the whole pickle.
        position: of the next byte.
        memo: values by number, which later steps refer to. A dictionary, because numbers may be arbitrarily large.
    """

    __slots__ = ("_made", "_marks", "_stack", "data", "memo", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.memo: dict[int, object] = {}
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._made = 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        taken = self.data[self.position : self.position + count]
        if len(taken) != count:
            raise PickleDataError("the end is missing")
        self.position += count
        return taken

    def take_integer(self, width: int, *, signed: bool = False) -> int:
        """The next bytes as a little-endian number."""
        return int.from_bytes(self.take(width), "little", signed=signed)

    def take_line(self) -> bytes:
        """The bytes up to the end of the line."""
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise PickleDataError("the end of a line is missing")
        return self.take(end + 1 - self.position)[:-1]

    def take_number(self) -> int:
        """A line that holds a whole number."""
        return parse_number(self.take_line())

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def push_mark(self) -> None:
        """Remember how high the stack is."""
        self._marks.append(len(self._stack))

    def top(self) -> object:
        """The uppermost value above the last mark."""
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise PickleDataError("a value is missing")
        return self._stack[-1]

    def top_list(self) -> list[object]:
        """The uppermost value, which must be a list."""
        target = self.top()
        if not isinstance(target, list):
            raise PickleDataError("a list is missing")
        return target

    def pop(self) -> object:
        """Take the uppermost value away."""
        value = self.top()
        self._stack.pop()
        return value

    def pop_to_mark(self) -> list[object]:
        """Take everything above the last mark away, and the mark."""
        if not self._marks:
            raise PickleDataError("a mark is missing")
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def push_made(self, value: object) -> None:
        """Put what a call made on the stack; refuse a short file that has one long value made over and over."""
        if isinstance(value, bytes):
            self._made += len(value)
            if self._made > _MOST_MADE * len(self.data):
                raise PickleDataError("calls that make more bytes than the file holds are not allowed")
        self.push(value)

    def end(self) -> object:
        """The one value that is left when all bytes are read."""
        left = len(self.data) - self.position
        if self._marks or len(self._stack) != 1 or left:
            raise PickleDataError(f"the end comes with {len(self._stack)} values, instead of 1, and {left} bytes left")
        return self._stack[0]


def parse_number(line: bytes) -> int:
    """A whole number of up to 19 decimal digits.

    Raises:
        PickleDataError: if the line is anything else.
    """
    if not _INTEGER.fullmatch(line):
        raise PickleDataError("a number is damaged")
    return int(line)
