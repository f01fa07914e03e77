"""Damaged RecordIO data sets: an error that says what and where, and no harm to what is sound."""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from data_manifests.recordio.format import MAGIC_BYTES
from data_manifests.recordio.record_file import RecordError, RecordFile, RecordMissingError
from data_manifests.recordio.writer import RecordWriter, write_ms1mv2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from data_manifests.recordio.record_file import RecordIndex

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


def edit_idx(rec: Path, change: Callable[[list[str]], list[str]]) -> None:
    idx = rec.with_suffix(".idx")
    idx.write_text("\n".join(change(idx.read_text().splitlines())) + "\n")


def test_a_damaged_identity_record_costs_nobody_the_identity(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = RecordFile(small).index()
    whole = small.read_bytes()
    offset = offsets_of(small)[8]
    label = offset + 8 + 24
    for place, data, images in [
        (offset, b"\0", 3),
        (offset + 8, b"\x07", 3),
        (label, struct.pack("<ff", 2.0, 4.0), 1),
        (label, struct.pack("<ff", 1.0, 6.0), 6),
        (label, struct.pack("<ff", 1.5, 4.0), 3),
        (label, struct.pack("<ff", float("nan"), float("inf")), 3),
        (label, struct.pack("<ff", -3e38, 3e38), 3),
        (label, struct.pack("<ff", 4.0, 1.0), 3),
    ]:
        caplog.clear()
        small.write_bytes(whole)
        overwrite(small, place, data)
        assert same_index(RecordFile(small).index(), plain)
        assert f"tells of {images} images; their own labels do" in caplog.text


def test_a_damaged_image_leaves_the_others_their_identity(small: Path) -> None:
    offset = offsets_of(small)[1]
    whole = small.read_bytes()
    overwrite(small, offset, b"\0")
    index = RecordFile(small).index()
    assert index.identities.tolist() == PEOPLE  # the next image of the range tells
    for value, own in [(float("nan"), 0), (77.0, 77), (2.0, 2)]:
        small.write_bytes(whole)
        overwrite(small, offset + 12, struct.pack("<f", value))
        assert RecordFile(small).index().identities.tolist() == [own, *PEOPLE[1:]]
    small.write_bytes(whole)
    overwrite(small, offsets_of(small)[4], b"\0")
    assert RecordFile(small).index().identities.tolist() == [0, 0, 0, -1, 2, 2, 5]
    errors: list[tuple[int, RecordError]] = []
    found = [k for k, _, _ in RecordFile(small).images(damaged=lambda k, e: errors.append((k, e)))]
    assert found == [1, 2, 3, 5, 6, 7]
    assert [k for k, _ in errors] == [4]
    with pytest.raises(RecordError, match=r"key 4: .*train\.rec.*no magic word.*get the file again"):
        list(RecordFile(small).images())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Empty"),
        ("\n\n", "no line"),
        ("0\t0\n1\tabc\n", "Row #2"),
        ("0\t0\n1\n", "Row #2: Expected 2 columns"),
        ("0\t0\n1\t40\t9\n", "Expected 2 columns"),
        ("0\t0\n1.5\t40\n", "Row #2"),
        ("0\t0\n\t40\n", "Row #2"),
        ("0\t0\n1\t40\n1\t80\n", "key 1 stands more than once"),
        ("0\t0\n-1\t40\n", "key -1"),
        (f"0\t0\n{2**31}\t40\n", "key 2147483648"),
        (f"0\t0\n1\t{10**30}\n", "Row #2"),
        ("\x00\x01\xff\n" * 9, "Row #1"),
        ("7" * 3_000_000, "not an index"),
    ],
)
def test_a_damaged_idx_is_an_error_that_names_line_and_remedy(small: Path, text: str, message: str) -> None:
    small.with_suffix(".idx").write_text(text, encoding="latin-1")
    with pytest.raises(RecordError, match=message) as caught:
        RecordFile(small).index()
    assert "train.idx" in str(caught.value)
    assert "remove it" in str(caught.value)


def test_lines_may_end_as_on_windows_and_the_last_without_any(small: Path) -> None:
    plain = RecordFile(small).index()
    idx = small.with_suffix(".idx")
    idx.write_bytes(idx.read_bytes().replace(b"\n", b"\r\n").rstrip())
    assert same_index(RecordFile(small).index(), plain)


@pytest.mark.parametrize("kept", [1, 5, 9, 11])
def test_a_header_that_promises_more_keys_than_there_are_is_an_error(small: Path, kept: int) -> None:
    edit_idx(small, lambda lines: lines[:kept])
    records = RecordFile(small)
    with pytest.raises(RecordError, match=f"images up to key 8 .* up to key 12.* has {kept} keys up to {kept}"):
        len(records)
    with pytest.raises(RecordError, match="belong to different files"):
        records.index()
    assert records.read(0)[0].tolist() == [8.0, 12.0]


def drop_records(small: Path, *keys: int) -> None:
    """Leave records out of a set, as a packer does with pictures that it cannot read."""
    places = [*offsets_of(small).items(), (-1, small.stat().st_size)]
    data, lines, kept = small.read_bytes(), [], b""
    for (key, start), (_, stop) in itertools.pairwise(places):
        if key not in keys:
            lines.append(f"{key}\t{len(kept)}\n")
            kept += data[start:stop]
    small.write_bytes(kept)
    small.with_suffix(".idx").write_text("".join(lines))


@pytest.mark.parametrize("with_idx", [True, False])
@pytest.mark.parametrize("lost", [(2,), (1, 6), (4, 5, 7), (1, 2, 3)])
def test_images_that_the_packer_left_out_cost_nobody_else_anything(
    small: Path, lost: tuple[int, ...], with_idx: bool, caplog: pytest.LogCaptureFixture
) -> None:
    drop_records(small, *lost)
    if not with_idx:
        small.with_suffix(".idx").unlink()
    kept = [key for key in range(1, 8) if key not in lost]
    records = RecordFile(small)
    assert records.keys.tolist() == kept
    assert records.index().identities.tolist() == [PEOPLE[key - 1] for key in kept]
    assert [records.read(key)[1] for key in kept] == [image_bytes(key) for key in kept]
    assert f"{len(lost)} of the 7 images that its header promises are not in it" in caplog.text


@pytest.mark.parametrize("with_idx", [True, False])
@pytest.mark.parametrize("lost", [(8,), (9,), (11,), (2, 11)])
def test_identity_records_are_not_left_out(small: Path, lost: tuple[int, ...], with_idx: bool) -> None:
    drop_records(small, *lost)
    if not with_idx:
        small.with_suffix(".idx").unlink()
    with pytest.raises(RecordError, match="the header record"):
        len(RecordFile(small))


@pytest.mark.parametrize(("images", "people"), [(3, 4), (4, 4), (3, 5), (5, 1), (6, 7)])
def test_keys_that_float32_rounds_are_compared_as_float32(tmp_path: Path, images: int, people: int) -> None:
    """The end of a set of over 2^24 records; keys before it are left out, since only their number would matter."""
    first = 2**24 + 5
    border, end = first + images, first + images + people
    with RecordWriter(tmp_path / "large.rec") as writer:
        writer.write(0, [float(np.float32(border)), float(np.float32(end))], b"")
        for number in range(images):
            writer.write(first + number, float(number), b"image")
        for number in range(people):
            writer.write(border + number, [float(first), float(first)], b"")
    records = RecordFile(tmp_path / "large.rec")
    assert records.keys.tolist() == list(range(first, border))
    assert records.index().identities.tolist() == list(range(images))


@pytest.mark.parametrize(
    "labels",
    [
        (3e38, 3e38),
        (8.0, 13.0),
        (8.5, 12.0),
        (0.0, 12.0),
        (-5.0, 12.0),
        (13.0, 12.0),
        (float("nan"), 12.0),
        (float("inf"), float("inf")),
    ],
)
def test_a_damaged_promise_is_an_error(small: Path, labels: tuple[float, float]) -> None:
    overwrite(small, 32, struct.pack("<ff", *labels))
    with pytest.raises(RecordError, match="the header record"):
        len(RecordFile(small))


@pytest.mark.parametrize(("place", "data"), [(0, b"\0"), (4, b"\xff\xff"), (8, b"\0"), (8, b"\x01"), (8, b"\xff")])
def test_an_unreadable_header_is_made_up_for_by_the_identity_records(
    small: Path, place: int, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    plain = RecordFile(small).index()
    overwrite(small, place, data)
    assert same_index(RecordFile(small).index(), plain)
    assert "the header record is damaged; the 4 records from key 8 on" in caplog.text
    overwrite(small, offsets_of(small)[9], b"\0")
    overwrite(small, offsets_of(small)[11], b"\0")
    damaged_tail = RecordFile(small).index()
    assert damaged_tail.keys.tolist()[:7] == plain.keys.tolist()
    assert damaged_tail.identities.tolist()[:7] == PEOPLE


def test_an_unreadable_first_image_stays_an_image(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "p.rec") as writer:
        for key in range(4):
            writer.write(key, 2.0, b"data")
    overwrite(tmp_path / "p.rec", 0, b"\0")
    index = RecordFile(tmp_path / "p.rec").index()
    assert index.keys.tolist() == [0, 1, 2, 3]
    assert index.identities.tolist() == [-1, 2, 2, 2]


@pytest.mark.parametrize("with_idx", [True, False])
def test_an_empty_file_is_an_error_or_missing_records(small: Path, with_idx: bool) -> None:
    small.write_bytes(b"")
    if with_idx:
        with pytest.raises(RecordMissingError, match="outside the file of 0 bytes"):
            RecordFile(small).read(3)
        assert not RecordFile(small).index().lengths.any()
    else:
        small.with_suffix(".idx").unlink()
        with pytest.raises(RecordError, match="empty; get it again"):
            len(RecordFile(small))


def test_every_single_damaged_byte_is_an_error_of_its_own_record_only(small: Path) -> None:
    whole = small.read_bytes()
    offsets = offsets_of(small)
    with RecordFile(small) as records:
        sound = {k: (label.tolist(), data) for k, (label, data) in ((k, records.read(k)) for k in offsets)}
    starts = [*offsets.values(), len(whole)]
    caught = 0
    for place in range(len(whole)):
        mine = int(np.searchsorted(starts, place, side="right")) - 1
        for flip in (0x01, 0x20, 0xFF):
            overwrite(small, place, bytes([whole[place] ^ flip]))
            with RecordFile(small) as records:
                for key in offsets:
                    if key != mine:
                        label, data = records.read(key)
                        assert (label.tolist(), data) == sound[key], (place, flip, key)
                try:
                    records.read(mine)
                except RecordError:
                    caught += 1
        overwrite(small, place, whole[place : place + 1])
    framing = sum(1 for k in offsets for _ in range(8))
    assert caught > framing * 2
