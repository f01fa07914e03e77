"""Everything that reads no pixel at the size of MS1MV2, each in a process of its own, against its aim.

    python -m benchmarks.scale --workspace DIR [--rows 100000 1000000 5822653] [--pool TRAIN.REC | sample] [--keep]

Makes a data set without pixels (benchmarks.make_ms1mv2) and random values where the stages that read pixels would
have written theirs (benchmarks.scale_steps), then times the command lines that a user types. Embeddings are fabricated
with 16 values in place of 512, because labels read no more of them than their norm. What is timed includes the start
of the process; `queued` is the part of it in which other processes had the cores, so that figures of a busy machine
can be read. DIR needs some 500 bytes an image, and what is made there is removed in the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

# This process imports nothing large: Linux counts what it holds at a child's start in the child's peak memory.

ROOT = Path(__file__).resolve().parent.parent
MEMORY_AIM = 4.0
LABEL_ALL = (str(Path(sys.executable).with_name("luigi")), "--module", "pipeline", "LabelAll")
NO_PAGE = ("--report-page", "false")
CHANGED = ("--labels-blur-hazy", "0.3")
STEPS = (sys.executable, "-m", "benchmarks.scale_steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is timed.

    Attributes:
        name: as the table shows it.
        command: what is run, without the data set.
        stage: the stage that it makes, whose receipt tells its part of the time; empty where it makes none.
        aim: seconds at the size of MS1MV2; None where nothing was promised.
    """

    name: str
    command: tuple[str, ...]
    stage: str = ""
    aim: float | None = None


TIMED = (
    Step(name="index from the .idx", command=(*STEPS, "index"), stage="index", aim=60),
    Step(name="anchor_range", command=(*STEPS, "anchor_range"), stage="anchor_range", aim=10),
    Step(name="LabelAll, labels missing", command=(*LABEL_ALL, *NO_PAGE), stage="labels"),
    Step(name="LabelAll, threshold changed", command=(*LABEL_ALL, *CHANGED, *NO_PAGE), stage="labels", aim=15),
    Step(name="LabelReport, its page", command=(*LABEL_ALL[:-1], "LabelReport", *CHANGED), stage="report"),
    Step(name="LabelAll, nothing to do", command=(*LABEL_ALL, *CHANGED), aim=3),
    Step(name="Polars filter and group_by", command=(*STEPS, "polars")),
    Step(name="recheck of all tables", command=(*STEPS, "recheck"), aim=60),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a process took.

    Attributes:
        wall: seconds.
        processor: seconds of all cores.
        queued: seconds that its main thread was ready but other processes had the cores; None if not told.
        memory: GB at its peak.
        stage: seconds of the stage alone, without the start of the process and the summary; None where there is none.
    """

    wall: float
    processor: float
    queued: float | None
    memory: float
    stage: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True, help="a folder for all that is made")
    parser.add_argument("--rows", type=int, nargs="+", default=[5_822_653])
    parser.add_argument("--pool", default="sample", help="images whose lengths the records get")
    parser.add_argument("--keep", action="store_true", help="leave the folder as it is in the end")
    options = parser.parse_args()
    found = {}
    for rows in options.rows:
        folder = options.workspace.absolute() / str(rows)
        try:
            found[rows] = measure(folder, rows, options.pool)
        finally:
            if not options.keep:
                shutil.rmtree(folder, ignore_errors=True)
    print(f"\nload over the last 1, 5 and 15 minutes: {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    for rows, costs in found.items():
        print_table(rows, costs)


def measure(folder: Path, rows: int, pool: str) -> dict[str, Cost]:
    """The cost of every step for a data set of so many rows."""
    dataset = folder / "data" / "scale.toml"
    make = [sys.executable, "-m", "benchmarks.make_ms1mv2", "--output", str(dataset.parent), "--name", dataset.stem]
    run([*make, "--images", str(rows), "--pool", pool, "--without-pixels"], folder)
    run([*STEPS, "fabricate", "--dataset", str(dataset)], folder)
    costs = {}
    for step in TIMED:
        cost = run([*step.command, "--dataset", str(dataset)], folder)
        costs[step.name] = replace(cost, stage=stage_seconds(folder, step.stage) if step.stage else None)
    return costs


def stage_seconds(folder: Path, stage: str) -> float:
    """The seconds in the newest receipt of a stage."""
    receipts = (folder / "workspace").glob(f"*/_receipts/{stage}/*/run-*.json")
    newest = max(receipts, key=lambda receipt: receipt.name)
    return float(json.loads(newest.read_text())["wall_seconds"])


def run(command: list[str], folder: Path) -> Cost:
    """Run a command to its end."""
    print(f"\n$ {' '.join(command)}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "FIQA_WORKSPACE": str(folder / "workspace")})
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    queued = queued_seconds(process.pid)
    _, state, usage = os.wait4(process.pid, 0)
    if state:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(state)}")
    cost = Cost(
        wall=time.monotonic() - started,
        processor=usage.ru_utime + usage.ru_stime,
        queued=queued,
        memory=usage.ru_maxrss * 1024 / 1e9,
    )
    print(f"{cost.wall:.1f} s, of the processor {cost.processor:.1f} s, {cost.memory:.2f} GB", flush=True)
    return cost


def queued_seconds(process: int) -> float | None:
    """Seconds that a process that has ended spent in the queue for a core."""
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return None


def print_table(rows: int, costs: dict[str, Cost]) -> None:
    """Costs beside their aims, as Markdown."""
    titles = (f"{rows:,} images", "wall s", "processor s", "queued s", "peak GB", "stage s", "µs an image", "aim s", "")
    print(f"\n| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for step in TIMED:
        cost = costs[step.name]
        queued = "" if cost.queued is None else f"{cost.queued:.1f}"
        words = [step.name, f"{cost.wall:.1f}", f"{cost.processor:.1f}", queued, f"{cost.memory:.2f}"]
        words += ["", ""] if cost.stage is None else [f"{cost.stage:.1f}", f"{1e6 * cost.stage / rows:.2f}"]
        words += ["", ""] if step.aim is None else [f"{step.aim:g}", judge(cost, step.aim)]
        print(f"| {' | '.join(words)} |")


def judge(cost: Cost, aim: float) -> str:
    """Whether an aim was kept by the clock, or at least by the processor: on a busy machine the clock tells little."""
    if cost.memory >= MEMORY_AIM or cost.processor > aim:
        return "MISSED"
    return "kept" if cost.wall <= aim else "by the processor alone"


if __name__ == "__main__":
    main()
