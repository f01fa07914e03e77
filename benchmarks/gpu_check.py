"""One command for the day a GPU is there: does all run on it, is it right, how fast is it, what would MS1MV2 take.

    python -m benchmarks.gpu_check [--device cuda] [--small] [--json gpu_check.json] [--document docs/scale.md]
    python -m benchmarks.gpu_check --from gpu_check.json
    python -m benchmarks.gpu_check --pack FOLDER        # then, on a machine without a connection: --packed FOLDER

Takes at most ten minutes. Every step is a process of its own, so that one that fails, or takes too long, costs
nothing but its own figures; the JSON is written again after each, and what a step prints goes to a file beside it. At
the end the section of the document between the markers of gpu_check is written from it, which `--from` does alone.
`--device cpu --small` shows that the script works.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import make_ms1mv2
from benchmarks.gpu_report import write_section
from benchmarks.published_way import write_network
from data_manifests.sample import make_sample
from data_manifests.storage.environment import version_of
from data_manifests.weights.entry import Kind
from data_manifests.weights.files import WeightsError, fetch
from data_manifests.weights.registry import load_registry
from labelers.runtime.device import Device, list_gpus
from pipeline.storage.receipts import machine, versions

BUDGET_SECONDS = 600.0
PACKED = ("fr_feature", "face_mesh", "fr_pose", "fsanet", "factors_mini")
"""Small networks: 20 MB in all. A large one is made there."""
MADE, MADE_SMALL = 100_000, 96
"""Images that are made of the sample's."""
_LOOK_SECONDS = 0.5
_TAIL = 2000
"""Characters of a failed step's output that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A measurement.

    Attributes:
        name: in the JSON.
        words: the module that measures and its arguments; the device and a file for its JSON are added.
        small: arguments instead, where it is only to be shown that it works; none: it is then left out.
        seconds: after which it is given up.
    """

    name: str
    words: tuple[str, ...]
    small: tuple[str, ...] = ()
    seconds: float


TRAIN = "benchmarks.train_speed"
RECOGNITION = "benchmarks.recognition_speed"
STEPS = (
    Step(name="labels", words=("benchmarks.gpu_speed", "--dataset", "{made}", "--precision", "float16"),
         small=("benchmarks.gpu_speed", "--dataset", "{made}", "--classes", "500", "--recogniser", "fr_feature",
                "--pose", "fr_pose", "--workers", "1"), seconds=300),
    Step(name="training", seconds=60,
         words=(TRAIN, "--dataset", "{made_rec}", "--seconds", "4", "--brief", "--ours", "--compiled=no"),
         small=(TRAIN, "--dataset", "{made_rec}", "--tower", "test-resnet", "--seconds", "0.1", "--brief", "--ours")),
    Step(name="training_compiled", seconds=240,
         words=(TRAIN, "--dataset", "{made_rec}", "--seconds", "15", "--brief", "--compiled=default")),
    Step(name="recognition", seconds=60,
         words=(RECOGNITION, "--dataset", "{made_rec}", "--batch", "512", "--seconds", "4", "--compiled=no"),
         small=(RECOGNITION, "--images", "64", "--backbone", "mobilefacenet", "--classes", "200", "--seconds", "0.1")),
    Step(name="nearest", words=("benchmarks.nearest_speed", "--rows", "65536"),
         small=("benchmarks.nearest_speed", "--classes", "2000", "--rows", "1024"), seconds=40),
    Step(name="networks", words=("benchmarks.gpu_networks", "--dataset", "{faces}"),
         small=("benchmarks.gpu_networks", "--dataset", "{faces}", "--images", "24", "--seconds", "0.1",
                "--networks", "fr_feature", "factors_mini"), seconds=100),
    Step(name="same_classes", words=("benchmarks.same_classes", "--dataset", "{faces}", "--precision", "float16"),
         small=("benchmarks.same_classes", "--dataset", "{faces}", "--limit", "48", "--pose", "fr_pose",
                "--workers", "1"), seconds=80),
    Step(name="all_pairs", words=("benchmarks.all_pairs_speed", "--images", "40000"),
         small=("benchmarks.all_pairs_speed", "--images", "2000"), seconds=40),
    Step(name="training_graphs", seconds=80,
         words=(TRAIN, "--dataset", "{made_rec}", "--batch", "32", "--seconds", "3", "--brief", "--ours", "--compiled",
                "reduce-overhead")),
    Step(name="resume", words=("benchmarks.gpu_resume", "--dataset", "{made_rec}", "--steps", "20"),
         small=("benchmarks.gpu_resume", "--dataset", "{made_rec}", "--tower", "test-resnet", "--batch", "16",
                "--steps", "4"), seconds=110),
)  # fmt: skip
"""In the order of their worth, should the time not suffice for all. The last one starts processes of torchrun, which go
on for a while should it be given up."""


def main(arguments: list[str] | None = None) -> None:
    given = parse(arguments)
    if given.source:
        write_section(given.document, json.loads(given.source.read_text()))
        return
    if given.pack:
        pack(given.pack)
        return
    if given.device is Device.CUDA and not list_gpus():
        sys.exit("CUDA shows no GPU here: `python -m pipeline doctor --execution-device cuda` says why")
    with tempfile.TemporaryDirectory() as folder:
        check(given, make_faces(given, Path(folder)))


def check(given: argparse.Namespace, places: dict[str, str]) -> None:
    """Take every step, and write what came out."""
    started = time.monotonic()
    found: dict[str, Any] = {"device": given.device.value, "small": given.small, **describe(given.device), "steps": {}}
    for step in STEPS:
        if (given.steps and step.name not in given.steps) or (given.small and not step.small):
            continue
        left = given.budget - (time.monotonic() - started)
        print(f"=== {step.name}", flush=True)
        found["steps"][step.name] = run(step, given, places, min(step.seconds, left))
        found["seconds"] = round(time.monotonic() - started, 1)
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    write_section(given.document, found)
    failed = [name for name, step in found["steps"].items() if "error" in step]
    print(f"{found['seconds']} s, {given.json}, {given.document}{'; FAILED: ' if failed else ''}{', '.join(failed)}")
    sys.exit(1 if failed else 0)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", type=Device, choices=list(Device), default=Device.CUDA)
    add("--small", action="store_true", help="as little of everything as shows that it works")
    add("--json", type=Path, default=Path("gpu_check.json"), help="file for the figures")
    add("--document", type=Path, default=Path("docs/scale.md"), help="whose section is written")
    add("--from", dest="source", type=Path, help="write the section from figures that are there already")
    add("--pack", type=Path, help="gather in a folder what --packed needs on a machine without a connection")
    add("--packed", type=Path, help="such a folder")
    add("--steps", nargs="+", choices=[step.name for step in STEPS], help="these alone")
    add("--budget", type=float, default=BUDGET_SECONDS, help="seconds for all steps (default: %(default)s)")
    given = parser.parse_args(arguments)
    for path in (given.source, given.packed):
        if path is not None and not path.exists():
            parser.error(f"{path} is not there")
    return given


def pack(folder: Path) -> None:
    """Gather what a machine without a connection lacks: the sample's faces and the networks' weights."""
    make_sample(folder)
    registry = load_registry()
    left_out = list(PACKED)
    for name in PACKED:
        try:
            paths = fetch(registry.get(name, *Kind))
        except WeightsError as error:
            print(f"{name} is left out: {error}")
            continue
        for path in paths:
            (folder / name).mkdir(exist_ok=True)
            shutil.copy2(path, folder / name / path.name)
        left_out.remove(name)
    if left_out:
        sys.exit(f"{folder} lacks {', '.join(left_out)}: name the folders of their files in FIQA_MODELS")


def make_faces(given: argparse.Namespace, folder: Path) -> dict[str, str]:
    """The faces that networks are compared on, and as many made of them as labels and trainings are timed on."""
    pool = given.packed or folder / "sample"
    if given.packed:
        names = [str(path.absolute()) for path in sorted(given.packed.iterdir()) if path.is_dir()]
        os.environ["FIQA_MODELS"] = os.pathsep.join([*names, *filter(None, [os.environ.get("FIQA_MODELS")])])
    else:
        make_sample(pool)
    made = folder / "made"
    images = MADE_SMALL if given.small else MADE
    if not given.small:
        write_network(folder)
    make_ms1mv2.main(["--output", str(made), "--images", str(images), "--pool", str(pool / "train.rec")])
    faces = folder / "faces.toml"
    faces.write_text(f'name = "faces"\nformat = "recordio"\nroot = "{pool.absolute()}"\n')
    (manifest,) = made.glob("*.toml")
    return {"faces": str(faces), "made": str(manifest), "made_rec": str(made / "train.rec")}


def describe(device: Device) -> dict[str, Any]:
    """The machine, and the packages that make numbers."""
    gpu = (query_gpu("name,driver_version,memory.total") or "a GPU") if device is Device.CUDA else ""
    return {"gpu": gpu, "machine": machine(), "torch": version_of("torch"), "versions": versions()}


def query_gpu(fields: str) -> str:
    """What nvidia-smi says of the first GPU that CUDA shows; empty where it says nothing."""
    which = [f"--id={gpu}" for gpu in list_gpus()[:1]]
    words = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", *which]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def run(step: Step, given: argparse.Namespace, places: dict[str, str], seconds: float) -> dict[str, Any]:
    """Run a step: its figures or what went wrong, its seconds, and the most memory that it took."""
    if seconds <= 0:
        return {"seconds": 0.0, "peak_process_mib": 0.0, "error": "no time was left for it"}
    module, *words = (word.format(**places) for word in (step.small if given.small else step.words))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, MemoryPeak(given.device) as memory:
        figures, log = Path(name, "figures.json"), given.json.with_suffix(f".{step.name}.log")
        command = [sys.executable, "-u", "-m", module, "--device", given.device.value, "--json", str(figures), *words]
        started = time.monotonic()
        with log.open("wb") as out:
            code, peak = run_process(command, out.fileno(), seconds)
        text = log.read_text(errors="replace")
        print(text, flush=True)
        result: dict[str, Any] = {"seconds": round(time.monotonic() - started, 1), "peak_process_mib": peak}
        with contextlib.suppress(FileNotFoundError, ValueError):  # it was killed before it wrote, or while
            result["figures"] = json.loads(figures.read_text())
        if code:
            ended = f"given up after {seconds:.0f} s" if code == -signal.SIGKILL else f"ended with {code}"
            result["error"] = f"{' '.join(command[2:])} {ended}: {text[-_TAIL:].strip()}"
    if memory.peak_mib is not None:
        result["peak_gpu_mib"] = memory.peak_mib
    return result


def run_process(command: list[str], out: int, seconds: float) -> tuple[int, float]:
    """Run a command for so long at most; its exit code, and the most MiB that one of its processes took."""
    process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    killer = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
    killer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        killer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss / 1024


class MemoryPeak:
    """Looks twice a second at what all processes take of the first GPU.

    Attributes:
        peak_mib: the most that was seen; None without a GPU.
    """

    def __init__(self, device: Device) -> None:
        self.peak_mib: int | None = 0 if device is Device.CUDA else None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MemoryPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while self.peak_mib is not None and not self._done.wait(_LOOK_SECONDS):
            used = query_gpu("memory.used")
            self.peak_mib = max(self.peak_mib, int(used) if used.isdecimal() else 0)


if __name__ == "__main__":
    main()
