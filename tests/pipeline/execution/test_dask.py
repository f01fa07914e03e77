"""The same bytes from a Dask cluster, whatever becomes of its workers and its scheduler. Both are real processes."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.config.job import resolve
from pipeline.config.pixel_stages import PIXEL_STAGES
from pipeline.execution.dask_cluster import survey
from pipeline.execution.dask_workers import Cluster, ClusterError, check_address, examine, find_faults, show_token
from pipeline.execution.dispatch import run_parts
from pipeline.stages.labeler_factories import for_stage
from pipeline.stages.measure import MeasureImages
from pipeline.stages.run import StageRun
from pipeline.storage import shards
from pipeline.storage.shards import Part
from tests.pipeline.conftest import ROOT, Factory
from tests.pipeline.noting import Note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.config.job import Job

PART_ROWS = 16
"""So small that the 256 images of the sample are 16 parts."""


@dataclass(slots=True, kw_only=True)
class Processes:
    """A scheduler and its workers, each a process group of its own."""

    folder: Path
    address: str = ""
    scheduler: subprocess.Popen[bytes] | None = None
    started: list[subprocess.Popen[bytes]] | None = None

    def start(self, *words: str, cwd: Path = ROOT, **variables: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "FIQA_WORKER": "1", "PYTHONPATH": str(ROOT), **variables}
        command = [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]]
        with (self.folder / f"{words[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=cwd, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.started = [*(self.started or []), process]
        return process

    def start_scheduler(self) -> None:
        """Start one; a second one has the address of the first."""
        port = self.address.rpartition(":")[2] or "0"
        self.scheduler = self.start("dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
        log = self.folder / "dask_scheduler.log"
        deadline = time.monotonic() + 60
        while not (found := re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text())):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        self.address = found.group(1)

    def start_workers(
        self, number: int, *words: str, cwd: Path = ROOT, threads: int = 1, **variables: str
    ) -> subprocess.Popen[bytes]:
        """Several are started anew when they die; a single one is not."""
        count = ("--nworkers", str(number), "--nthreads", str(threads), "--no-dashboard", "--memory-limit", "0")
        place = ("--local-directory", str(self.folder))
        alone = ("--no-nanny",) if number == 1 else ()
        return self.start("dask_worker", self.address, *count, *alone, *place, *words, cwd=cwd, **variables)

    def wait_for_workers(self, number: int) -> None:
        """Wait until so many workers have ever registered."""
        deadline = time.monotonic() + 120
        log = self.folder / "dask_scheduler.log"
        while len(set(re.findall(r"Register worker.*?(tcp://[\d.:]+)", log.read_text()))) < number:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        for process in self.started or []:
            kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def dask_processes(folder: Path) -> Iterator[Processes]:
    processes = Processes(folder=folder)
    try:
        processes.start_scheduler()
        yield processes
    finally:
        processes.stop()


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A cluster of four workers, started anew when they die."""
    with dask_processes(tmp_path_factory.mktemp("four")) as processes:
        processes.start_workers(4)
        processes.wait_for_workers(4)
        yield processes


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Processes]:
    """A scheduler without workers."""
    folder = tmp_path / "dask"
    folder.mkdir()
    with dask_processes(folder) as processes:
        yield processes


def notes(folder: Path) -> list[tuple[int, int]]:
    """(part, process) in the order in which they were begun."""
    names = sorted((p.name.split("-") for p in folder.iterdir()), key=lambda words: int(words[2]))
    return [(int(start), int(process)) for start, process, _ in names]


def cut(count: int) -> list[Part]:
    return [Part(shard=0, start=i, stop=i + 1) for i in range(count)]


def cluster_of(processes: Processes, folder: Path, *, on_gpu: bool = False, wait: float = 120.0) -> Cluster:
    return Cluster(address=processes.address, folder=folder, on_gpu=on_gpu, wait_seconds=wait)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlurOfSample:
    """The blur stage of the sample, cut into small parts, in a workspace of its own."""

    job: Job
    notes: Path

    @classmethod
    def make(cls, indexed: Factory, folder: Path) -> BlurOfSample:
        workspace = folder / "workspace"
        (folder / "notes").mkdir(parents=True)
        job = resolve("sample", workspace=workspace, stage="blur")
        for part in ("index", "identities"):
            source = indexed.workspace / "sample" / part
            if source.is_dir():
                subprocess.run(["cp", "-r", source, workspace / "sample"], check=True)
        return cls(job=job, notes=folder / "notes")

    def run(
        self, processes: int = 1, cluster: Cluster | None = None, seconds: float = 0.0,
        report: Callable[[float, str], None] | None = None, kills_once: tuple[int, ...] = (),
    ) -> dict[str, bytes]:  # fmt: skip
        work = MeasureImages(
            store=self.job.store,
            spec=self.job.stages["blur"],
            index=self.job.stages["index"],
            source=self.job.source,
            factory=for_stage(PIXEL_STAGES[0], self.job.settings, self.job.models),
        )
        StageRun(
            store=self.job.store,
            spec=self.job.stages["blur"],
            index=self.job.stages["index"],
            work=Note(folder=self.notes, seconds=seconds, kills_once=kills_once, inner=work),
            title="blur",
            processes=processes,
            cluster=cluster,
            report=report,
        ).make()
        folder = self.job.store.root / "blur"
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


@pytest.fixture(scope="module")
def by_one_process(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    """The blur of the sample as one process makes it, by the command line."""
    factory = Factory(workspace=tmp_path_factory.mktemp("one") / "workspace")
    factory.luigi("BlurAll")
    return factory


@pytest.fixture
def blur(by_one_process: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlurOfSample:
    monkeypatch.setattr(shards, "MAX_PART_ROWS", PART_ROWS)
    return BlurOfSample.make(by_one_process, tmp_path)


def test_four_processes_and_four_workers_make_the_bytes_of_one_process(
    four: Processes, blur: BlurOfSample, by_one_process: Factory, tmp_path: Path
) -> None:
    expected = by_one_process.files("sample", "blur")
    assert blur.run(processes=4) == expected
    other = BlurOfSample.make(by_one_process, tmp_path / "other")
    shares: list[float] = []
    cluster = cluster_of(four, other.job.store.root)
    assert other.run(cluster=cluster, seconds=0.1, report=lambda share, _: shares.append(share)) == expected
    assert len(notes(other.notes)) == 256 // PART_ROWS
    assert os.getpid() not in dict(notes(other.notes)).values()
    assert len({process for _, process in notes(other.notes)}) > 1
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert not list(other.job.store.root.glob(".cluster-*"))


def test_a_killed_worker_costs_nothing_but_its_part(
    four: Processes, blur: BlurOfSample, by_one_process: Factory
) -> None:
    cluster = cluster_of(four, blur.job.store.root)
    assert blur.run(cluster=cluster, seconds=0.1, kills_once=(96,)) == by_one_process.files("sample", "blur")
    begun = [start for start, _ in notes(blur.notes)]
    assert set(begun) == set(range(0, 256, PART_ROWS))
    assert begun.count(96) == 2
    again = len(begun) - len(set(begun))
    assert again <= 2, "the part in hand, and at most one whose outcome was still on its way"


def test_parts_that_fail_or_kill_are_given_up_alone(four: Processes, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    work = Note(folder=folder, seconds=0.02, fails=(3,), kills=(7,))
    found = {o.part.start: o for o in run_parts(work, cut(12), 1, lambda _: None, cluster_of(four, tmp_path))}
    assert set(found) == set(range(12))
    assert {start for start, o in found.items() if o.error} == {3, 7}
    assert "ValueError: part 3 is bad" in found[3].error
    assert "out of memory" in found[7].error
    assert all(outcome.figures["flushes"] for outcome in found.values() if not outcome.error)
    begun = [start for start, _ in notes(folder)]
    assert begun.count(7) == 3
    assert all(begun.count(start) == 1 for start in range(12) if start != 7)


def test_the_command_line_and_doctor_know_the_cluster(four: Processes, by_one_process: Factory, tmp_path: Path) -> None:
    factory = Factory(workspace=tmp_path / "workspace")
    factory.luigi("BlurAll", "--execution-dask", four.address)
    assert factory.files("sample", "blur") == by_one_process.files("sample", "blur")
    settings = tmp_path / "luigi.cfg"
    lines = (ROOT / "luigi.cfg").read_text().splitlines()
    settings.write_text("\n".join(f"dask = {four.address}" if line == "dask =" else line for line in lines))
    said = factory.command("doctor", check=False, LUIGI_CONFIG_PATH=str(settings)).stdout
    assert f"{four.address}: 4 workers, 4 threads" in said


def test_a_local_cluster_makes_the_same_bytes(by_one_process: Factory, tmp_path: Path) -> None:
    factory = Factory(workspace=tmp_path / "workspace")
    factory.luigi("BlurAll", "--execution-dask", "local:1", "--workers", "2")
    assert factory.files("sample", "blur") == by_one_process.files("sample", "blur")


def test_when_the_scheduler_is_killed_the_run_stops_and_the_next_one_goes_on(
    lone: Processes, blur: BlurOfSample, by_one_process: Factory
) -> None:
    lone.start_workers(1)
    lone.start_workers(1)
    lone.wait_for_workers(2)

    def kill(share: float, _: str) -> None:
        if share > 0 and lone.scheduler is not None and lone.scheduler.poll() is None:
            kill_group(lone.scheduler)

    started = time.monotonic()
    with pytest.raises(ClusterError, match=r"is gone.*run the same command again") as error:
        blur.run(cluster=cluster_of(lone, blur.job.store.root, wait=3.0), seconds=0.3, report=kill)
    assert time.monotonic() - started < 60
    assert lone.address in str(error.value)
    lone.stop()
    before = len(notes(blur.notes))
    staged = len(blur.job.store.present_parts(blur.job.stages["blur"]))
    assert 0 < staged < 256 // PART_ROWS
    assert blur.run() == by_one_process.files("sample", "blur")
    assert len(notes(blur.notes)) - before == 256 // PART_ROWS - staged


def test_a_scheduler_and_workers_that_are_started_anew_go_on(lone: Processes, tmp_path: Path) -> None:
    lone.start_workers(1)
    folder = tmp_path / "notes"
    folder.mkdir()
    found: list[int] = []
    for outcome in run_parts(Note(folder=folder, seconds=0.1), cut(12), 1, lambda _: None, cluster_of(lone, tmp_path)):
        found.append(outcome.part.start)
        if len(found) == 3 and lone.scheduler is not None:
            kill_group(lone.scheduler)
            lone.start_scheduler()
            lone.start_workers(1)
    assert sorted(found) == list(range(12))
    assert len({process for _, process in notes(folder)}) == 2


def test_a_worker_that_joins_late_gets_parts_and_work_for_a_gpu_keeps_to_it(lone: Processes, tmp_path: Path) -> None:
    lone.start_workers(1)
    folder = tmp_path / "notes"
    folder.mkdir()
    late: subprocess.Popen[bytes] | None = None
    on_gpu = cluster_of(lone, tmp_path, on_gpu=True)
    for _ in run_parts(Note(folder=folder, seconds=0.3), cut(400), 1, lambda _: None, on_gpu):
        late = late or lone.start_workers(1, "--resources", "GPU=1")
        used = [process for _, process in notes(folder)]
        if used.count(late.pid) == 4:
            break
    assert late is not None
    assert used[0] != late.pid
    assert used[-3:] == [late.pid] * 3

    other = tmp_path / "other"
    other.mkdir()
    list(run_parts(Note(folder=other), cut(6), 1, lambda _: None, cluster_of(lone, tmp_path)))
    assert {process for _, process in notes(other)} == {used[0]}


def stop_on(processes: Processes, folder: Path, *, wait: float = 120.0) -> str:
    """The error by which a run on this cluster ends."""
    with pytest.raises(ClusterError) as error:
        list(run_parts(Note(folder=folder), cut(1), 1, lambda _: None, cluster_of(processes, folder, wait=wait)))
    return str(error.value)


def other_packages(folder: Path) -> str:
    """A PYTHONPATH on which simplejpeg seems to be of another version."""
    package = folder / "packages" / "simplejpeg-0.0.1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: simplejpeg\nVersion: 0.0.1\n")
    return f"{ROOT}{os.pathsep}{package.parent}"


def test_an_unfit_worker_that_joins_late_gets_no_work(
    lone: Processes, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)
    alone = lone.start_workers(1)
    folder = tmp_path / "notes"
    folder.mkdir()
    late: subprocess.Popen[bytes] | None = None
    more = 5
    for outcome in run_parts(Note(folder=folder, seconds=0.1), cut(400), 1, lambda _: None, cluster_of(lone, tmp_path)):
        late = late or lone.start_workers(1, PYTHONPATH=other_packages(tmp_path))
        assert not outcome.error
        more -= "has simplejpeg 0.0.1" in caplog.text
        if not more:
            break
    assert not more
    assert "It gets no work" in caplog.text
    assert {process for _, process in notes(folder)} == {alone.pid}


def test_unfit_workers_are_named_with_the_remedy(
    lone: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has one fault: two threads, a workspace of its own, another version of a package."""
    mine = tmp_path / "mine"
    mine.mkdir()
    monkeypatch.chdir(mine)
    here = Path("/proc/self/cwd")  # every process sees its own
    assert "has had no fit worker for 1 s (0 workers" in stop_on(lone, here, wait=1.0)

    lone.start_workers(1, cwd=mine, threads=2)
    lone.start_workers(1, cwd=ROOT)
    lone.start_workers(1, cwd=mine, PYTHONPATH=other_packages(tmp_path))
    lone.wait_for_workers(3)
    _, workers = survey(cluster_of(lone, here))
    faults = sorted(fault for worker in workers for fault in worker.faults)
    assert len(faults) == 3
    assert faults[0].startswith("does not see /proc/self/cwd: mount it there at the same path")
    assert faults[1].startswith("has 2 threads: start it with one")
    assert faults[2].startswith("has simplejpeg 0.0.1 where this machine has")
    assert any(fault in stop_on(lone, here) for fault in faults)


def test_no_scheduler_is_one_clear_error(tmp_path: Path) -> None:
    nobody = Processes(folder=tmp_path, address="tcp://127.0.0.1:9")
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in stop_on(nobody, tmp_path, wait=1.0)


def test_a_worker_with_other_code_is_found_out(tmp_path: Path) -> None:
    with show_token(tmp_path) as token:
        here = examine(token)
        assert find_faults(here, here, tmp_path) == []
        assert "other code" in find_faults(replace(here, code="0"), here, tmp_path)[0]
    assert not examine(token).sees_folder


@pytest.mark.parametrize("address", ["tcp://host:8786", "tls://[::1]:1", "local:4"])
def test_addresses_are_taken(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize(
    "address", ["host:8786", "tcp://host", "tcp://:1", "http://host:1", "local:0", "local:", "local:x", "tcp://host:x"]
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="give tcp://host:8786"):
        check_address(address)


def test_a_worker_needs_neither_luigi_nor_dask_to_understand_its_work() -> None:
    modules = "pipeline.execution.dask_workers, pipeline.execution.journal, pipeline.stages.measure, sys"
    code = f"import {modules}; print({{'luigi', 'distributed'}} & {{*sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env={**os.environ, "FIQA_WORKER": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "set()"
