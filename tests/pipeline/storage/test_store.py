"""The store shows whole files only, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_manifests.storage.atomic import DiskFullError, LockedError, RunLock, remove_leftovers, write_atomically
from data_manifests.storage.shard_file import metadata_of
from data_manifests.tables.stages import TABLES
from pipeline.config.job import lock_folder
from pipeline.storage.fingerprint import StageSpec
from pipeline.storage.shards import Part
from pipeline.storage.store import Store
from tests.pipeline.conftest import Factory

if TYPE_CHECKING:
    from pathlib import Path

SPEC = StageSpec(name="blur", version=1, data="d")
TABLE = pa.table(
    [[1, 2, 3], [0.5, 0.5, 0.5], [1.0, 2.0, 3.0], pa.array(["ok"] * 3).dictionary_encode()],
    schema=TABLES["blur"].schema(),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=tmp_path / "faces")


def test_a_stage_is_complete_when_every_shard_is_there(store: Store) -> None:
    assert not store.is_complete(SPEC)
    store.write_shard(SPEC, 0, TABLE, 2)
    assert not store.is_complete(SPEC)
    store.write_shard(SPEC, 1, TABLE, 2)
    assert store.is_complete(SPEC)
    store.shard(SPEC, 0).unlink()
    assert not store.is_complete(SPEC)


def test_the_same_table_gives_the_same_bytes(store: Store) -> None:
    store.write_shard(SPEC, 0, TABLE, 1)
    first = store.shard(SPEC, 0).read_bytes()
    store.write_shard(SPEC, 0, TABLE, 1)
    assert store.shard(SPEC, 0).read_bytes() == first


def test_metadata_says_what_made_the_file(store: Store) -> None:
    store.write_shard(SPEC, 0, TABLE, 1)
    metadata = metadata_of(pq.ParquetFile(store.shard(SPEC, 0)))
    assert metadata["stage"] == "blur"
    assert metadata["fingerprint"] == SPEC.fingerprint
    assert '"version": 1' in metadata["made_from"]


def test_current_is_switched_and_followed_by_polars(store: Store) -> None:
    other = StageSpec(name="blur", version=2, data="d")
    store.write_shard(SPEC, 0, TABLE, 1)
    store.write_shard(other, 0, TABLE.slice(0, 1), 1)
    store.point_current(SPEC)
    assert store.current("blur") == SPEC.fingerprint
    store.point_current(other)
    assert store.current("blur") == other.fingerprint
    assert pl.scan_parquet(store.root / "blur" / "current").collect()["key"].to_list() == [1]
    assert sorted(p.name for p in (store.root / "blur").iterdir()) == sorted(
        [SPEC.fingerprint, other.fingerprint, "current"]
    )


def test_parts_are_known_by_their_rows(store: Store) -> None:
    part = Part(shard=2, start=0, stop=3)
    store.write_part(SPEC, part, TABLE)
    assert store.present_parts(SPEC) == {part}
    assert store.present_shards(SPEC) == frozenset()


def test_a_full_disk_leaves_nothing_and_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskFullError, match=r"no space is left in .*free some"):
        store.write_shard(SPEC, 0, TABLE, 1)
    assert list(store.folder(SPEC).iterdir()) == []


def test_a_file_over_the_size_limit_of_the_process_leaves_nothing(tmp_path: Path) -> None:
    program = """
        import pathlib, resource, signal, sys
        from data_manifests.storage.atomic import write_atomically
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_atomically(pathlib.Path(sys.argv[1]), lambda file: file.write(b"x" * 5000))
        except OSError:
            sys.exit(3)
    """
    target = tmp_path / "folder" / "file"
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(target)], check=False)
    assert done.returncode == 3
    assert list(target.parent.iterdir()) == []


def test_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    program = """
        import pathlib, sys, time
        from data_manifests.storage.atomic import write_atomically
        def slowly(file):
            file.write(b"new")
            file.flush()
            print("writing", flush=True)
            time.sleep(60)
        write_atomically(pathlib.Path(sys.argv[1]), slowly)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert target.read_bytes() == b"old"


def test_a_file_that_does_not_read_back_is_never_shown(tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise ValueError(path.read_bytes())

    with pytest.raises(ValueError, match="half"):
        write_atomically(tmp_path / "file", lambda file: file.write(b"half") and None, check=refuse)
    assert list(tmp_path.iterdir()) == []


def test_a_torn_part_counts_as_none(store: Store) -> None:
    part = Part(shard=0, start=0, stop=3)
    store.write_part(SPEC, part, TABLE)
    path = store.part(SPEC, part)
    path.write_bytes(path.read_bytes()[:-7])
    assert store.present_parts(SPEC) == frozenset()


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    program = """
        import pathlib, sys, time
        from data_manifests.storage.atomic import RunLock
        lock = RunLock(pathlib.Path(sys.argv[1]))
        lock.acquire("luigi LabelAll")
        print("held", flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(LockedError, match=rf"process {process.pid} on .*`luigi LabelAll`.*name another folder"):
            RunLock(tmp_path).acquire("second")
        process.send_signal(signal.SIGKILL)
    RunLock(tmp_path).acquire("third")


def test_a_folder_that_is_locked_is_not_asked_for_again_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIQA_RUN", "[]")
    for name in ("a", "a:b", 'with "quotes", and a comma'):
        lock_folder(tmp_path / name)
        lock_folder(tmp_path / name)
        child = (
            "import pathlib, sys; from pipeline.config.job import lock_folder; lock_folder(pathlib.Path(sys.argv[1]))"
        )
        subprocess.run([sys.executable, "-c", child, str(tmp_path / name)], check=True)


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    program = """
        import os, pathlib, signal, sys
        from data_manifests.storage.atomic import write_atomically
        write_atomically(pathlib.Path(sys.argv[1]), lambda file: os.kill(os.getpid(), signal.SIGKILL))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "deep" / "shard-00000.parquet")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    others = [tmp_path / name for name in ("mine.tmp", ".mine.tmp", ".holiday.photos.tmp", "shard-00000.parquet")]
    for path in others:
        path.touch()
    (left,) = (tmp_path / "deep").iterdir()
    remove_leftovers(tmp_path)
    assert not left.exists()
    assert all(path.exists() for path in others)


@pytest.mark.parametrize(("umask", "rights"), [(0o077, 0o600), (0o027, 0o640), (0o002, 0o664)])
def test_files_have_the_rights_that_the_umask_leaves(
    sample_weights: None, tmp_path: Path, umask: int, rights: int
) -> None:
    """They hold faces and scores: whether others may read them is the user's to say."""
    factory = Factory(workspace=tmp_path / "workspace")
    before = os.umask(umask)
    try:
        factory.luigi("BlurAll", "--limit", "20")
    finally:
        os.umask(before)
    files = [p for p in factory.workspace.rglob("*") if p.is_file() and p.suffix != ".lock" and p.name != ".lock"]
    assert {p.suffix for p in files} >= {".parquet", ".json", ".log", ".rec", ".idx"}
    assert {p: oct(p.stat().st_mode & 0o777) for p in files} == dict.fromkeys(files, oct(rights))
