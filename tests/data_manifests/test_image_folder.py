"""Folders of photos: order, people, links, odd names, and files that are gone."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import pickle
import stat
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_manifests.image_folder import (
    MAX_BYTES,
    SUFFIXES,
    ImageFileError,
    ImageFileTooLargeError,
    ImageFolder,
    ImageFolderError,
)
from data_manifests.tables.stages import Status


def make(root: Path, *paths: str) -> ImageFolder:
    """A folder of files whose content is their own path."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return ImageFolder(root)


def test_one_folder_is_one_person_and_keys_follow_the_sorted_paths(tmp_path: Path) -> None:
    folder = make(tmp_path, "b/2.jpg", "b/1.png", "a/9.jpg", "a/10.jpg", "c/x.bmp")
    assert folder.paths == ("a/10.jpg", "a/9.jpg", "b/1.png", "b/2.jpg", "c/x.bmp")
    assert folder.keys.tolist() == [1, 2, 3, 4, 5]
    assert folder.identities.tolist() == [0, 0, 1, 1, 2]
    assert folder.names == {0: "a", 1: "b", 2: "c"}
    assert folder.lengths.tolist() == [len(p) for p in folder.paths]
    assert len(folder) == 5
    assert {folder.keys.dtype, folder.identities.dtype, folder.lengths.dtype} == {np.dtype(np.int32)}
    assert [folder.read(p) for p in folder.paths] == [p.encode() for p in folder.paths]


def test_names_are_sorted_by_their_bytes(tmp_path: Path) -> None:
    folder = make(tmp_path, "a/1.jpg", "a-b/1.jpg", "B/1.jpg", "é/1.jpg", "z/1.jpg", "\U0001f600/1.jpg", "\uffee/1.jpg")
    assert list(folder.paths) == sorted(folder.paths, key=os.fsencode)
    assert list(folder.paths)[:3] == ["B/1.jpg", "a-b/1.jpg", "a/1.jpg"]
    assert list(folder.names.values()) == ["B", "a", "a-b", "z", "é", "\uffee", "\U0001f600"]
    assert folder.identities.tolist() == [0, 2, 1, 3, 4, 5, 6]


def test_folders_of_numbers_are_numbered_by_value(tmp_path: Path) -> None:
    names = ["-", "02", "9999999999999999999", "a", "²"]
    folder = make(tmp_path, *(f"{name}/1.jpg" for name in (*map(str, range(12)), *names)))
    assert list(folder.paths) == sorted(folder.paths, key=os.fsencode)
    assert list(folder.names.values())[:5] == ["0", "1", "02", "2", "3"]
    assert list(folder.names.values())[11:] == ["10", "11", "9999999999999999999", "-", "a", "²"]
    for path, identity in zip(folder.paths, folder.identities.tolist(), strict=True):
        assert folder.names[identity] == path.split("/")[0]


@given(
    st.sets(
        st.lists(st.text("aB-_.é 0", min_size=1, max_size=4).filter(lambda n: n[0] != "."), min_size=1, max_size=3)
        .map("/".join)
        .map("{}.jpg".format),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None)
def test_any_tree_is_listed_once_and_people_are_the_first_folders(paths: set[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = make(Path(place), *paths)
        assert list(folder.paths) == sorted(paths, key=os.fsencode)
        for path, identity in zip(folder.paths, folder.identities.tolist(), strict=True):
            assert identity == -1 if "/" not in path else folder.names[identity] == path.split("/")[0]


def test_a_person_is_the_folder_below_the_root_however_deep_the_image(tmp_path: Path) -> None:
    folder = make(tmp_path, "anna/2019/summer/1.jpg", "anna/2.jpg", "ben/x/3.jpg")
    assert folder.identities.tolist() == [0, 0, 1]


def test_images_in_the_root_show_unknown_people(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain", "1.jpg", "2.jpg")
    assert (plain.identities.tolist(), plain.names, plain.keys.tolist()) == ([-1, -1], {}, [1, 2])
    mixed = make(tmp_path / "mixed", "a/1.jpg", "stray.jpg", "z/1.jpg")
    assert mixed.identities.tolist() == [0, -1, 1]


def test_only_images_count_in_any_case_and_hidden_ones_do_not(tmp_path: Path) -> None:
    folder = make(
        tmp_path, "a/1.JPG", "a/2.Jpeg", "a/3.PNG", "a/4.bmp", "a/5.webp", "a/6.txt", "a/7.jpg.part", "a/jpg",
        "a/.hidden.jpg", ".thumbs/1.jpg", "a/._1.jpg", "empty/notes.txt",
    )  # fmt: skip
    assert folder.paths == ("a/1.JPG", "a/2.Jpeg", "a/3.PNG", "a/4.bmp", "a/5.webp")
    assert folder.names == {0: "a"}
    assert set(SUFFIXES) == {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def test_folders_of_systems_are_no_people_and_hold_no_photos(tmp_path: Path) -> None:
    folder = make(
        tmp_path, "a/1.jpg", "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_XL.jpg", "#recycle/1.jpg", "@Recycle/b/1.jpg",
        "$RECYCLE.BIN/S-1-5/1.jpg", "System Volume Information/1.jpg", "lost+found/1.jpg", "__MACOSX/a/1.jpg",
        "@anna/1.jpg", "#1/1.jpg", "recycle/1.jpg",
    )  # fmt: skip
    assert folder.paths == ("#1/1.jpg", "@anna/1.jpg", "a/1.jpg", "recycle/1.jpg")


def test_a_folder_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    assert make(tmp_path, "anna.jpg/1.jpg").paths == ("anna.jpg/1.jpg",)


def test_links_are_followed_and_loops_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path / "elsewhere", "far/1.jpg")
    root = tmp_path / "root"
    make(root, "zoe/1.jpg", "zoe/deep/2.jpg")
    (root / "far").symlink_to(tmp_path / "elsewhere" / "far")
    (root / "alias").symlink_to(root / "zoe")
    (root / "zoe" / "up").symlink_to(root)
    (root / "zoe" / "self").symlink_to("self")
    (root / "zoe" / "self.jpg").symlink_to("self.jpg")
    (root / "zoe" / "3.jpg").symlink_to(root / "zoe" / "1.jpg")
    folder = ImageFolder(root)
    with caplog.at_level(logging.WARNING):
        assert folder.paths == ("far/1.jpg", "zoe/1.jpg", "zoe/3.jpg", "zoe/deep/2.jpg", "zoe/self.jpg")
    assert "alias: left out" in caplog.text
    assert "up: left out" in caplog.text
    assert folder.read("zoe/3.jpg") == b"zoe/1.jpg"
    with pytest.raises(ImageFileError):
        folder.read("zoe/self.jpg")


def test_links_that_multiply_are_listed_once(tmp_path: Path) -> None:
    """Twenty levels of two links each would be a million folders."""
    for level in range(20):
        (tmp_path / f"d{level}").mkdir()
        for name in "xy":
            (tmp_path / f"d{level}" / name).symlink_to(tmp_path / f"d{level + 1}")
    folder = make(tmp_path, "d20/1.jpg")
    started = time.process_time()
    assert folder.paths == ("d20/1.jpg",)
    assert time.process_time() - started < 2


def test_a_file_that_is_gone_or_leads_nowhere_is_missing_when_read(tmp_path: Path) -> None:
    folder = make(tmp_path, "a/1.jpg", "a/2.jpg")
    (tmp_path / "a/3.jpg").symlink_to("nowhere.jpg")
    assert folder.paths == ("a/1.jpg", "a/2.jpg", "a/3.jpg")
    assert folder.lengths.tolist() == [7, 7, 0]
    (tmp_path / "a/2.jpg").unlink()
    (tmp_path / "a/1.jpg").unlink()
    (tmp_path / "a/1.jpg").mkdir()
    for path in folder.paths:
        with pytest.raises(ImageFileError, match=f"{path}: .*; bring the file back") as caught:
            folder.read(path)
        assert caught.value.status is Status.MISSING
        assert pickle.loads(pickle.dumps(caught.value)).status is Status.MISSING


def test_pipes_do_not_hang_and_monsters_are_not_loaded(tmp_path: Path) -> None:
    folder = make(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a/pipe.jpg")
    (tmp_path / "a/monster.jpg").touch()
    os.truncate(tmp_path / "a/monster.jpg", MAX_BYTES + 1)
    assert folder.paths == ("a/1.jpg", "a/monster.jpg")
    with pytest.raises(ImageFileError, match="not an ordinary file"):
        folder.read("a/pipe.jpg")
    with pytest.raises(ImageFileTooLargeError, match=str(MAX_BYTES + 1)) as caught:
        folder.read("a/monster.jpg")
    assert caught.value.status is Status.DECODE_ERROR


def test_a_folder_that_cannot_be_used_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match=r"nothing: no such folder"):
        ImageFolder(tmp_path / "nothing")
    with pytest.raises(ImageFolderError, match=r"no image in it.*\.jpg, .*\.webp"):
        len(make(tmp_path, "a/1.txt"))
    (tmp_path / "a" / os.fsdecode(b"\xff.jpg")).touch()
    with pytest.raises(ImageFolderError, match=r"b'a/\\xff\.jpg' is not UTF-8.*rename"):
        len(ImageFolder(tmp_path))


def test_a_folder_that_may_not_be_listed_is_an_error_not_a_smaller_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a/1.jpg", "closed/1.jpg")
    (tmp_path / "closed").chmod(0)
    tmp_path.chmod(0o755)
    # a path from the working folder on is open to a user who may not enter the folders above it
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(ImageFolderError, match=r"closed: cannot be listed .*make it readable"):
            len(ImageFolder("."))
    finally:
        os.seteuid(user)
        (tmp_path / "closed").chmod(stat.S_IRWXU)


def test_the_fingerprint_follows_names_sizes_and_times(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/2.jpg")
    os.utime(tmp_path / "a/1.jpg", ns=(5, 1_000_000_007))
    os.utime(tmp_path / "b/2.jpg", ns=(5, 1_000_000_008))
    first = ImageFolder(tmp_path).fingerprint_parts()
    assert first == hashlib.sha256(b"a/1.jpg\0007\0001000000007\nb/2.jpg\0007\0001000000008\n").hexdigest()
    make(tmp_path, "a/notes.txt", ".hidden/1.jpg")
    assert ImageFolder(tmp_path).fingerprint_parts() == first
    seen = {first}
    os.utime(tmp_path / "b/2.jpg", ns=(5, 1_000_000_009))
    seen.add(ImageFolder(tmp_path).fingerprint_parts())
    (tmp_path / "b/2.jpg").write_bytes(b"longer than before")
    os.utime(tmp_path / "b/2.jpg", ns=(5, 1_000_000_009))
    seen.add(ImageFolder(tmp_path).fingerprint_parts())
    (tmp_path / "b/2.jpg").rename(tmp_path / "b/3.jpg")
    seen.add(ImageFolder(tmp_path).fingerprint_parts())
    (tmp_path / "b").rename(tmp_path / "c")
    seen.add(ImageFolder(tmp_path).fingerprint_parts())
    assert len(seen) == 5


def test_the_fingerprint_tells_people_who_once_had_other_numbers(tmp_path: Path) -> None:
    for place, names in (("padded", ("02", "10")), ("short", ("2", "10"))):
        for name in names:
            make(tmp_path / place, f"{name}/1.jpg")
            os.utime(tmp_path / place / name / "1.jpg", ns=(5, 5))
        folder = ImageFolder(tmp_path / place)
        listed = hashlib.sha256("".join(f"{p}\0{len(p)}\0005\n" for p in folder.paths).encode()).hexdigest()
        assert (folder.fingerprint_parts() == listed) is (place == "padded")


def test_the_root_alone_is_pickled_and_spawned_processes_read(tmp_path: Path) -> None:
    folder = make(tmp_path, "a/1.jpg", "b/2.jpg")
    assert len(folder) == 2
    assert len(pickle.dumps(folder)) < 500
    assert pickle.loads(pickle.dumps(folder)).paths == folder.paths
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(folder.read, folder.paths) == [b"a/1.jpg", b"b/2.jpg"]
        with pytest.raises(ImageFileError, match="bring the file back"):
            pool.apply(folder.read, ("a/9.jpg",))


def test_a_hundred_people_a_hundred_images_are_indexed_at_once(tmp_path: Path) -> None:
    for person in range(100):
        (tmp_path / f"p{person}").mkdir()
        for image in range(100):
            os.close(os.open(tmp_path / f"p{person}" / f"{image}.jpg", os.O_CREAT | os.O_WRONLY))
    folder = ImageFolder(tmp_path)
    started = time.process_time()
    assert len(folder) == len(folder.identities) == 10_000
    assert time.process_time() - started < 2
