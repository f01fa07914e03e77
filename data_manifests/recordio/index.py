"""Where the records of a .rec file lie, which of them are images, and whom they show."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv

from data_manifests.recordio.format import UNKNOWN_IDENTITY, RecordError, identity_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from data_manifests.recordio.format import RecordHead
    from data_manifests.recordio.reader import RecordReader

logger = logging.getLogger(__name__)

_INT32_MAX = 2**31 - 1

_EXACT = 1 << 24
"""Labels are float32, which holds whole numbers exactly up to here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTable:
    """Every record of a file, whatever it is.

    Attributes:
        keys: int32 [M], ascending, each once.
        offsets: int64 [M], where the record starts.
        lengths: int32 [M], bytes to the next larger offset or the end of the file; 0 outside the file.
    """

    keys: NDArray[np.int32]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordIndex:
    """Every image record of a file, in key order.

    Attributes:
        keys: int32 [N], ascending.
        identities: int32 [N]; -1 where neither an identity record nor the image's own header tells whom it shows.
        offsets: int64 [N], where the record's first part starts.
        lengths: int32 [N], stored bytes with framing; 0 where the offset lies outside the file.
    """

    keys: NDArray[np.int32]
    identities: NDArray[np.int32]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def people(self) -> int:
        """The number of different identities, unknown ones left out."""
        return int(np.count_nonzero(np.unique(self.identities) != UNKNOWN_IDENTITY))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which rows of the key table are images, and which are identity records.

    Attributes:
        images: rows of images.
        people: rows of identity records; empty where the file has none.
    """

    images: slice
    people: slice


def read_idx(path: Path, rec: Path, size: int) -> KeyTable:
    r"""Read an .idx file: lines of key, tab, offset (mxnet, `recordio.py`), in any order.

    Args:
        path: the .idx file.
        rec: the .rec file that it belongs to, for messages.
        size: the size of the .rec file in bytes.

    Raises:
        RecordError: if a line is anything else, a key stands twice, or there is no line.
    """
    remedy = f"get it again, or remove it: it is then made anew by reading {rec.name} once"
    try:
        with pa.OSFile(str(path)) as file:
            table = pa.csv.read_csv(
                file,
                # one thread: only then does an error name its line
                read_options=pa.csv.ReadOptions(column_names=["key", "offset"], use_threads=False),
                parse_options=pa.csv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=pa.csv.ConvertOptions(
                    column_types={"key": pa.int64(), "offset": pa.int64()}, null_values=[]
                ),
            )
    except pa.ArrowException as error:
        raise RecordError(f"{path}: not an index of key, tab, offset a line: {str(error)[:200]}; {remedy}") from None
    keys, offsets = table["key"].to_numpy(), table["offset"].to_numpy()
    if not len(keys):
        raise RecordError(f"{path}: no line; {remedy}")
    outside = np.flatnonzero((keys < 0) | (keys > _INT32_MAX))
    if len(outside):
        raise RecordError(f"{path}: the key {keys[outside[0]]} is not within 0 to {_INT32_MAX}; {remedy}")
    if np.any(keys[1:] <= keys[:-1]):
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twice):
            raise RecordError(f"{path}: the key {keys[twice[0]]} stands more than once; {remedy}")
    return _key_table(keys, offsets, size)


def scan_keys(reader: RecordReader) -> KeyTable:
    """Find every record by following the framing; the keys are 0, 1, … in the order of the file.

    Where a header promises more keys than that, pictures were left out when the file was made: the keys are then the
    records' own numbers, if these ascend to the promised end.

    Raises:
        RecordError: if the file is empty.
    """
    offsets = np.fromiter(reader.scan(), np.int64)
    if not len(offsets):
        raise RecordError(f"{reader.path}: the file is empty; get it again")
    keys = np.arange(len(offsets))
    head = _try_head(reader, 0)
    if head is not None and _is_pair(head) and len(keys) < head.label[1]:
        keys = _own_keys(reader, offsets, head.label[1], keys)
    return _key_table(keys, offsets, reader.size)


def _own_keys(
    reader: RecordReader, offsets: NDArray[np.int64], end: np.float32, otherwise: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The numbers that the records have themselves, if they can all be keys up to a promised end."""
    heads = [_try_head(reader, int(offset)) for offset in offsets]
    numbers = [-1 if head is None or head.id > _INT32_MAX else head.id for head in heads]
    ascend = all(before < after for before, after in itertools.pairwise([-1, *numbers]))
    return np.array(numbers, np.int64) if ascend and np.float32(numbers[-1] + 1) == end else otherwise


def _key_table(keys: NDArray[np.int64], offsets: NDArray[np.int64], size: int) -> KeyTable:
    inside = (offsets >= 0) & (offsets < size)
    borders = np.append(offsets[inside], size)
    if np.any(borders[1:] < borders[:-1]):
        borders.sort()
    ends = borders[np.searchsorted(borders, offsets[inside], side="right")]
    lengths = np.zeros(len(keys), np.int32)
    lengths[inside] = np.minimum(ends - offsets[inside], _INT32_MAX)
    return KeyTable(keys=keys.astype(np.int32), offsets=offsets, lengths=lengths)


def find_layout(table: KeyTable, reader: RecordReader) -> Layout:
    """Tell images from the other records.

    In MS1MV2's layout the first record is a header: two labels, N + 1 and N + identities + 1, and no payload. Images
    follow, then one such record a person, with the range of the person's keys. Without a header every record is an
    image. A header that is damaged is known by the identity records at the end of the file.

    The labels are float32: in files of more than 16,777,216 records they are compared so, and the first identity record
    says where the images end.

    Raises:
        RecordError: if the header promises other keys than the index has.
    """
    head = _try_head(reader, int(table.offsets[0]))
    if head is not None and _is_pair(head):
        return _promised_layout(table, head, reader)
    last = len(table.keys)
    for row in range(len(table.keys) - 1, 0, -1):
        tail = _try_head(reader, int(table.offsets[row]))
        if tail is None:
            continue
        if not _is_pair(tail) or not 0 < tail.label[0] <= tail.label[1] <= table.keys[row]:
            break
        last = row
    if last == len(table.keys):
        return Layout(images=slice(0, last), people=slice(last, last))
    logger.warning(
        "%s: the header record is damaged; the %d records from key %d on are taken as the identities'",
        reader.path, len(table.keys) - last, table.keys[last],
    )  # fmt: skip
    return Layout(images=slice(1, last), people=slice(last, len(table.keys)))


def _promised_layout(table: KeyTable, head: RecordHead, reader: RecordReader) -> Layout:
    """The layout that a header record promises, checked against the keys that there are.

    Images may be missing, since packers leave out pictures that they cannot read; identity records may not.
    """
    first, stop = int(table.keys[0]), int(table.keys[-1]) + 1
    border, end = head.label[:2]
    if np.float32(stop) == end and first < border <= end and border == np.floor(border):
        rows = _find_border(table, border, reader)
        promised = int(table.keys[rows]) - first if rows < len(table.keys) else stop - first
        if rows > 0 and len(table.keys) - rows == stop - first - promised and promised + first in _near(border):
            if rows < promised:
                logger.warning(
                    "%s: %d of the %d images that its header promises are not in it; the others are read",
                    reader.path, promised - rows, promised - 1,
                )  # fmt: skip
            return Layout(images=slice(1, rows), people=slice(rows, len(table.keys)))
    raise RecordError(
        f"{reader.path}: the header record (key {first}) promises images up to key {border:g} and identities up to"
        f" key {end:g}, both exclusive, but the index has {len(table.keys)} keys up to {stop}: the index or the header"
        f" is damaged, or they belong to different files; get both again"
    )


def _near(border: np.float32) -> range:
    """The whole numbers that a header may mean by a key: float32 holds them to 2^24, and then every second one."""
    slack = int(np.spacing(border)) if border > _EXACT else 0
    return range(int(border) - slack, int(border) + slack + 1)


def _find_border(table: KeyTable, border: np.float32, reader: RecordReader) -> int:
    """The first row behind the images: that of the promised key, or of the first identity record near it."""
    near = _near(border)
    start, stop = np.searchsorted(table.keys, np.array([near[0], near[-1] + 1]))
    for row in range(int(start), int(stop) if len(near) > 1 else 0):
        head = _try_head(reader, int(table.offsets[row]))
        if head is not None and _is_pair(head):
            return row
    return int(np.searchsorted(table.keys, int(border)))


def _is_pair(head: RecordHead) -> bool:
    """Whether a record looks like a header or an identity: two labels and nothing behind them."""
    return head.flag == 2 and head.bare


def _try_head(reader: RecordReader, offset: int) -> RecordHead | None:
    """Labels of the record at an offset, or None where it is damaged."""
    try:
        return reader.head(offset)
    except RecordError:
        return None


def find_identities(table: KeyTable, layout: Layout, reader: RecordReader) -> NDArray[np.int32]:
    """The identity of every image, int32 [N].

    It is the label of the first image in the range of the person's identity record. An image's own label counts where
    no identity record, or more than one, claims the image, where the first and the last image of a range disagree, and
    in files without identity records. It is -1 where that label cannot be read or is no whole number from 0 on.
    """
    keys = table.keys[layout.images]
    offsets = table.offsets[layout.images]
    identities = np.full(len(keys), UNKNOWN_IDENTITY, np.int32)
    told = np.zeros(len(keys), bool)
    starts, stops = _sound_ranges(_claims(table, layout, reader), keys)
    for start, stop in zip(starts, stops, strict=True):
        identity = _range_identity(reader, offsets[start:stop])
        identities[start:stop] = identity
        told[start:stop] = identity != UNKNOWN_IDENTITY
    rest = np.flatnonzero(~told)
    if len(rest) and layout.people.start < layout.people.stop:
        logger.warning("%s: no single identity record tells of %d images; their own labels do", reader.path, len(rest))
    identities[rest] = np.fromiter((_own_identity(reader, int(o)) for o in offsets[rest]), np.int32, len(rest))
    return identities


def _claims(table: KeyTable, layout: Layout, reader: RecordReader) -> NDArray[np.int64]:
    """The key ranges [R, 2] of the identity records that can be read."""
    claims = []
    for offset in table.offsets[layout.people]:
        head = _try_head(reader, int(offset))
        if head is not None and _is_pair(head) and np.all(head.label == np.floor(head.label)):
            claims.append((float(head.label[0]), float(head.label[1])))
    limit = float(_INT32_MAX)
    return np.clip(np.array(claims, np.float64).reshape(-1, 2), -limit, limit).astype(np.int64)


def _sound_ranges(claims: NDArray[np.int64], keys: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The claims that lie within the images and share none with another, as rows: starts [S], stops [S]."""
    if not len(keys):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    inside = (claims[:, 0] >= keys[0]) & (claims[:, 1] <= int(keys[-1]) + 1) & (claims[:, 0] < claims[:, 1])
    starts, stops = (np.searchsorted(keys, column.astype(np.int32)) for column in claims[inside].T)
    change = np.bincount(starts, minlength=len(keys) + 1) - np.bincount(stops, minlength=len(keys) + 1)
    shared = np.append(0, np.cumsum(np.cumsum(change[:-1]) > 1))
    sound = (shared[stops] == shared[starts]) & (starts < stops)
    return starts[sound], stops[sound]


def _range_identity(reader: RecordReader, offsets: NDArray[np.int64]) -> int:
    """The identity of the first image whose label tells one; -1 where there is none, or the last image contradicts.

    The last image lies beside the first one of the next person, so that asking it costs hardly anything.
    """
    first = next((i for o in offsets if (i := _own_identity(reader, int(o))) != UNKNOWN_IDENTITY), UNKNOWN_IDENTITY)
    last = _own_identity(reader, int(offsets[-1]))
    return first if last in (first, UNKNOWN_IDENTITY) else UNKNOWN_IDENTITY


def _own_identity(reader: RecordReader, offset: int) -> int:
    """The identity in an image's own label, or -1."""
    head = _try_head(reader, offset)
    return UNKNOWN_IDENTITY if head is None else identity_of(head.label)
