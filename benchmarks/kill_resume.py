"""Kills LabelAll again and again, and compares what comes out in the end with an undisturbed run.

    python -m benchmarks.kill_resume --dataset mixed.toml --kills 10 --workers 2

Prints whether all Parquet files are the same bytes, and how many parts were begun more than once.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.execution.journal import NAME, count_begins

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="name or TOML file of the data set")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.monotonic()
        run(folder / "whole", options.dataset, options.workers)
        seconds = time.monotonic() - started
        print(f"undisturbed: {seconds:.0f} s with {options.workers} workers")
        kills = disturb(folder / "killed", options, seconds)
        run(folder / "killed", options.dataset, options.workers)
        run(folder / "other", options.dataset, options.workers + 1)
        for other in ("killed", "other"):
            same = files(folder / "whole") == files(folder / other)
            print(f"{other}: {len(files(folder / other))} Parquet files, {'the same bytes' if same else 'DIFFERENT'}")
        report_repeats(folder / "killed", kills, options.workers)


def start(workspace: Path, dataset: str, workers: int) -> subprocess.Popen[bytes]:
    """Start LabelAll in a process group of its own."""
    command = [str(Path(sys.executable).with_name("luigi")), "--module", "pipeline", "LabelAll"]
    command += ["--dataset", dataset, "--workers", str(workers)]
    environment = {**os.environ, "FIQA_WORKSPACE": str(workspace)}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, stdout=quiet, stderr=quiet)


def run(workspace: Path, dataset: str, workers: int) -> None:
    """Run LabelAll to its end."""
    if code := start(workspace, dataset, workers).wait():
        sys.exit(f"LabelAll ended with {code}")


def disturb(workspace: Path, options: argparse.Namespace, seconds: float) -> int:
    """Start LabelAll and kill its whole process group at random moments; how often that hit a running one."""
    chance = random.Random(options.seed)
    hits = 0
    for _ in range(options.kills):
        process = start(workspace, options.dataset, options.workers)
        wait = chance.uniform(2.0, max(5.0, 1.8 * seconds / options.kills))
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            hits += 1
        print(f"killed after {wait:.1f} s" if process.returncode else "was done before it was killed", flush=True)
    return hits


def files(workspace: Path) -> dict[str, bytes]:
    """All Parquet files by their path."""
    return {str(p.relative_to(workspace)): p.read_bytes() for p in workspace.rglob("shard-*.parquet")}


def report_repeats(workspace: Path, kills: int, workers: int) -> None:
    """How many parts were begun again."""
    begins = [count for log in workspace.rglob(NAME) for count in count_begins(log).values()]
    again = sum(begins) - len(begins)
    print(f"{again} of {len(begins)} parts were begun again after {kills} kills; at most {kills * workers} may be")


if __name__ == "__main__":
    main()
