"""SIGKILL at seeded moments of every long task: what is finished afterwards has the bytes of a run that was left alone.

    python -m benchmarks.kills [--kills 500] [--seed 1] [--tasks LabelAll-1,TrainQuality]

The sample is labelled, trained on and evaluated, and its photos are aligned, by the real commands. A command is killed
with all its processes after a time drawn from none to what it takes, is started again, is killed again, and so on, and
every fifth time left to end. Then every table, array, crop and weight file is compared with those of the run that
nothing disturbed. Prints the table of docs/guarantees.md.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from data_manifests.sample import draw_images
from labelers.faces import decode

LUIGI = str(Path(sys.executable).with_name("luigi"))
IN_A_ROW = 4
"""Kills before a command is left to end."""
KEPT = ("*.parquet", "*.safetensors", "*.npy", "*.jpg")
"""Files whose bytes are compared."""

LABELS = ("--dataset", "sample", "--report-page", "false")
QUALITY = "--tower test-resnet --pretrained none --epochs-one 2 --epochs-two 2 --batch-size 32 --checkpoint-every 2"
RECOGNITION = "--backbone mobilefacenet_small --steps 8 --drops 6 --batch-size 32 --checkpoint-every 2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A command that is killed.

    Attributes:
        words: of luigi; {photos} is a folder of photos.
        needs: words of a command whose output it starts from; left out: none.
    """

    words: tuple[str, ...]
    needs: tuple[str, ...] = ()


LABEL = ("LabelAll", *LABELS)
TASKS = {
    "LabelAll-1": Task(words=LABEL),
    "LabelAll-2": Task(words=(*LABEL, "--workers", "2")),
    "LabelAll-dask": Task(words=(*LABEL, "--execution-dask", "local:2")),
    "AlignFaces": Task(words=("AlignFaces", "--source", "{photos}", "--output", "{workspace}/crops")),
    "TrainQuality": Task(words=("TrainQuality", "--dataset", "sample", *QUALITY.split()), needs=LABEL),
    "TrainRecognition": Task(words=("TrainRecognition", "--dataset", "sample", *RECOGNITION.split())),
    "EvaluateQuality": Task(
        words=("EvaluateQuality", "--benchmarks", "sample", "--methods", "norm,sobel,random"), needs=LABEL
    ),
}


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came of a task's kills.

    Attributes:
        kills: that met a running command.
        ends: commands that were left to end.
        faults: what was wrong, one line each.
    """

    kills: int = 0
    ends: int = 0
    faults: list[str] = field(default_factory=list)


def main() -> None:
    """Kill them all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500, help="in all, shared out over the tasks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tasks", default=",".join(TASKS), help="by commas (default: %(default)s)")
    given = parser.parse_args()
    names = given.tasks.split(",")
    tallies = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            tallies[name] = kill(TASKS[name], -(-given.kills // len(names)), random.Random(given.seed), Path(folder))
        found = tallies[name]
        print(f"{name}: {found.kills} kills, {found.ends} ends, {len(found.faults)} faults", flush=True)
        print("\n".join(found.faults), file=sys.stderr, flush=True)
    print("\n| task | SIGKILLs | runs that ended | the same bytes | faults |\n| --- | --- | --- | --- | --- |")
    for name, found in tallies.items():
        same = found.ends - len(found.faults)
        print(f"| {name} | {found.kills} | {found.ends} | {same} | {len(found.faults)} |")
    sys.exit(1 if any(found.faults for found in tallies.values()) else 0)


def kill(task: Task, kills: int, chance: random.Random, folder: Path) -> Tally:
    """Kill a command so often, and hold every end against a run that was left alone."""
    place, ready = folder / "workspace", folder / "ready"
    write_photos(folder / "photos")
    words = [word.format(photos=folder / "photos", workspace=place) for word in task.words]
    command = [LUIGI, "--module", "pipeline", *words]
    ready.mkdir()
    if task.needs and (said := finish([LUIGI, "--module", "pipeline", *task.needs], ready)):
        sys.exit(said)
    shutil.copytree(ready, place, symlinks=True)
    started = time.monotonic()
    if said := finish(command, place):
        sys.exit(f"{' '.join(command)} does not run:\n{said}")
    seconds, wanted, tally = time.monotonic() - started, read_files(place), Tally()
    shutil.rmtree(place)
    while tally.kills < kills:
        shutil.copytree(ready, place, symlinks=True)
        for before in range(IN_A_ROW):
            tally.kills += kill_once(command, place, chance.uniform(0.2, seconds / (1 + before)))  # less is left to do
        said, found = finish(command, place), read_files(place)
        tally.ends += 1
        if said:
            tally.faults.append(f"after {tally.kills} kills it does not end: {said[-2000:]}")
        elif found != wanted:
            others = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
            tally.faults.append(f"after {tally.kills} kills other bytes: {', '.join(others[:5])}")
        shutil.rmtree(place)
    return tally


def write_photos(folder: Path) -> None:
    """Photos of a face each: every fourth of the sample's, twice as large, in a grey frame."""
    folder.mkdir()
    for number, image in enumerate(itertools.islice(draw_images(), 0, None, 4)):
        face = cv2.resize(decode(image.encoded), None, fx=2, fy=2)
        framed = cv2.copyMakeBorder(face, 60, 60, 60, 60, cv2.BORDER_CONSTANT, value=(128, 128, 128))
        person = folder / f"person-{image.identity}"
        person.mkdir(exist_ok=True)
        cv2.imwrite(str(person / f"{number}.jpg"), framed[..., ::-1])


def kill_once(command: list[str], workspace: Path, seconds: float) -> bool:
    """Kill a command and all its processes after so long; whether it was still running."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, env=environment(workspace), start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def finish(command: list[str], workspace: Path) -> str:
    """Let a command end; what it said where it failed."""
    done = subprocess.run(command, env=environment(workspace), capture_output=True, text=True, check=False)
    return done.stdout + done.stderr + f"\nexit code {done.returncode}" if done.returncode else ""


def environment(workspace: Path) -> dict[str, str]:
    """The variables of a command."""
    return {**os.environ, "FIQA_WORKSPACE": str(workspace), "OMP_NUM_THREADS": "1"}


def read_files(workspace: Path) -> dict[str, bytes]:
    """Every file that a user would open, by its path; not what lies in staging, in receipts or in checkpoints."""
    found = [path for pattern in KEPT for path in workspace.rglob(pattern) if path.is_file()]
    names = {path: path.relative_to(workspace) for path in found}
    return {
        str(name): path.read_bytes()
        for path, name in names.items()
        if not any(part.startswith((".", "_")) or part == "checkpoints" for part in name.parts)
    }


if __name__ == "__main__":
    main()
