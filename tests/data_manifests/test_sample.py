"""The embedded sample: what is in it, that it comes out the same, and that it is whole or absent."""

from __future__ import annotations

import collections
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_manifests import sample
from data_manifests.alignment import ARCFACE_TEMPLATE, similarity_transform
from data_manifests.damage import Damage
from data_manifests.recordio.record_file import RecordFile
from data_manifests.sample import SampleError, draw_images, make_sample, read_photo
from data_manifests.storage.toml_file import read_toml

FILES = ("train.rec", "train.idx", "property", "sources.tsv", "sample.json")
ASTRONAUT = ("skimage", "data/astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample; only to be read."""
    folder = tmp_path_factory.mktemp("sample") / "deep" / "source"
    make_sample(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_sources(folder: Path) -> list[list[str]]:
    return [line.split("\t") for line in (folder / "sources.tsv").read_text().splitlines()]


def only_the_sample_is_left(folder: Path) -> bool:
    return {path.name for path in folder.parent.iterdir()} <= {folder.name, f".{folder.name}.lock"}


def test_eight_people_with_32_images_each(made: Path) -> None:
    records = RecordFile(made / "train.rec")
    images = list(records.images())
    assert [key for key, _, _ in images] == list(range(1, 257))
    assert collections.Counter(identity for _, identity, _ in images) == dict.fromkeys(range(8), 32)
    assert len({hashlib.sha256(encoded).digest() for _, _, encoded in images}) == 256
    for _, _, encoded in images:
        picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (112, 112, 3)
    assert (made / "property").read_text() == "8,112,112"
    assert {path.name for path in made.iterdir()} == set(FILES)


def test_sources_say_what_was_done(made: Path) -> None:
    header, *rows = read_sources(made)
    assert header == ["key", "identity", "source", "degradations"]
    records = RecordFile(made / "train.rec")
    assert [(int(key), int(identity)) for key, identity, _, _ in rows] == [(k, i) for k, i, _ in records.images()]
    damages = [json.loads(text) for *_, text in rows]
    assert {kind for damage in damages for kind, _ in damage} == {kind.value for kind in Damage}
    assert all(0.1 <= severity <= 1.0 for damage in damages for _, severity in damage)
    counts = collections.Counter(map(len, damages))
    assert counts.keys() == {0, 1, 2}
    assert 80 <= counts[0] <= 125
    assert 20 <= counts[2] <= 60
    for identity in range(8):
        assert 5 <= sum(not d for d in damages[32 * identity : 32 * identity + 32]) <= 22


def test_what_is_drawn_is_pinned() -> None:
    """Persons, kinds and strengths depend on no library but NumPy; whoever changes them raises VERSION, and this."""
    drawn = json.dumps([(i.identity, i.photo, i.damages) for i in draw_images()])
    assert sample.VERSION == 2
    assert (
        hashlib.sha256(drawn.encode()).hexdigest() == "d18253ae8c3768053bee73c9bb5f80a97ee65398f1a70cc68561fe7294a8d7d2"
    )


MEANS = [
    [187.0, 132.2, 94.1],
    [187.6, 142.9, 112.4],
    [172.8, 130.4, 100.5],
    [138.1, 98.4, 72.6],
    [171.2, 150.5, 125.3],
    [195.0, 158.4, 121.4],
    [111.9, 111.9, 111.9],
    [157.8, 133.9, 107.7],
]


def test_pixels_are_pinned_loosely() -> None:
    """Mean colour of every person's first image, which another JPEG decoder moves by less than a level."""
    images = list(draw_images())
    means = [
        cv2.imdecode(np.frombuffer(image.encoded, np.uint8), cv2.IMREAD_COLOR_RGB).reshape(-1, 3).mean(axis=0)
        for image in images[::32]
    ]
    np.testing.assert_allclose(means, MEANS, atol=1.0)


def test_two_makings_give_the_same_bytes_and_times(made: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(made)
    for name in FILES:
        assert (tmp_path / "again" / name).stat().st_mtime_ns == (made / name).stat().st_mtime_ns


def test_a_second_call_does_nothing(made: Path) -> None:
    before = {path: path.stat().st_ino for path in made.iterdir()}
    make_sample(made)
    assert {path: path.stat().st_ino for path in made.iterdir()} == before


@pytest.mark.parametrize("name", ["train.rec", "train.idx", "property", "sources.tsv"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_damaged_sample_is_made_anew(name: str, how: str, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    make_sample(folder)
    content = (folder / name).read_bytes()
    if how == "gone":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content[:-1] if how == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    make_sample(folder)
    assert contents(folder) == contents(made)
    assert only_the_sample_is_left(folder)


@pytest.mark.parametrize("stamp", [b"", b"[]", b"{}", b'{"version": 1, "sha256": "0"}', b"\xff\xfe"])
def test_another_stamp_is_not_taken_for_this_one(stamp: bytes, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    make_sample(folder)
    (folder / "sample.json").write_bytes(stamp)
    make_sample(folder)
    assert contents(folder) == contents(made)


def test_a_new_version_replaces_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "s"
    make_sample(folder)
    old = (folder / "train.rec").stat().st_ino
    monkeypatch.setattr(sample, "VERSION", 3)
    make_sample(folder)
    assert (folder / "train.rec").stat().st_ino != old
    assert json.loads((folder / "sample.json").read_text())["version"] == 3


def test_data_of_others_are_left_alone(tmp_path: Path) -> None:
    """A manifest called `sample` may point at anything, such as MS1MV2 with the very same file names."""
    for name in ("train.rec", "train.idx", "property"):
        (tmp_path / name).write_bytes(b"years of work")
    with pytest.raises(SampleError, match=r"holds files that are not the embedded sample: move them away"):
        make_sample(tmp_path)
    assert contents(tmp_path) == dict.fromkeys(("train.rec", "train.idx", "property"), b"years of work")


def test_an_empty_folder_is_filled(tmp_path: Path, made: Path) -> None:
    (tmp_path / "s").mkdir()
    make_sample(tmp_path / "s")
    assert contents(tmp_path / "s") == contents(made)


KILLED = """
import os, sys
from pathlib import Path
from data_manifests import sample

write = sample.write_atomically
def die(path, *args):
    if path.name == sys.argv[2]:
        os._exit(9)
    write(path, *args)

sample.write_atomically = die
sample.make_sample(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("name", ["sources.tsv", "sample.json"])
def test_a_making_that_was_killed_is_never_seen(name: str, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    died = subprocess.run([sys.executable, "-c", KILLED, str(folder), name], check=False, timeout=60)
    assert died.returncode == 9
    assert not folder.exists()
    assert not only_the_sample_is_left(folder)
    make_sample(folder)
    assert contents(folder) == contents(made)
    assert only_the_sample_is_left(folder)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "s"
    make_sample(folder)
    before = contents(folder)
    monkeypatch.setattr(sample, "VERSION", 3)
    monkeypatch.setattr(sample, "write_ms1mv2", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_sample(folder)
    assert contents(folder) == before
    assert only_the_sample_is_left(folder)


def test_several_at_once_make_one(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=make_sample, args=(folder,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert contents(folder) == contents(made)
    assert only_the_sample_is_left(folder)


def test_another_photo_is_named_with_the_remedy() -> None:
    with pytest.raises(
        SampleError, match=r"astronaut\.png is another photo than .* run `rm -r .venv && make setup`.*skimage"
    ):
        read_photo(*ASTRONAUT[:2], "0" * 64)
    with pytest.raises(SampleError, match=r"gone\.png is missing.* run `rm -r .venv && make setup`"):
        read_photo("skimage", "data/gone.png", ASTRONAUT[2])
    with pytest.raises(SampleError, match=r"the package no_such_package.* is missing: run `rm -r .venv && make setup`"):
        read_photo("no_such_package", "a.png", ASTRONAUT[2])


def test_a_photo_is_rgb() -> None:
    """The astronaut wears an orange suit."""
    red, _, blue = read_photo(*ASTRONAUT)[400:, 100:400].reshape(-1, 3).mean(axis=0)
    assert red > 1.5 * blue


def test_landmarks_are_in_the_order_of_the_template() -> None:
    photos = read_toml(sample._FACES)["photos"]
    faces = [np.array(face) for photo in photos for face in photo["faces"]]
    assert len(faces) == 8
    for left_eye, right_eye, _, left_mouth, right_mouth in faces:
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < min(left_mouth[1], right_mouth[1])
    aligned = [face @ (m := similarity_transform(face))[:, :2].T + m[:, 2] for face in faces]
    # A profile lies farthest from the frontal template, by 14 pixels; wrong landmarks by more.
    assert all(np.abs(points - ARCFACE_TEMPLATE).max() < 15 for points in aligned)


def test_importing_it_brings_no_detector() -> None:
    code = "import sys; from data_manifests import sample; list(sample.draw_images()); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(sample.__file__).parents[1])}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert not {"mediapipe", "insightface", "skimage", "onnxruntime", "torch"} & set(ran.stdout.split())
