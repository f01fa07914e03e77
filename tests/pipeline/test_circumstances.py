"""What happens around a workspace: it is moved, its clock is wrong, receipts are lost, a clean is killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from tests.mounting import may_mount
from tests.pipeline.conftest import Factory

if TYPE_CHECKING:
    from collections.abc import Iterator

FUTURE = 1_956_528_000
"""A day in the year 2032."""


def test_a_workspace_that_is_moved_and_comes_from_the_future_is_complete(
    labelled_sample: Factory, sample_copy: Factory, tmp_path: Path
) -> None:
    """A copy on another disk, or a clock that was set back: names and times decide nothing."""
    moved = Factory(workspace=tmp_path / "moved to here")
    sample_copy.workspace.rename(moved.workspace)
    for path in (moved.workspace / "sample").glob("[!_]*/**/*"):
        os.utime(path, (FUTURE, FUTURE), follow_symlinks=False)
    assert "nothing to do: labels of sample is complete" in moved.luigi("LabelAll").stdout
    shutil.rmtree(moved.workspace / "sample" / "labels")
    moved.luigi("LabelAll")
    assert moved.files("sample") == labelled_sample.files("sample")


def test_receipts_that_are_gone_leave_the_chain(sample_copy: Factory) -> None:
    before = sample_copy.command("explain", "7").stdout
    shutil.rmtree(sample_copy.workspace / "sample" / "_receipts")
    after = sample_copy.command("explain", "7").stdout
    for told in ("fr_feature 87aacdfe5751, float32", "edges matlab", "data set sample: sha256 ", "version 2, index"):
        assert told in before
        assert told in after
    assert "nothing to do" in sample_copy.luigi("LabelAll").stdout


def test_a_clean_that_is_killed_harms_nothing(labelled_sample: Factory, sample_copy: Factory) -> None:
    unused = sample_copy.workspace / "sample" / "blur" / "0123456789ab"
    unused.mkdir()
    for number in range(20_000):
        (unused / f"shard-{number:05d}.parquet").touch()
    words = [sys.executable, "-m", "pipeline", "clean", "--keep", "0"]
    killed = 0
    half = unused.with_name(".removed-0123456789ab")
    while unused.exists() or half.exists():
        process = subprocess.Popen(words, env=sample_copy.environment(), stdout=subprocess.DEVNULL)
        while process.poll() is None and (unused.exists() or not half.exists()):
            time.sleep(0.001)
        if killed < 2:
            process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert sample_copy.command("status").returncode == 0
    assert killed >= 1
    assert sample_copy.files("sample") == labelled_sample.files("sample")


@pytest.mark.skipif(not may_mount(), reason="needs the right to mount a folder in a name space of its own")
def test_a_workspace_that_may_not_be_written_can_be_read_and_says_so(sample_copy: Factory) -> None:
    luigi = f"{Path(sys.executable).with_name('luigi')} --module pipeline LabelAll"
    commands = (luigi, f"{luigi} --labels-blur-hazy 0.2", f"{luigi} --limit 9", f"{sys.executable} -m pipeline status")
    said = []
    for command in commands:
        script = f'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec {command}'
        words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(sample_copy.workspace)]
        said.append(subprocess.run(words, env=sample_copy.environment(), capture_output=True, text=True, check=False))
    assert [done.returncode for done in said] == [0, 1, 1, 0]
    assert "nothing to do" in said[0].stdout
    for done in said[1:3]:
        (line,) = done.stderr.splitlines()
        assert "cannot be written (Read-only file system): see to it that you may write there" in line
        assert line.endswith("or set FIQA_WORKSPACE to another folder")


def test_tables_of_an_older_version_are_made_again_and_never_mixed_in(
    labelled_sample: Factory, sample_copy: Factory, tmp_path: Path
) -> None:
    """An older version's tables lack a column, under a fingerprint of their own, and `current` names them."""
    older = [write_as_older(link) for link in sorted(sample_copy.workspace.glob("sample/*/current")) if any_shard(link)]
    assert len(older) == 9
    assert sample_copy.command("status").stdout.count("0123456789ab") == len(older)
    told = sample_copy.command("explain", "7", check=False)
    assert told.returncode == 1
    assert "has no labels under these settings yet: run luigi --module pipeline LabelAll" in told.stderr
    labels = sample_copy.workspace / "sample" / "labels" / "current"
    training = [sys.executable, "-m", "training.train_quality", "--labels", str(labels), "--output", str(tmp_path)]
    refused = subprocess.run([*training, "--images", "sample"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert re.fullmatch(r'error: .*of this version \(unable to find column "status";.*\): label anew\n', refused.stderr)
    sample_copy.luigi("LabelAll")
    sample_copy.command("clean", "--keep", "0")
    assert not any(folder.exists() for folder in older)
    assert sample_copy.files("sample") == labelled_sample.files("sample")


def any_shard(folder: Path) -> bool:
    return any(folder.glob("shard-*.parquet"))


def write_as_older(link: Path) -> Path:
    """Turn the finished stage at a link into one that an older version left; where it lies then."""
    folder = link.resolve()
    older = folder.rename(folder.with_name("0123456789ab"))
    link.unlink()
    link.symlink_to(older.name)
    for file in older.glob("shard-*.parquet"):
        table = pq.read_table(file)
        says = {**table.schema.metadata, b"fingerprint": older.name.encode()}
        pq.write_table(table.drop_columns(table.column_names[-1]).replace_schema_metadata(says), file)
    return older


@pytest.fixture
def luigid(tmp_path: Path) -> Iterator[int]:
    """Luigi's central scheduler; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [Path(sys.executable).with_name("luigid"), "--address", "127.0.0.1", "--port", str(port)]
    command += ["--logdir", str(tmp_path), "--state-path", str(tmp_path / "state")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def test_a_central_scheduler_gives_the_same_and_its_absence_is_named(
    labelled_sample: Factory, sample_copy: Factory, tmp_path: Path, luigid: int
) -> None:
    shutil.rmtree(sample_copy.workspace / "sample" / "labels")
    settings = tmp_path / "scheduler.cfg"
    core = "[core]\nlocal_scheduler = false\nrpc_retry_attempts = 1\nrpc_retry_wait = 1\ndefault_scheduler_port = "
    settings.write_text(f"{core}{luigid}\n")
    sample_copy.luigi("LabelAll", LUIGI_CONFIG_PATH=str(settings))
    assert sample_copy.files("sample") == labelled_sample.files("sample")

    shutil.rmtree(sample_copy.workspace / "sample" / "labels")
    settings.write_text(f"{core}1\n")
    done = sample_copy.luigi("LabelAll", check=False, LUIGI_CONFIG_PATH=str(settings))
    assert done.returncode == 40
    assert "no scheduler answers (" in done.stderr
    assert "start luigid there, or set local_scheduler = true" in done.stderr
    assert "Traceback" not in done.stderr
