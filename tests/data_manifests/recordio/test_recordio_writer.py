"""The writer: MXNet's bytes, and never half a file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from data_manifests.recordio.record_file import RecordFile, RecordReader
from data_manifests.recordio.writer import RecordWriter, write_ms1mv2

if TYPE_CHECKING:
    from pathlib import Path


def write_all(writer: RecordWriter, records: list[tuple[int, float | list[float]]]) -> None:
    with writer:
        for key, label in records:
            writer.write(key, label, b"new")


@pytest.mark.parametrize("folder", ["oracles/recordio/with_header", "data/lfw112_natural", "data/lfw112_mixed"])
def test_what_mxnet_wrote_is_written_again_byte_for_byte(real_data: Path, tmp_path: Path, folder: str) -> None:
    source = RecordFile(real_data / folder / "train.rec")
    write_ms1mv2(tmp_path, ((identity, data) for _, identity, data in source.images()))
    for name in ("train.rec", "train.idx", "property"):
        assert (tmp_path / name).read_bytes() == (real_data / folder / name).read_bytes()


def test_single_records_are_copied_byte_for_byte(real_data: Path, tmp_path: Path) -> None:
    rec = real_data / "oracles/recordio/with_header/train.rec"
    reader = RecordReader(rec)
    with RecordWriter(tmp_path / "copy.rec") as writer:
        for line in rec.with_suffix(".idx").read_text().splitlines():
            key, offset = map(int, line.split("\t"))
            record = reader.at(offset)
            label = record.label if record.flag else float(record.label[0])
            assert writer.write(key, label, record.payload, record.id, record.id2) == offset
    assert (tmp_path / "copy.rec").read_bytes() == rec.read_bytes()
    assert (tmp_path / "copy.idx").read_bytes() == rec.with_suffix(".idx").read_bytes()


def test_files_appear_at_the_end_and_not_at_all_after_an_error(tmp_path: Path) -> None:
    rec = tmp_path / "deep" / "train.rec"
    with RecordWriter(rec) as writer:
        writer.write(0, 1.0, b"old")
        assert not rec.exists()
    replacement = RecordWriter(rec)
    with pytest.raises(ValueError, match="at least one label"):
        write_all(replacement, [(0, 1.0), (1, [])])
    assert sorted(p.name for p in rec.parent.iterdir()) == ["train.idx", "train.rec"]
    assert RecordFile(rec).read(0)[1] == b"old"


def test_records_larger_than_the_buffer_are_written(tmp_path: Path) -> None:
    payloads = [os.urandom(n) for n in (5_000_000, 3, 9_000_001, 0)]
    with RecordWriter(tmp_path / "large.rec", tmp_path / "elsewhere" / "large.txt") as writer:
        for key, payload in enumerate(payloads):
            writer.write(key, 0.0, payload)
    records = RecordFile(tmp_path / "large.rec", tmp_path / "elsewhere" / "large.txt")
    assert [data for _, _, data in records.images()] == payloads


@pytest.mark.parametrize("keys", [[3, 3], [3, 2], [-1], [2**31]])
def test_keys_must_ascend_and_fit_the_tables(tmp_path: Path, keys: list[int]) -> None:
    with pytest.raises(ValueError, match=f"the key {keys[-1]} must be larger"):
        write_all(RecordWriter(tmp_path / "k.rec"), [(key, 0.0) for key in keys])
    assert list(tmp_path.iterdir()) == []


def test_a_writer_outside_its_block_and_one_name_for_two_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside its with block"):
        RecordWriter(tmp_path / "a.rec").write(0, 0.0, b"")
    with pytest.raises(ValueError, match="two files"):
        RecordWriter(tmp_path / "a.rec", tmp_path / "a.rec")


@pytest.mark.parametrize("people", [[0, 1, 0], [-1], [2**24 + 1]])
def test_people_must_come_one_after_the_other(tmp_path: Path, people: list[int]) -> None:
    with pytest.raises(ValueError, match=f"image {len(people)}: identity {people[-1]} must be"):
        write_ms1mv2(tmp_path, [(p, b"x") for p in people])
    assert list(tmp_path.iterdir()) == []


def test_a_set_without_images_can_be_written_and_read(tmp_path: Path) -> None:
    records = write_ms1mv2(tmp_path, [], side=64)
    assert (len(records), len(records.index()), records.identities) == (0, 0, {})
    assert (tmp_path / "property").read_text() == "0,64,64"


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of a file stands in for the full disk: the system call fails in the same place."""
    script = f"""
import resource, signal
from data_manifests.recordio.writer import RecordWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with RecordWriter({str(tmp_path / "big.rec")!r}) as writer:
    for key in range(100):
        writer.write(key, 0.0, bytes(1 << 18))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert os.strerror(errno.EFBIG) in done.stderr
    assert list(tmp_path.iterdir()) == []
