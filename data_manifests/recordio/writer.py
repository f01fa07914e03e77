"""Writes RecordIO files byte for byte as MXNet does."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from data_manifests.recordio.format import encode
from data_manifests.recordio.record_file import RecordFile
from data_manifests.storage.atomic import create_beside, explain_full_disk, sync_folder, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable

    from data_manifests.recordio.format import Label

_BUFFER = 4 << 20
_EXACT_FLOAT32 = 1 << 24
"""Up to here every whole number is a float32, in which labels are stored."""


class RecordWriter:
    """Writes a .rec file and its .idx; a context manager.

    Both appear under their names when the block ends without an error, and not before; a .rec that stood there is
    replaced, and is never seen together with the new .idx or the other way round.
    """

    def __init__(self, rec: Path | str, idx: Path | str | None = None) -> None:
        """Name the files; the .idx is by default the .rec's name with the suffix .idx."""
        self.rec = Path(rec)
        self.idx = Path(idx) if idx is not None else self.rec.with_suffix(".idx")
        if self.rec.resolve() == self.idx.resolve():
            raise ValueError(f"{self.rec}: the .rec and the .idx must be two files")
        self._parts: tuple[_Buffer, _Buffer] | None = None
        self._last_key = -1

    def __enter__(self) -> Self:
        self._parts = (_Buffer(self.rec), _Buffer(self.idx))
        self._last_key = -1
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        records, lines = self._open()
        self._parts = None
        try:
            if kind is None:
                records.finish()
                lines.finish()
                self.idx.unlink(missing_ok=True)
                records.path.replace(self.rec)
                lines.path.replace(self.idx)
                sync_folder(self.rec.parent)
                sync_folder(self.idx.parent)
        finally:
            records.discard()
            lines.discard()

    def write(self, key: int, label: Label, payload: bytes, number: int | None = None, number2: int = 0) -> int:
        """Append a record.

        Args:
            key: larger than the one before, at most 2^31 - 1.
            label: one number (flag 0), or several (flag = how many).
            payload: the encoded image.
            number: the header's `id`; the key by default, as in MS1MV2.
            number2: the header's `id2`.

        Returns:
            The offset at which the record starts.

        Raises:
            ValueError: if the key does not ascend, there is no label, or the record has 2^29 bytes or more.
            DiskFullError: if no space is left.
        """
        records, lines = self._parts or self._open()
        if not self._last_key < key < 2**31:
            raise ValueError(f"{self.rec}: the key {key} must be larger than {self._last_key} and below 2^31")
        record = encode(label, payload, key if number is None else number, number2)
        offset = records.place
        records.append(record)
        lines.append(b"%d\t%d\n" % (key, offset))
        self._last_key = key
        return offset

    def rewrite_first(self, label: Label, number: int = 0) -> None:
        """Write the first record anew, with another label of the same size and no payload.

        For a header record whose counts are known only at the end.
        """
        self._open()[0].overwrite(encode(label, b"", number))

    def _open(self) -> tuple[_Buffer, _Buffer]:
        if self._parts is None:
            raise ValueError(f"{self.rec}: the writer is used outside its with block")
        return self._parts


class _Buffer:
    """A temporary file beside the one that it becomes, written in large pieces."""

    def __init__(self, target: Path) -> None:
        self.place = 0
        self._pieces: list[bytes] = []
        self._pending = 0
        target.parent.mkdir(parents=True, exist_ok=True)
        self._handle, self.path = create_beside(target)

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        self._pieces.append(data)
        self.place += len(data)
        self._pending += len(data)
        if self._pending >= _BUFFER:
            self._flush()

    def overwrite(self, data: bytes) -> None:
        """Replace the first bytes of the file."""
        self._flush()
        os.pwrite(self._handle, data, 0)

    def finish(self) -> None:
        """Bring everything to the disk."""
        self._flush()
        with explain_full_disk(self.path.parent):
            os.fsync(self._handle)

    def discard(self) -> None:
        """Close the file, and remove it unless it has got its name."""
        os.close(self._handle)
        self.path.unlink(missing_ok=True)

    def _flush(self) -> None:
        data = memoryview(b"".join(self._pieces))
        self._pieces, self._pending = [], 0
        with explain_full_disk(self.path.parent):
            while data:
                data = data[os.write(self._handle, data) :]


def write_ms1mv2(folder: Path | str, images: Iterable[tuple[int, bytes]], side: int = 112) -> RecordFile:
    """Write `train.rec`, `train.idx` and `property` in the layout of MS1MV2.

    Record 0 is the header (labels N + 1 and N + identities + 1), images have the keys 1 to N, and one record a person
    follows with the range of the person's keys (InsightFace, `face2rec2.py`).

    Args:
        folder: is made when it is missing.
        images: identity and encoded image, the images of a person one after the other.
        side: height and width in pixels, for `property`.

    Raises:
        ValueError: if a person's images do not stand together, an identity is not within 0 to 2^24, or there are more
            records than labels can count, which are float32.
    """
    folder = Path(folder)
    with RecordWriter(folder / "train.rec") as writer:
        writer.write(0, (0.0, 0.0), b"")
        firsts, border = _write_images(writer, images)
        end = border + len(firsts)
        if end > _EXACT_FLOAT32:
            raise ValueError(f"{folder}: {end} records are more than float32 labels count exactly")
        for key, (first, stop) in enumerate(itertools.pairwise([*firsts, border]), border):
            writer.write(key, (float(first), float(stop)), b"")
        writer.rewrite_first((float(border), float(end)))
    text = f"{len(firsts)},{side},{side}".encode()

    def write_property(file: IO[bytes]) -> None:
        file.write(text)

    write_atomically(folder / "property", write_property)
    return RecordFile(folder / "train.rec")


def _write_images(writer: RecordWriter, images: Iterable[tuple[int, bytes]]) -> tuple[list[int], int]:
    """Write the images from key 1 on; gives every person's first key, and the key behind the last image."""
    firsts: list[int] = []
    seen: set[int] = set()
    current: int | None = None
    key = 0
    for key, (identity, payload) in enumerate(images, start=1):
        if identity != current:
            if identity in seen or not 0 <= identity <= _EXACT_FLOAT32:
                raise ValueError(
                    f"{writer.rec}: image {key}: identity {identity} must be within 0 to {_EXACT_FLOAT32}, and its"
                    f" images one after the other: sort them by identity"
                )
            seen.add(identity)
            firsts.append(key)
            current = identity
        writer.write(key, float(identity), payload)
    return firsts, key + 1
