"""The synthetic MS1MV2: the true layout at any size, and the same bytes for the same seed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.make_ms1mv2 import draw, main
from data_manifests.manifest import load_manifest
from data_manifests.recordio.format import MAGIC_BYTES
from data_manifests.recordio.record_file import RecordError, RecordFile
from data_manifests.recordio.writer import write_ms1mv2
from labelers.faces import decode_batch
from pipeline.stages.index import index_images

if TYPE_CHECKING:
    from pathlib import Path

IMAGES, PEOPLE = 500, 23


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Images of all lengths modulo four, and one that the framing has to cut in two."""
    payloads = [bytes(range(1, 20 + n)) for n in range(6)] + [b"abcd" + MAGIC_BYTES + b"efg"]
    write_ms1mv2(tmp_path / "pool", enumerate(payloads))
    return tmp_path / "pool" / "train.rec"


def make(folder: Path, pool: Path, *more: str) -> RecordFile:
    words = ["--output", str(folder), "--images", str(IMAGES), "--identities", str(PEOPLE), "--pool", str(pool)]
    main([*words, *more])
    return RecordFile(folder / "train.rec")


def test_every_record_reads_back(tmp_path: Path, pool: Path) -> None:
    records = make(tmp_path / "made", pool)
    images = list(records.images())
    payloads = {payload for _, _, payload in RecordFile(pool).images()}
    assert [key for key, _, _ in images] == list(range(1, IMAGES + 1))
    assert {payload for _, _, payload in images} == payloads
    header, nothing = records.read(0)
    assert (header.tolist(), nothing) == ([IMAGES + 1, IMAGES + 1 + PEOPLE], b"")
    owners = Counter(identity for _, identity, _ in images)
    assert sorted(owners) == list(range(PEOPLE))
    assert {who: len(keys) for who, keys in records.identities.items()} == owners
    for who, keys in records.identities.items():
        assert records.read(IMAGES + 1 + who)[0].tolist() == [keys.start, keys.stop]
    assert (tmp_path / "made" / "property").read_bytes() == b"%d,112,112" % PEOPLE


def test_the_manifest_beside_it_fits_it(tmp_path: Path, pool: Path) -> None:
    make(tmp_path / "made", pool, "--name", "tiny")
    manifest = load_manifest(tmp_path / "made" / "tiny.toml")
    assert (manifest.images, manifest.identities) == (IMAGES, PEOPLE)
    assert index_images(manifest).table.num_rows == IMAGES


def test_the_seed_alone_decides_the_bytes(tmp_path: Path, pool: Path) -> None:
    for name, seed in (("one", "5"), ("two", "5"), ("other", "6")):
        make(tmp_path / name, pool, "--seed", seed)
    for name in ("train.rec", "train.idx", "property"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "one" / "train.rec").read_bytes() != (tmp_path / "other" / "train.rec").read_bytes()


def test_without_pixels_the_index_is_the_same(tmp_path: Path, pool: Path) -> None:
    full, holes = make(tmp_path / "full", pool), make(tmp_path / "holes", pool, "--without-pixels")
    for name in ("train.idx", "property"):
        assert (tmp_path / "full" / name).read_bytes() == (tmp_path / "holes" / name).read_bytes()
    for column in ("keys", "identities", "offsets", "lengths"):
        np.testing.assert_array_equal(getattr(full.index(), column), getattr(holes.index(), column))
    assert holes.rec.stat().st_size == full.rec.stat().st_size


def test_without_pixels_no_image_is_made_up(tmp_path: Path, pool: Path) -> None:
    full, holes = make(tmp_path / "full", pool), make(tmp_path / "holes", pool, "--without-pixels")
    ends = {key for keys in full.identities.values() for key in (keys.start, keys.stop - 1)}
    for key in range(1, IMAGES + 1):
        if key in ends:
            assert holes.read(key)[1] == full.read(key)[1]
        else:
            with pytest.raises(RecordError, match="no magic word"):
                holes.read(key)


def test_real_faces_decode(tmp_path: Path, real_data: Path) -> None:
    records = make(tmp_path, real_data / "data" / "lfw112_natural" / "train.rec")
    stored = [payload for _, _, payload in records.images(range(1, 33))]
    faces, status = decode_batch(np.arange(32), np.zeros(32, np.int32), stored)
    assert len(faces) == 32
    assert set(status) == {"ok"}


def test_people_have_as_many_images_as_asked_and_differ() -> None:
    counts = draw(20_000, 300, 7, seed=3).counts
    assert (counts.sum(), len(counts)) == (20_000, 300)
    assert counts.min() >= 1
    assert counts.max() > 4 * np.median(counts) > counts.min()
    assert draw(9, 9, 1, seed=3).counts.tolist() == [1] * 9


@pytest.mark.parametrize(("images", "people"), [("5", "6"), ("16777216", "1")])
def test_what_the_layout_cannot_hold_is_refused(tmp_path: Path, pool: Path, images: str, people: str) -> None:
    words = ["--output", str(tmp_path), "--images", images, "--identities", people, "--pool", str(pool)]
    with pytest.raises(SystemExit, match="at least one image a person"):
        main(words)
