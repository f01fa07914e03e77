"""Single records by offset: whole, in parts, damaged, torn, and from other processes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_manifests.recordio.format import MAGIC_BYTES, RecordError, RecordMissingError
from data_manifests.recordio.reader import RecordReader
from data_manifests.recordio.writer import RecordWriter
from data_manifests.tables.stages import Status

PAYLOADS = [
    b"first image",
    b"",
    b"abcd" * 3 + MAGIC_BYTES * 2 + b"tail",
    b"x" * 40_000,
    MAGIC_BYTES,
    b"y" + MAGIC_BYTES + b"z",
    b"last one",
]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[int]]:
    """A file of a few odd records, and their offsets."""
    rec = tmp_path / "odd.rec"
    with RecordWriter(rec) as writer:
        offsets = [writer.write(k, float(k), p) for k, p in enumerate(PAYLOADS)]
    return rec, offsets


def damage(rec: Path, place: int, data: bytes) -> None:
    with rec.open("r+b") as file:
        file.seek(place)
        file.write(data)


def test_records_come_back_by_their_offset_alone(written: tuple[Path, list[int]]) -> None:
    rec, offsets = written
    with RecordReader(rec) as reader:
        for key, (offset, payload) in enumerate(zip(offsets, PAYLOADS, strict=True)):
            record = reader.at(offset)
            assert (record.payload, record.id, record.label.tolist()) == (payload, key, [float(key)])
            head = reader.head(offset)
            assert (head.flag, head.label.tolist(), head.bare) == (0, [float(key)], not payload)
        assert list(reader.scan()) == offsets


@given(st.lists(st.lists(st.one_of(st.just(MAGIC_BYTES), st.binary(max_size=7)), max_size=8).map(b"".join), min_size=1))
@settings(max_examples=60, deadline=None)
def test_any_payloads_come_back_and_scanning_finds_their_offsets(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes]
) -> None:
    rec = tmp_path_factory.mktemp("any") / "any.rec"
    with RecordWriter(rec) as writer:
        offsets = [writer.write(k, float(k), p) for k, p in enumerate(payloads)]
    with RecordReader(rec) as reader:
        assert [reader.at(o).payload for o in offsets] == payloads
        assert list(reader.scan()) == offsets


def test_many_labels_are_read_without_the_image(tmp_path: Path) -> None:
    labels = np.arange(50, dtype=np.float32)
    with RecordWriter(tmp_path / "labels.rec") as writer:
        offset = writer.write(0, labels, b"image")
    head = RecordReader(tmp_path / "labels.rec").head(offset)
    assert np.array_equal(head.label, labels)
    assert not head.bare


@pytest.mark.parametrize("offset", [-4, 10**9, 2**62])
def test_an_offset_outside_the_file_is_a_missing_record(written: tuple[Path, list[int]], offset: int) -> None:
    with pytest.raises(RecordMissingError, match="outside the file") as caught:
        RecordReader(written[0]).at(offset)
    assert caught.value.status is Status.MISSING
    assert str(written[0]) in str(caught.value)
    assert str(offset) in str(caught.value)


@pytest.mark.parametrize(
    ("place", "data", "message"),
    [
        (0, b"\0", "no magic word"),
        (7, b"\x80", "unknown flag 4"),
        (7, b"\x20", "at no multiple of four"),
        (7, b"\x60", "later part of a record"),
        (4, b"\x2f\0\0", "no record starts at"),
        (4, b"\x13", "no record starts at"),
        (4, b"\xff\xff\xff\x1f", "passes the end"),
        (8, b"\x09", "promises 9 labels"),
    ],
)
def test_damaged_framing_is_an_error_that_says_where_and_what(
    written: tuple[Path, list[int]], place: int, data: bytes, message: str
) -> None:
    rec, offsets = written
    damage(rec, place, data)
    reader = RecordReader(rec)
    with pytest.raises(RecordError, match=message) as caught:
        reader.at(0)
    assert caught.value.status is Status.RECORD_ERROR
    assert str(rec) in str(caught.value)
    assert "get the file again" in str(caught.value)
    assert [reader.at(o).payload for o in offsets[1:]] == PAYLOADS[1:]


def test_a_first_part_that_pretends_to_be_the_whole_is_an_error(written: tuple[Path, list[int]]) -> None:
    rec, offsets = written
    damage(rec, offsets[2] + 7, b"\x00")
    with pytest.raises(RecordError, match="no record starts"):
        RecordReader(rec).at(offsets[2])


def test_a_damaged_later_part_is_an_error_of_that_record_only(written: tuple[Path, list[int]]) -> None:
    rec, offsets = written
    damage(rec, offsets[2] + 8 + 24 + 12, b"\0\0\0\0")
    reader = RecordReader(rec)
    with pytest.raises(RecordError, match="no magic word"):
        reader.at(offsets[2])
    rest = [i for i in range(len(PAYLOADS)) if i != 2]
    assert [reader.at(offsets[i]).payload for i in rest] == [PAYLOADS[i] for i in rest]


def test_a_wiped_neighbour_does_no_harm_where_the_length_is_known(written: tuple[Path, list[int]]) -> None:
    rec, offsets = written
    damage(rec, offsets[1], bytes(8))
    reader = RecordReader(rec)
    assert reader.at(0, offsets[1]).payload == PAYLOADS[0]
    with pytest.raises(RecordError, match="no record starts"):
        reader.at(0)


@pytest.mark.parametrize("length", [1, 44, 48, 10**6, 2**31 - 1])
def test_a_wrong_length_does_no_harm(written: tuple[Path, list[int]], length: int) -> None:
    rec, offsets = written
    reader = RecordReader(rec)
    assert [reader.at(o, length).payload for o in offsets] == PAYLOADS


def test_a_torn_last_record_is_an_error_at_every_length(written: tuple[Path, list[int]]) -> None:
    rec, offsets = written
    whole = rec.read_bytes()
    for size in range(offsets[-1] + 1, len(whole)):
        rec.write_bytes(whole[:size])
        with RecordReader(rec) as reader:
            with pytest.raises(RecordError, match="torn"):
                reader.at(offsets[-1])
            assert reader.at(offsets[-2]).payload == PAYLOADS[-2]


def test_a_file_that_becomes_shorter_while_it_is_read_is_an_error(written: tuple[Path, list[int]]) -> None:
    rec, offsets = written
    reader = RecordReader(rec)
    assert reader.at(offsets[3]).payload == PAYLOADS[3]
    os.truncate(rec, offsets[3] + 100)
    with pytest.raises(RecordError, match="shorter"):
        reader.at(offsets[3])
    assert reader.at(0).payload == PAYLOADS[0]
    os.truncate(rec, offsets[3] + 20)
    with pytest.raises(RecordError, match="shorter"):
        reader.head(offsets[3])


@pytest.mark.parametrize(("wiped", "expected"), [(0, 7), (1, 7), (3, 7), (6, 7)])
def test_scanning_counts_a_record_without_its_magic_word(
    written: tuple[Path, list[int]], caplog: pytest.LogCaptureFixture, wiped: int, expected: int
) -> None:
    rec, offsets = written
    damage(rec, offsets[wiped], b"\0")
    with caplog.at_level(logging.WARNING):
        assert list(RecordReader(rec).scan()) == offsets[:expected]
    assert f"the first at offset {offsets[wiped]}" in caplog.text


def test_scanning_goes_on_behind_a_record_of_damaged_length(written: tuple[Path, list[int]]) -> None:
    rec, offsets = written
    damage(rec, offsets[3] + 4, b"\0\0\x01")
    assert list(RecordReader(rec).scan()) == offsets
    damage(rec, offsets[5] + 4, b"\xff\xff\xff\x1f")
    assert list(RecordReader(rec).scan()) == offsets


def test_a_reader_serves_threads_pickles_and_spawned_processes(written: tuple[Path, list[int]]) -> None:
    rec, offsets = written
    reader = RecordReader(rec)
    with ThreadPoolExecutor(8) as threads:
        assert [r.payload for r in threads.map(reader.at, offsets * 50)] == PAYLOADS * 50
    assert pickle.loads(pickle.dumps(reader)).at(0).payload == PAYLOADS[0]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert [r.payload for r in pool.map(reader.at, offsets)] == PAYLOADS
        with pytest.raises(RecordError, match="no magic word"):
            pool.apply(reader.at, (2,))


def test_a_forked_process_reads_with_the_open_reader(written: tuple[Path, list[int]]) -> None:
    rec, offsets = written
    reader = RecordReader(rec)
    assert reader.size > 0
    child = os.fork()
    if child == 0:
        os._exit(0 if reader.at(offsets[3]).payload == PAYLOADS[3] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert reader.at(offsets[3]).payload == PAYLOADS[3]


def test_a_closed_reader_opens_again_and_leaves_no_handle(written: tuple[Path, list[int]]) -> None:
    rec, offsets = written
    before = len(list(Path("/proc/self/fd").iterdir()))
    with RecordReader(rec) as reader:
        reader.at(0)
    assert reader.at(offsets[1]).payload == PAYLOADS[1]
    reader.close()
    reader.close()
    kept = RecordReader(rec)
    kept.at(0)
    del kept
    assert len(list(Path("/proc/self/fd").iterdir())) == before
