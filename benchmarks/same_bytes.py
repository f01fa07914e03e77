"""LabelAll by one worker, by four, by a Dask cluster of four processes, and by one that loses processes: same bytes?

    python -m benchmarks.same_bytes --dataset mixed.toml [--limit 3000] [--kills 4]

Compares every Parquet file of every stage. The cluster is real: a scheduler and a worker with four processes, of which
one is killed by SIGKILL at random moments while stages run; its nanny starts another.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="name or TOML file of the data set")
    parser.add_argument("--limit", type=int, default=0, help="label the first so many images; 0: all")
    parser.add_argument("--kills", type=int, default=4)
    given = parser.parse_args()
    words = ["--dataset", given.dataset, *(["--limit", str(given.limit)] if given.limit else [])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = label(folder / "one", [*words, "--workers", "1"], "1 worker")
        same = [compare(expected, label(folder / "four", [*words, "--workers", "4"], "4 workers"))]
        with cluster(folder) as (address, worker):
            dask = [*words, "--execution-dask", address]
            same.append(compare(expected, label(folder / "dask", dask, f"Dask, {PROCESSES} processes")))
            with killing(worker, given.kills) as killed:
                found = label(folder / "killed", dask, "Dask, processes killed")
            print(f"  {len(killed)} processes were killed")
            same.append(compare(expected, found))
    sys.exit(not all(same))


def label(workspace: Path, words: list[str], name: str) -> dict[str, str]:
    """Run LabelAll; file -> hash of its bytes, for every Parquet file."""
    command = [str(Path(sys.executable).with_name("luigi")), "--module", "pipeline", "LabelAll", *words]
    environment = {**os.environ, "FIQA_WORKSPACE": str(workspace)}
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    print(f"{name}: {time.monotonic() - started:.1f} s")
    if done.returncode:
        sys.exit(f"LabelAll ended with {done.returncode}\n{done.stderr}")
    files = sorted(p for p in workspace.rglob("*.parquet") if "current" not in p.parts)
    return {str(p.relative_to(workspace)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def compare(expected: dict[str, str], found: dict[str, str]) -> bool:
    """Say how many files there are, and which differ."""
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    print(f"  {len(found)} Parquet files, {len(differing)} differ {' '.join(differing[:5])}")
    return not differing


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler and a worker with four processes; the scheduler's address, and the worker that watches them."""
    log = folder / "scheduler.log"
    environment = {**os.environ, "FIQA_WORKER": "1", "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    started = []
    with log.open("wb") as out, (folder / "worker.log").open("wb") as worker_out:
        try:
            started.append(subprocess.Popen([*program, "--no-dashboard"], env=environment, stdout=out, stderr=out))
            while not (found := re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text())):
                time.sleep(0.1)
            counts = ["--nworkers", str(PROCESSES), "--nthreads", "1", "--memory-limit", "0", "--no-dashboard"]
            command = [sys.executable, "-m", "distributed.cli.dask_worker", found.group(1), *counts]
            started.append(
                subprocess.Popen(
                    [*command, "--local-directory", str(folder)], env=environment, stdout=worker_out, stderr=worker_out
                )
            )
            yield found.group(1), started[-1]
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()


@contextlib.contextmanager
def killing(worker: subprocess.Popen[bytes], kills: int) -> Iterator[list[int]]:
    """Kill one of the worker's processes now and then, as long as the context lasts."""
    chance, killed, done = random.Random(1), [], threading.Event()

    def kill() -> None:
        while len(killed) < kills and not done.wait(chance.uniform(4, 12)):
            children = [p for p in psutil.Process(worker.pid).children() if "spawn_main" in " ".join(p.cmdline())]
            if children:
                victim = chance.choice(children)
                victim.send_signal(signal.SIGKILL)
                killed.append(victim.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    main()
