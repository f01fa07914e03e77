"""Whole RecordIO data sets: what MXNet wrote, every layout in use, and what damage does to them."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest

from data_manifests.recordio.format import MAGIC_BYTES
from data_manifests.recordio.record_file import RecordError, RecordFile, RecordIndex, RecordMissingError, RecordReader
from data_manifests.recordio.writer import RecordWriter, write_ms1mv2
from data_manifests.tables.stages import Status

if TYPE_CHECKING:
    from pathlib import Path

PEOPLE = [0, 0, 0, 1, 2, 2, 5]
"""The identities of the small set's images; key 1 is the first."""


def image_bytes(key: int) -> bytes:
    return b"image %d " % key * 4 + (MAGIC_BYTES if key == 3 else b"")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A set of seven images of four people in MS1MV2's layout."""
    write_ms1mv2(tmp_path, ((p, image_bytes(k)) for k, p in enumerate(PEOPLE, 1)))
    return tmp_path / "train.rec"


def offsets_of(rec: Path) -> dict[int, int]:
    lines = rec.with_suffix(".idx").read_text().splitlines()
    return {int(k): int(o) for k, o in (line.split("\t") for line in lines)}


def overwrite(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


def same_index(a: RecordIndex, b: RecordIndex) -> bool:
    names = ("keys", "identities", "offsets", "lengths")
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)


# ---- what MXNet wrote


def test_every_record_of_the_oracle_is_read(real_data: Path) -> None:
    folder = real_data / "oracles/recordio/with_header"
    expected = json.loads((folder / "expected.json").read_text())
    with RecordFile(folder / "train.rec") as records:
        assert len(records) == len(expected["images"]) == 200
        assert records.keys.tolist() == [image["key"] for image in expected["images"]]
        for image, (key, identity, data) in zip(expected["images"], records.images(), strict=True):
            assert (key, identity) == (image["key"], image["label"])
            assert len(data) == image["nbytes"]
            assert hashlib.sha256(data).hexdigest() == image["sha256"]
            assert records.read(key)[0].tolist() == [image["label"]]
        for other in [*expected["identities"], expected["header"]]:
            label, payload = records.read(other["key"])
            assert (label.tolist(), payload, label.dtype) == (other["label"], b"", np.float32)
        assert records.identities == {
            i["class"]: range(int(i["label"][0]), int(i["label"][1])) for i in expected["identities"]
        }


@pytest.mark.parametrize("name", ["lfw112_mixed", "lfw112_natural"])
def test_the_real_sets_agree_with_their_own_list(real_data: Path, name: str) -> None:
    rec = real_data / "data" / name / "train.rec"
    rows = [line.split("\t") for line in (rec.parent / "sources.tsv").read_text().splitlines()]
    truth = {int(r[0]): int(r[1]) for r in rows if r[0].isdigit()}
    with RecordFile(rec) as records:
        index = records.index()
        assert (len(records), len(index), index.people, len(records.identities)) == (10_743, 10_743, 4_658, 4_658)
        assert dict(zip(index.keys.tolist(), index.identities.tolist(), strict=True)) == truth
        assert [(k, i) for k, i, _ in records.images()] == sorted(truth.items())
        assert all(data[:2] == b"\xff\xd8" for _, _, data in records.images(range(5000, 5100)))
        assert index.offsets[-1] + index.lengths[-1] == offsets_of(rec)[10_744]
    assert (index.keys.dtype, index.identities.dtype, index.offsets.dtype, index.lengths.dtype) == (
        np.int32, np.int32, np.int64, np.int32,
    )  # fmt: skip


def test_without_its_idx_a_real_set_gives_the_same_index(real_data: Path, tmp_path: Path) -> None:
    rec = real_data / "oracles/recordio/with_header/train.rec"
    (tmp_path / "train.rec").symlink_to(rec)
    alone = RecordFile(tmp_path / "train.rec")
    assert alone.idx is None
    assert same_index(alone.index(), RecordFile(rec).index())


# ---- layouts


def test_the_small_set_is_read(small: Path) -> None:
    records = RecordFile(small)
    assert records.keys.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert records.identities == {0: range(1, 4), 1: range(4, 5), 2: range(5, 7), 5: range(7, 8)}
    assert list(records.images()) == [(k, p, image_bytes(k)) for k, p in enumerate(PEOPLE, 1)]
    assert [k for k, _, _ in records.images(range(3, 6))] == [3, 4, 5]
    assert list(records.images(range(90, 99))) == []
    with pytest.raises(ValueError, match="step 1"):
        list(records.images(range(1, 7, 2)))
    index = records.index()
    assert index.people == 4
    reader = RecordReader(small)
    found = [reader.at(o, n).payload for o, n in zip(index.offsets.tolist(), index.lengths.tolist(), strict=True)]
    assert found == [image_bytes(k) for k in range(1, 8)]


@pytest.mark.parametrize("with_idx", [True, False])
@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("first", [0, 10])
def test_a_set_without_header_is_images_from_the_first_key_on(
    tmp_path: Path, several: bool, with_idx: bool, first: int
) -> None:
    rec = tmp_path / "plain.rec"
    with RecordWriter(rec) as writer:
        for key, person in enumerate(PEOPLE, first):
            writer.write(key, (float(person), 0.5, 0.25) if several else float(person), image_bytes(key))
    if not with_idx:
        rec.with_suffix(".idx").unlink()
        first = 0
    records = RecordFile(rec)
    assert records.keys.tolist() == list(range(first, first + len(PEOPLE)))
    assert records.index().identities.tolist() == PEOPLE
    assert records.identities[2] == range(first + 4, first + 6)
    assert [i for _, i, _ in records.images()] == PEOPLE
    label, _ = records.read(first + 6)
    assert label.tolist() == ([5.0, 0.5, 0.25] if several else [5.0])


def test_shuffled_people_are_told_by_the_index_but_have_no_ranges(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "s.rec") as writer:
        for key, person in enumerate([3, 1, 3]):
            writer.write(key, float(person), b"x")
    records = RecordFile(tmp_path / "s.rec")
    assert records.index().identities.tolist() == [3, 1, 3]
    with pytest.raises(RecordError, match="identity 3 do not lie side by side"):
        _ = records.identities


def test_labels_that_are_no_identity_are_unknown_people(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "odd.rec") as writer:
        for key, label in enumerate([float("nan"), 0.5, -3.0, 4.0]):
            writer.write(key, label, b"x")
    records = RecordFile(tmp_path / "odd.rec")
    assert records.index().identities.tolist() == [-1, -1, -1, 4]
    assert [i for _, i, _ in records.images()] == [-1, -1, -1, 4]
    assert records.index().people == 1
    assert records.identities == {4: range(3, 4)}


def test_the_idx_may_stand_elsewhere_in_any_order_with_gaps(small: Path, tmp_path: Path) -> None:
    plain = RecordFile(small).index()
    idx = small.with_suffix(".idx")
    moved = tmp_path / "other.txt"
    moved.write_text("\n".join(idx.read_text().splitlines()[::-1]))
    idx.unlink()
    assert same_index(RecordFile(small, moved).index(), plain)
    with RecordWriter(tmp_path / "gaps.rec") as writer:
        for key in (4, 9, 700):
            writer.write(key, 1.0, b"%d" % key)
    records = RecordFile(tmp_path / "gaps.rec")
    assert records.keys.tolist() == [4, 9, 700]
    assert records.identities == {1: range(4, 701)}
    assert records.read(700)[1] == b"700"
    for key in (5, -1, 701, 2**40):
        with pytest.raises(RecordMissingError, match=f"no record has the key {key}"):
            records.read(key)


def test_a_missing_file_is_named(small: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.rec"):
        RecordFile(small.with_name("nothing.rec"))
    with pytest.raises(FileNotFoundError, match=r"nothing\.idx"):
        RecordFile(small, small.with_name("nothing.idx"))


# ---- the index


def test_lengths_reach_to_the_next_larger_offset(small: Path) -> None:
    offsets = offsets_of(small)
    index = RecordFile(small).index()
    assert index.offsets.tolist() == [offsets[k] for k in range(1, 8)]
    assert index.lengths.tolist() == [offsets[k + 1] - offsets[k] for k in range(1, 8)]
    small.with_suffix(".idx").write_text(f"0\t{offsets[3]}\n1\t{offsets[2]}\n2\t{offsets[3]}\n3\t999999\n4\t-8\n")
    bare = RecordFile(small).index()
    end = small.stat().st_size
    assert bare.lengths.tolist() == [
        end - offsets[3], offsets[3] - offsets[2], end - offsets[3], 0, 0,
    ]  # fmt: skip
    assert bare.identities.tolist() == [0, 0, 0, -1, -1]
    for key in (3, 4):
        with pytest.raises(RecordMissingError, match=f"key {key}: .*outside the file") as caught:
            RecordFile(small).read(key)
        assert caught.value.status is Status.MISSING


def test_lengths_do_not_depend_on_the_order_of_the_records(tmp_path: Path) -> None:
    rec = tmp_path / "shuffled.rec"
    with RecordWriter(rec) as writer:
        offsets = [writer.write(k, 0.0, bytes(k * 8)) for k in range(6)]
    order = [4, 1, 5, 0, 3, 2]
    rec.with_suffix(".idx").write_text("".join(f"{key}\t{offsets[row]}\n" for key, row in enumerate(order)))
    records = RecordFile(rec)
    assert records.index().lengths.tolist() == [32 + row * 8 for row in order]
    assert [len(data) for _, _, data in records.images()] == [row * 8 for row in order]


def test_the_index_reads_no_image(small: Path) -> None:
    plain = RecordFile(small).index()
    for key, offset in offsets_of(small).items():
        if key in (1, 2, 4, 5, 6, 7):
            overwrite(small, offset + 8 + 24, b"\xff" * len(image_bytes(key)))
    assert same_index(RecordFile(small).index(), plain)


# ---- life cycle


def test_nothing_but_paths_is_pickled_and_spawned_processes_read(small: Path) -> None:
    records = RecordFile(small)
    before = len(pickle.dumps(records))
    records.index()
    assert len(pickle.dumps(records)) == before < 500
    copy = pickle.loads(pickle.dumps(records))
    assert same_index(copy.index(), records.index())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        label, data = pool.apply(records.read, (5,))
        assert (label.tolist(), data) == ([2.0], image_bytes(5))
        assert same_index(pool.apply(records.index), records.index())
        with pytest.raises(RecordMissingError, match="no record has the key 77"):
            pool.apply(records.read, (77,))


def test_a_closed_file_forgets_what_it_read(small: Path) -> None:
    with RecordFile(small) as records:
        assert len(records) == 7
        assert len(records.identities) == 4
    write_ms1mv2(small.parent, [(3, b"only one")])
    assert len(records) == 1
    assert records.identities == {3: range(1, 2)}
    assert records.read(1)[1] == b"only one"


def test_a_set_beside_no_idx_is_said_to_be_scanned(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = RecordFile(small).index()
    small.with_suffix(".idx").unlink()
    with caplog.at_level(logging.INFO):
        assert same_index(RecordFile(small).index(), plain)
    assert "no .idx beside it" in caplog.text
