"""The framing and the image header: any data comes back, and stands in the file as dmlc would put it."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_manifests.recordio.format import (
    FRAME,
    LENGTH_BITS,
    MAGIC,
    MAGIC_BYTES,
    MAX_BYTES,
    UNKNOWN_IDENTITY,
    RecordError,
    encode,
    frame,
    identity_of,
    unpack,
)

pieces_with_magic = st.lists(st.one_of(st.just(MAGIC_BYTES), st.binary(max_size=9)), max_size=12).map(b"".join)
float32s = st.floats(width=32, allow_nan=False)


def split_frame(stored: bytes) -> tuple[list[int], list[bytes]]:
    """Flags and data of the parts, by dmlc's description alone."""
    flags, parts, place = [], [], 0
    while place < len(stored):
        magic, word = struct.unpack_from("<II", stored, place)
        assert magic == 0xCED7230A
        length = word & 0x1FFFFFFF
        flags.append(word >> 29)
        parts.append(stored[place + 8 : place + 8 + length])
        place += 8 + (length + 3) // 4 * 4
    assert place == len(stored)
    return flags, parts


@given(pieces_with_magic)
def test_framed_data_comes_back_and_holds_no_aligned_magic_word(data: bytes) -> None:
    flags, parts = split_frame(frame(data))
    assert struct.pack("<I", 0xCED7230A).join(parts) == data
    assert flags == ([0] if len(parts) == 1 else [1] + [2] * (len(parts) - 2) + [3])
    for part in parts:
        assert all(part[i : i + 4] != MAGIC_BYTES for i in range(0, len(part), 4))


@pytest.mark.parametrize(
    ("data", "flags", "lengths"),
    [
        (b"", [0], [0]),
        (MAGIC_BYTES, [1, 3], [0, 0]),
        (MAGIC_BYTES * 3, [1, 2, 2, 3], [0, 0, 0, 0]),
        (b"x" + MAGIC_BYTES, [0], [5]),
        (b"abcd" + MAGIC_BYTES + b"e", [1, 3], [4, 1]),
        (MAGIC_BYTES[:3], [0], [3]),
    ],
)
def test_data_is_cut_at_aligned_magic_words_only(data: bytes, flags: list[int], lengths: list[int]) -> None:
    found_flags, parts = split_frame(frame(data))
    assert found_flags == flags
    assert [len(p) for p in parts] == lengths


@given(
    st.one_of(float32s, st.lists(float32s, min_size=1, max_size=5)), pieces_with_magic,
    st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1),
)  # fmt: skip
def test_any_label_and_payload_come_back(label: float | list[float], payload: bytes, number: int, number2: int) -> None:
    record = unpack(MAGIC_BYTES.join(split_frame(encode(label, payload, number, number2))[1]))
    assert record.payload == payload
    assert (record.id, record.id2) == (number, number2)
    assert record.flag == (len(label) if isinstance(label, list) else 0)
    assert record.label.dtype == np.float32
    assert np.array_equal(record.label, np.atleast_1d(np.float32(label)))


def test_a_magic_word_in_the_header_itself_is_cut_out_too() -> None:
    stored = encode(1.0, b"payload", MAGIC << 32 | 5)
    assert split_frame(stored)[0] == [1, 3]
    label = struct.unpack("<f", MAGIC_BYTES)[0]
    assert split_frame(encode(label, b"", 1))[0] == [1, 3]
    assert unpack(MAGIC_BYTES.join(split_frame(encode(label, b"", 1))[1])).label.tolist() == [label]


@pytest.mark.parametrize("label", [3, 3.0, np.float32(3), np.int64(3), np.float64(3)])
def test_one_number_stands_in_the_header_and_several_behind_it(label: float) -> None:
    assert encode(label, b"x", 1) == encode(3.0, b"x", 1)
    assert unpack(split_frame(encode(label, b"x", 1))[1][0]).flag == 0
    assert unpack(split_frame(encode([label], b"x", 1))[1][0]).flag == 1


def test_what_the_framing_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=str(MAX_BYTES)):
        encode(1.0, bytes(MAX_BYTES), 1)
    with pytest.raises(ValueError, match=str(MAX_BYTES)):
        frame(bytes(MAX_BYTES + 1))
    with pytest.raises(ValueError, match="at least one label"):
        encode([], b"x", 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (bytes(23), "23 bytes"),
        (struct.pack("<IfQQ", 2, 0, 0, 0) + bytes(7), "promises 2 labels but only 7 bytes"),
        (struct.pack("<IfQQ", 2**32 - 1, 0, 0, 0) + bytes(8), "promises 4294967295 labels"),
    ],
)
def test_a_header_that_promises_more_than_there_is_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        unpack(data)


@pytest.mark.parametrize(
    ("value", "identity"),
    [
        (0.0, 0), (85741.0, 85741), (float(2**31 - 128), 2**31 - 128), (-1.0, -1), (-7.0, -1), (0.5, -1),
        (float(2**31), -1), (float("nan"), -1), (float("inf"), -1), (-0.0, 0),
    ],
)  # fmt: skip
def test_an_identity_is_a_whole_number_from_zero_on(value: float, identity: int) -> None:
    assert identity_of(np.array([value, 3.0], np.float32)) == identity
    assert UNKNOWN_IDENTITY == -1


def test_constants_are_those_of_dmlc() -> None:
    """dmlc-core, include/dmlc/recordio.h: kMagic, and 29 bits of length."""
    assert (MAGIC, LENGTH_BITS, MAX_BYTES, FRAME.size) == (0xCED7230A, 29, 2**29 - 1, 8)
