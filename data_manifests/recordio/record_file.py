"""Reads face data sets in RecordIO, the format of InsightFace (MS1MV2, CASIA-WebFace), without MXNet."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from data_manifests.recordio.format import (
    UNKNOWN_IDENTITY,
    Record,
    RecordError,
    RecordMissingError,
    identity_of,
)
from data_manifests.recordio.index import (
    KeyTable,
    Layout,
    RecordIndex,
    find_identities,
    find_layout,
    read_idx,
    scan_keys,
)
from data_manifests.recordio.reader import RecordReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = [
    "UNKNOWN_IDENTITY",
    "Record",
    "RecordError",
    "RecordFile",
    "RecordIndex",
    "RecordMissingError",
    "RecordReader",
    "identity_of",
]

logger = logging.getLogger(__name__)


class RecordFile:
    """A .rec file and its .idx.

    Nothing is read before it is asked for, and a pickled one carries the paths only. Where there is no .idx, the
    records are found by following the .rec once, and numbered from 0 in its order.

    Damage of one record is a RecordError of that record; the others stay readable. Damage of the .idx, or a header
    record that promises other keys than there are, is a RecordError of whatever needs the keys.

    Attributes:
        rec: the .rec file.
        idx: the .idx file; None where there is none.
    """

    def __init__(self, rec: Path | str, idx: Path | str | None = None) -> None:
        """Name the files.

        Args:
            rec: the .rec file.
            idx: its .idx file; the default is the .rec's name with the suffix .idx where that file exists.

        Raises:
            FileNotFoundError: if the .rec, or an .idx that was named, does not exist.
        """
        self.rec = Path(rec)
        for path in (self.rec, idx):
            if path is not None and not Path(path).is_file():
                raise FileNotFoundError(f"{path}: no such file; check the data set's root")
        beside = self.rec.with_suffix(".idx")
        self.idx = Path(idx) if idx is not None else beside if beside.is_file() else None
        self._reader = RecordReader(self.rec)

    def __getstate__(self) -> dict[str, object]:
        return {"rec": self.rec, "idx": self.idx, "_reader": self._reader}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """The number of image records."""
        return len(self.keys)

    def close(self) -> None:
        """Close the .rec and forget what was read; the next use opens it again."""
        self._reader.close()
        for name in ("_table", "_layout", "_index", "identities"):
            self.__dict__.pop(name, None)

    @property
    def keys(self) -> NDArray[np.int32]:
        """The keys of the image records, int32 [N], ascending."""
        return self._table.keys[self._layout.images]

    @cached_property
    def identities(self) -> dict[int, range]:
        """The keys of every person: from the first to behind the last. Images of unknown people are left out.

        Raises:
            RecordError: if a person's images do not lie side by side.
        """
        index = self.index()
        changes = np.flatnonzero(index.identities[1:] != index.identities[:-1]) + 1
        starts = np.append(0, changes) if len(index) else changes
        stops = np.append(changes, len(index))
        people: dict[int, range] = {}
        for start, stop in zip(starts, stops[: len(starts)], strict=True):
            identity = int(index.identities[start])
            if identity in people:
                raise RecordError(
                    f"{self.rec}: the images of identity {identity} do not lie side by side (keys"
                    f" {people[identity].start} and {index.keys[start]}): use the identities of index() instead"
                )
            if identity != UNKNOWN_IDENTITY:
                people[identity] = range(int(index.keys[start]), int(index.keys[stop - 1]) + 1)
        return people

    def index(self) -> RecordIndex:
        """Where every image lies and whom it shows, without reading an image.

        The places come from the .idx; the identities from the identity records and the labels of each person's first
        and last image.
        An image that no single identity record claims is asked for its own label, as is every image of a file without
        identity records; what even that does not tell is -1, never a guess.

        Raises:
            RecordError: if the .idx is damaged, or does not fit the header record.
        """
        return self._index

    def read(self, key: int) -> tuple[NDArray[np.float32], bytes]:
        """The label, float32 [max(flag, 1)], and the payload of any record, those of header and identities included.

        Raises:
            RecordMissingError: if there is no such key, or its offset lies outside the file.
            RecordError: if the record is damaged.
        """
        row = self._row(key)
        try:
            record = self._reader.at(int(self._table.offsets[row]), int(self._table.lengths[row]))
        except RecordError as error:
            raise type(error)(f"key {key}: {error}") from error
        return record.label, record.payload

    def images(
        self, keys: range | None = None, damaged: Callable[[int, RecordError], None] | None = None
    ) -> Iterator[tuple[int, int, bytes]]:
        """Key, identity by its own label (-1 if that is none) and encoded bytes of every image, in key order.

        Args:
            keys: only the images whose keys lie in this range (of step 1).
            damaged: is given key and error of every record that cannot be read, which is then left out; without it
                the first such error is raised.

        Raises:
            RecordError: if a record is damaged and nobody takes the error.
        """
        if keys is not None and keys.step != 1:
            raise ValueError(f"a range of keys must have the step 1, not {keys.step}")
        images = self.keys
        for key in images if keys is None else images[(images >= keys.start) & (images < keys.stop)]:
            try:
                label, payload = self.read(int(key))
            except RecordError as error:
                if damaged is None:
                    raise
                damaged(int(key), error)
                continue
            yield int(key), identity_of(label), payload

    @cached_property
    def _table(self) -> KeyTable:
        if self.idx is not None:
            return read_idx(self.idx, self.rec, self._reader.size)
        logger.info("%s: no .idx beside it; its records are found by following it once", self.rec)
        return scan_keys(self._reader)

    @cached_property
    def _layout(self) -> Layout:
        return find_layout(self._table, self._reader)

    @cached_property
    def _index(self) -> RecordIndex:
        images = self._layout.images
        return RecordIndex(
            keys=self._table.keys[images],
            identities=find_identities(self._table, self._layout, self._reader),
            offsets=self._table.offsets[images],
            lengths=self._table.lengths[images],
        )

    def _row(self, key: int) -> int:
        """The row of a key in the table."""
        keys = self._table.keys
        row = key - int(keys[0])
        if not 0 <= row < len(keys) or keys[row] != key:
            row = int(np.searchsorted(keys, np.int32(key))) if keys[0] <= key <= keys[-1] else -1
        if row < 0 or keys[row] != key:
            raise RecordMissingError(f"{self.idx or self.rec}: no record has the key {key}")
        return row
