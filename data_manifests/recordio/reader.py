"""Reads single records of a .rec file by their offset, without any index."""

from __future__ import annotations

import logging
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Self

from data_manifests.recordio.format import (
    FRAME,
    HEADER,
    LENGTH_BITS,
    MAGIC,
    MAGIC_BYTES,
    MAX_BYTES,
    PartFlag,
    Record,
    RecordError,
    RecordHead,
    RecordMissingError,
    labels_end,
    unpack,
    unpack_label,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

_REMEDY = "the record is damaged: get the file again; the other records can still be read"
_FIRST_READ = 8 * 1024
_HEAD_READ = FRAME.size + HEADER.size + 8
_BLOCK = 1 << 20


def _aligned(place: int) -> int:
    """The next multiple of four."""
    return place + -place % 4


class RecordReader:
    """Reads the records of one .rec file.

    The file is opened on first use and read by position (`pread`) rather than mapped: a file that is cut short or a
    failing disk is then an error of one record, where a map would end the process. No position is shared, so one
    reader serves several threads, and works on after a fork; a pickled one opens the file anew.

    Attributes:
        path: the .rec file.
    """

    def __init__(self, rec: Path | str) -> None:
        self.path = Path(rec)
        self._size = -1
        self._handle = -1
        self._closer: weakref.finalize[[int], RecordReader] | None = None

    def __reduce__(self) -> tuple[type[RecordReader], tuple[Path]]:
        return RecordReader, (self.path,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._closer is not None:
            self._closer()
            self._closer = None
        self._handle = self._size = -1

    @property
    def size(self) -> int:
        """The size of the file in bytes, when it was opened."""
        if self._handle < 0:
            self._open()
        return self._size

    def at(self, offset: int, length: int = 0) -> Record:
        """Read the record that starts at an offset.

        Args:
            offset: where its first part starts, in bytes.
            length: its stored bytes with framing as the index gives them, if known: saves a second read of large
                records, and tells a sound record whose neighbour is wiped out from a damaged one.

        Raises:
            RecordMissingError: if the offset lies outside the file.
            RecordError: if the record is damaged or torn.
        """
        try:
            return unpack(self._join(offset, length))
        except RecordError as error:
            raise self._located(error, offset) from None

    def head(self, offset: int) -> RecordHead:
        """Read flag and labels of the record at an offset, and not its image.

        Raises:
            RecordMissingError: if the offset lies outside the file.
            RecordError: if the record is damaged before its image.
        """
        try:
            return self._head(offset)
        except RecordError as error:
            raise self._located(error, offset) from None

    def scan(self) -> Iterator[int]:
        """The offset of every record in the order of the file; a damaged one is counted, and skipped.

        A record starts where the one before it ends. After a damaged record that is the next magic word at a multiple
        of four with the flag of a first part, because the format keeps such words out of the data.
        """
        offset = 0
        damaged = []
        while offset < self.size:
            yield offset
            try:
                offset = self._end(offset)
            except RecordError:
                damaged.append(offset)
                offset = self._next_start(offset)
        if damaged:
            logger.warning(
                "%s: %d of its records are damaged, the first at offset %d; where a damaged place holds several, the"
                " records behind it are numbered too low: get the .idx that belongs to the file",
                self.path, len(damaged), damaged[0],
            )  # fmt: skip

    def _open(self) -> None:
        handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self._closer = weakref.finalize(self, os.close, handle)
        self._size = os.fstat(handle).st_size
        self._handle = handle

    def _read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from an offset, fewer at the end of the file."""
        if not 0 <= offset < self.size:
            raise RecordMissingError(f"it would lie outside the file of {self.size} bytes")
        try:
            return os.pread(self._handle, count, offset)
        except OSError as error:
            raise RecordError(f"the disk does not give its bytes ({error.strerror})") from error

    def _part(self, offset: int, block: bytes) -> tuple[int, int]:
        """Flag and length of the part at an offset, of which `block` holds the start."""
        if len(block) < FRAME.size:
            raise RecordError(f"it is torn: the file ends within the framing of the part at {offset}")
        magic, word = FRAME.unpack_from(block)
        if magic != MAGIC:
            raise RecordError(f"no magic word at {offset} (found {magic:#010x})")
        flag, length = word >> LENGTH_BITS, word & MAX_BYTES
        if flag > PartFlag.LAST:
            raise RecordError(f"the part at {offset} has the unknown flag {flag}")
        if flag in (PartFlag.FIRST, PartFlag.MIDDLE) and length % 4:
            raise RecordError(f"the part at {offset} ends at no multiple of four, but another should follow")
        if offset + FRAME.size + length > self.size:
            raise RecordError(f"it is torn: the part at {offset} has {length} bytes and passes the end of the file")
        return flag, length

    def _parts(self, offset: int, count: int) -> Iterator[tuple[int, int, bytes]]:
        """The parts of a record: place, length and a block of at most `count` bytes from that place on."""
        place, later = offset, False
        while True:
            block = self._read(place, count)
            flag, size = self._part(place, block)
            if later != (flag in (PartFlag.MIDDLE, PartFlag.LAST)):
                raise RecordError(
                    f"a later part should follow at {place}, but another record starts there"
                    if later
                    else "the offset is that of a later part of a record"
                )
            yield place, size, block
            if flag in (PartFlag.WHOLE, PartFlag.LAST):
                return
            place += FRAME.size + size
            later = True

    def _join(self, offset: int, length: int) -> bytes:
        """The data of a record with its magic words put back."""
        pieces = []
        total, end = -4, offset
        count = min(length, _BLOCK) if length >= FRAME.size else _FIRST_READ
        for place, size, block in self._parts(offset, count):
            total += size + 4
            if total > MAX_BYTES:
                raise RecordError(f"its parts hold more than the {MAX_BYTES} bytes of the largest record")
            start = FRAME.size
            fits = start + size <= len(block)
            pieces.append(block[start : start + size] if fits else self._read(place + start, size))
            if len(pieces[-1]) < size:
                raise RecordError("it is torn: the file has become shorter")
            end = _aligned(place + start + size)
        if end != offset + length:
            self._check_end(end)
        return MAGIC_BYTES.join(pieces)

    def _end(self, offset: int) -> int:
        """Where the record at an offset ends."""
        end = offset
        for place, size, _ in self._parts(offset, FRAME.size):
            end = _aligned(place + FRAME.size + size)
        self._check_end(end)
        return end

    def _check_end(self, end: int) -> None:
        """Raise unless a record can start, or the file ends, at a place.

        Where the magic word there is damaged, the length behind it decides: it must lead to the next record.
        """
        if end >= self.size:
            return
        block = self._read(end, FRAME.size)
        if len(block) < FRAME.size:
            return
        magic, word = FRAME.unpack(block)
        if magic == MAGIC:
            sound = word >> LENGTH_BITS not in (PartFlag.MIDDLE, PartFlag.LAST)
        else:
            after = _aligned(end + FRAME.size + (word & MAX_BYTES))
            sound = after == self.size or (after < self.size and self._read(after, 4) == MAGIC_BYTES)
        if not sound:
            raise RecordError(f"its framing is damaged: no record starts at {end}, where it ends")

    def _head(self, offset: int) -> RecordHead:
        block = self._read(offset, _HEAD_READ)
        flag, size = self._part(offset, block)
        if flag != PartFlag.WHOLE:
            record = unpack(self._join(offset, 0))
            return RecordHead(flag=record.flag, label=record.label, id=record.id, bare=not record.payload)
        data = block[FRAME.size :]
        end = labels_end(data, size)
        if end > len(data):
            data = self._read(offset + FRAME.size, end)
        if len(data) < end:
            raise RecordError("it is torn: the file has become shorter")
        count = (end - HEADER.size) // 4
        number = HEADER.unpack_from(data)[2]
        return RecordHead(flag=count, label=unpack_label(data, count), id=number, bare=end == size)

    def _next_start(self, offset: int) -> int:
        """The first place behind an offset where a record starts, or the end of the file."""
        offset += 4
        while offset < self.size:
            try:
                block = self._read(offset, _BLOCK)
            except RecordError as error:
                raise self._located(error, offset) from None
            if not block:
                break
            place = block.find(MAGIC_BYTES)
            while place >= 0:
                start = offset + place
                if start % 4 == 0 and self._starts_record(start):
                    return start
                place = block.find(MAGIC_BYTES, place + 1)
            offset += max(len(block) - 3, 1)
        return self.size

    def _starts_record(self, place: int) -> bool:
        word = self._read(place, FRAME.size)[4:]
        return len(word) < 4 or int.from_bytes(word, "little") >> LENGTH_BITS <= PartFlag.FIRST

    def _located(self, error: RecordError, offset: int) -> RecordError:
        """The same error with the file, the place and the remedy."""
        if isinstance(error, RecordMissingError):
            remedy = "the .rec is cut short, or the .idx belongs to another file: get both again"
        else:
            remedy = _REMEDY
        return type(error)(f"{self.path}: record at offset {offset}: {error}. {remedy[0].upper()}{remedy[1:]}")
