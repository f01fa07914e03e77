"""Promises of reliability, each broken on purpose: killed runs, torn files, hostile records, two runs at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from data_manifests.recordio.record_file import RecordFile
from data_manifests.recordio.writer import RecordWriter, write_ms1mv2
from data_manifests.sample import draw_images
from pipeline.config.job import resolve
from tests.pipeline.conftest import ROOT, Factory

COPIES = 24
"""The sample's images so often: 6,144 records in 6 shards, so that a run lasts long enough to be killed."""


def write_manifest(folder: Path, **more: str) -> Path:
    lines = [f'name = "{folder.name}"', 'format = "recordio"', f'root = "{folder}"', 'pose_model = "fr_pose"']
    path = folder.parent / f"{folder.name}.toml"
    path.write_text("\n".join([*lines, *(f"{k} = {v}" for k, v in more.items())]) + "\n")
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of some thousand real faces in MS1MV2's layout."""
    folder = tmp_path_factory.mktemp("data") / "large"
    folder.mkdir()
    images = list(draw_images())
    write_ms1mv2(folder, ((i.identity, i.encoded) for i in images for _ in range(COPIES))).close()
    return write_manifest(folder)


@pytest.fixture(scope="module")
def undisturbed(large: Path, sample_weights: None, tmp_path_factory: pytest.TempPathFactory) -> Factory:
    factory = Factory(workspace=tmp_path_factory.mktemp("undisturbed") / "workspace")
    factory.luigi("BlurAll", "--dataset", str(large), "--workers", "2")
    return factory


def kill_after(factory: Factory, seconds: float, *words: str) -> bool:
    """Run a command in a process group of its own and kill the whole group; whether it was still running."""
    command = [str(Path(sys.executable).with_name("luigi")), "--module", "pipeline", *words]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=ROOT, env=factory.environment(), start_new_session=True, stdout=quiet, stderr=quiet
    )
    time.sleep(seconds)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def test_killed_at_random_moments_the_labels_are_the_same_bytes(
    large: Path, undisturbed: Factory, tmp_path: Path
) -> None:
    factory = Factory(workspace=tmp_path / "workspace")
    chance = random.Random(7)
    words = ("BlurAll", "--dataset", str(large), "--workers", "2")
    kills = sum(kill_after(factory, chance.uniform(2.0, 7.0), *words) for _ in range(4))
    assert kills >= 2
    factory.luigi("BlurAll", "--dataset", str(large))
    assert factory.files("large", "blur") == undisturbed.files("large", "blur")
    assert factory.files("large", "index") == undisturbed.files("large", "index")
    assert not list(factory.workspace.rglob("*.tmp"))


HEEDING = (
    sys.executable, "-c", "import os, signal, sys\n"
    "for number in (signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_DFL)\n"
    "os.execv(sys.argv[1], sys.argv[1:])",
)  # fmt: skip
"""In front of a command that heeds Ctrl-C and SIGHUP, which what a shell or nohup starts in the background ignores."""


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("workers", [1, 2])
def test_no_process_outlives_the_command(large: Path, tmp_path: Path, by: signal.Signals, workers: int) -> None:
    """Whoever reads its output comes to the end, for every process that it starts holds that too."""
    factory = Factory(workspace=tmp_path / "workspace")
    command = [str(Path(sys.executable).with_name("luigi")), "--module", "pipeline", "BlurAll", "--dataset", str(large)]
    process = subprocess.Popen(
        [*HEEDING, *command, "--workers", str(workers)],
        cwd=ROOT, env=factory.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(factory.workspace.rglob("parts.log")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(by)
    process.communicate(timeout=60)
    assert process.returncode == -by


def test_polars_opens_the_stage_after_a_kill(large: Path, undisturbed: Factory) -> None:
    found = pl.scan_parquet(undisturbed.workspace / "large" / "blur" / "current").collect()
    assert len(found) == 256 * COPIES
    assert found["key"].is_sorted()


def test_a_second_run_is_told_who_holds_the_folder(large: Path, tmp_path: Path) -> None:
    factory = Factory(workspace=tmp_path / "workspace")
    command = [str(Path(sys.executable).with_name("luigi")), "--module", "pipeline", "BlurAll", "--dataset", str(large)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=ROOT, env=factory.environment(), start_new_session=True, stdout=quiet, stderr=quiet
    ) as first:
        lock = factory.workspace / "large" / ".lock.json"
        deadline = time.monotonic() + 60
        while not lock.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGSTOP)  # so that it cannot end before the second one asks
        second = factory.luigi("BlurAll", "--dataset", str(large), check=False)
        os.killpg(first.pid, signal.SIGKILL)
    assert second.returncode != 0
    assert f"process {first.pid}" in second.stderr
    assert "set FIQA_WORKSPACE to another folder" in second.stderr
    assert "Traceback" not in second.stderr


def test_torn_records_become_rows_with_their_status(undisturbed: Factory, large: Path, tmp_path: Path) -> None:
    """A flipped magic, a flipped byte in the image's header, a torn last record, an idx past the end."""
    source = large.parent / "large"
    folder = tmp_path / "torn"
    folder.mkdir()
    content = bytearray((source / "train.rec").read_bytes())
    with RecordFile(source / "train.rec") as records:
        index = records.index()
    for key in (5, 17):
        content[index.offsets[key - 1]] ^= 0xFF
    image = int(index.offsets[100]) + 8 + 24  # framing and header stand before the image
    content[image : image + 2] = b"no"
    (folder / "train.rec").write_bytes(content)
    lines = (source / "train.idx").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("200\t"))
    lines[at] = f"200\t{len(content) + 4096}"
    (folder / "train.idx").write_text("\n".join(lines) + "\n")
    factory = Factory(workspace=tmp_path / "workspace")
    said = factory.luigi("BlurAll", "--dataset", str(write_manifest(folder)), "--workers", "2").stdout
    assert "4 images could not be read" in said
    assert "2 record_error" in said
    assert "keys 5, 17, 101, 200" in said
    torn = pl.read_parquet(factory.workspace / "torn" / "blur" / "current")
    whole = pl.read_parquet(undisturbed.workspace / "large" / "blur" / "current")
    status = dict(torn.filter(pl.col("status") != "ok").select("key", pl.col("status").cast(pl.String)).iter_rows())
    assert status == {5: "record_error", 17: "record_error", 101: "decode_error", 200: "missing_record"}
    hurt = list(status)
    assert torn.filter(pl.col("key").is_in(hurt))["cpbd"].null_count() == len(hurt)
    assert torn.filter(~pl.col("key").is_in(hurt)).equals(whole.filter(~pl.col("key").is_in(hurt)))


def test_a_cut_file_loses_its_last_records_alone(large: Path, tmp_path: Path) -> None:
    """A .rec without its end has no identity records: images tell whom they show themselves."""
    source = large.parent / "large"
    folder = tmp_path / "cut"
    folder.mkdir()
    with RecordFile(source / "train.rec") as records:
        index = records.index()
    end = int(index.offsets[-1]) + 60
    (folder / "train.rec").write_bytes((source / "train.rec").read_bytes()[:end])
    (folder / "train.idx").write_bytes((source / "train.idx").read_bytes())
    factory = Factory(workspace=tmp_path / "workspace")
    factory.luigi("BlurAll", "--dataset", str(write_manifest(folder)))
    blur = pl.read_parquet(factory.workspace / "cut" / "blur" / "current")
    assert len(blur) == 256 * COPIES
    assert blur.filter(pl.col("status") != "ok")["key"].to_list() == [256 * COPIES]


def test_images_of_other_kinds_do_not_stop_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    good = next(draw_images()).encoded
    with RecordWriter(folder / "train.rec") as writer:
        for key, payload in enumerate((good, b"", b"not an image", good[: len(good) // 2], good), start=1):
            writer.write(key, 0.0, payload)
    factory = Factory(workspace=tmp_path / "workspace")
    factory.luigi("BlurAll", "--dataset", str(write_manifest(folder)))
    blur = pl.read_parquet(factory.workspace / "mixed" / "blur" / "current")
    assert blur["status"].to_list() == ["ok", "decode_error", "decode_error", "decode_error", "ok"]


def test_wrong_counts_are_one_clear_error(large: Path, tmp_path: Path) -> None:
    manifest = write_manifest(large.parent / "large", images="7000")
    other = manifest.with_name("counted.toml")
    manifest.rename(other)
    write_manifest(large.parent / "large")
    done = Factory(workspace=tmp_path / "workspace").luigi("BlurAll", "--dataset", str(other), check=False)
    assert done.returncode == 30
    assert "expected 7,000 images, found 6,144" in done.stderr


def test_recheck_sees_content_and_forgives_time(large: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    record = large.parent / "large" / "train.rec"
    first = resolve(str(large), workspace=workspace, recheck=True).stages["labels"].fingerprint
    assert resolve(str(large), workspace=workspace).stages["labels"].fingerprint == first
    before = record.stat()
    os.utime(record, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    assert resolve(str(large), workspace=workspace).stages["labels"].fingerprint != first
    assert resolve(str(large), workspace=workspace, recheck=True).stages["labels"].fingerprint == first
    assert resolve(str(large), workspace=workspace).stages["labels"].fingerprint == first
    now = record.stat()
    content = bytearray(record.read_bytes())
    content[5000] ^= 1
    record.write_bytes(content)
    os.utime(record, ns=(now.st_atime_ns, now.st_mtime_ns))
    assert resolve(str(large), workspace=workspace).stages["labels"].fingerprint == first
    assert resolve(str(large), workspace=workspace, recheck=True).stages["labels"].fingerprint != first


@pytest.mark.parametrize("seconds", [0.2, 1.0, None])
def test_ctrl_c_is_one_line(sample_weights: None, tmp_path: Path, seconds: float | None) -> None:
    """While processes start, import, or, without a time, compute."""
    factory = Factory(workspace=tmp_path / "workspace")
    command = [str(Path(sys.executable).with_name("luigi")), "--module", "pipeline", "LabelAll", "--workers", "2"]
    process = subprocess.Popen(
        [*HEEDING, *command],
        cwd=ROOT,
        env=factory.environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert "9 of 9 stages to make" in process.stderr.readline()
    time.sleep(seconds or 0)
    while seconds is None and not list(factory.workspace.rglob("parts.log")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate()[1].splitlines()
    assert set(said) == {"stopped; what is done is kept: run the same command again to go on"}
