"""Whether a GPU can be used: what the driver says of it, and what PyTorch and ONNX Runtime do on it.

The libraries are asked in a process of their own, which may hang or die of a driver that does not fit.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_manifests.installation import REPAIR
from labelers.runtime.device import Device
from pipeline.commands.doctor.finding import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of them is there where a GPU of NVIDIA is visible: under Linux, and in the Linux of Windows."""

DRIVER_FILE = Path("/proc/driver/nvidia/version")

_FAMILIES = {12: 525, 13: 580}
"""CUDA -> the oldest family of drivers that runs what is built for it. Source: NVIDIA, CUDA Compatibility."""

_QUERY = "name,memory.total,memory.free,driver_version"
_SECONDS = 120
"""After which a library that does not answer is given up; loading CUDA from a cold disk takes long."""

_UNTOLD = f"it says nothing and ended with code {{}} (negative: by that signal): `{REPAIR}` installs it anew"

_INVISIBLE = (
    "none is visible: install the driver of the machine's GPU (in a container: start it with the NVIDIA container "
    "toolkit and --gpus all), or set [execution] device = cpu"
)

_ADVICE = re.compile(r"[;,] (?:and )?(?:check with|run) `python -m pipeline doctor`(?: to see which)?")
"""What errors advise, which `doctor` itself need not."""

LIBRARIES = {"PyTorch": "torch", "ONNX Runtime": "onnxruntime"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """What the driver says of one GPU.

    Attributes:
        name: such as NVIDIA H100 80GB HBM3.
        total_mib: its memory.
        free_mib: of it.
    """

    name: str
    total_mib: int
    free_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a library did on a device.

    Attributes:
        works: whether it did what was asked.
        cuda: the CUDA that it is built for; empty where it is built without, or does not load.
        text: what it says, or its error.
    """

    works: bool
    cuda: str
    text: str


def check_gpu(*, needed: bool) -> Iterator[Finding]:
    """The GPUs, their driver, PyTorch and ONNX Runtime; nothing where none is visible and none is needed.

    Args:
        needed: whether the run computes on a GPU of this machine: what does not work is bad then, and a note otherwise.
    """
    visible = any(path.exists() for path in DEVICES)
    if not visible and not needed:
        return
    amiss = Verdict.BAD if needed else Verdict.NOTE
    answers = {name: try_library(library, Device.CUDA) for name, library in LIBRARIES.items()}
    if visible:
        yield from _check_driver({name: a.cuda for name, a in answers.items() if a.cuda}, amiss)
    else:
        yield Finding(verdict=amiss, subject="GPU", text=_INVISIBLE)
    for name, answer in answers.items():
        yield Finding(verdict=Verdict.OK if answer.works else amiss, subject=f"{name} on cuda", text=answer.text)


def _check_driver(built: dict[str, str], amiss: Verdict) -> Iterator[Finding]:
    """Every GPU with its memory, and whether the driver is new enough."""
    said = _nvidia_smi()
    gpus = read_gpus(said)
    for number, gpu in enumerate(gpus):
        yield check_gpu_memory(number, gpu)
    if not gpus:
        yield Finding(verdict=Verdict.NOTE, subject="GPU", text=f"nvidia-smi does not list it: {said}")
    version = read_driver(DRIVER_FILE.read_text() if DRIVER_FILE.is_file() else said)
    yield check_driver(version, built, amiss)


def _nvidia_smi() -> str:
    """The GPUs as nvidia-smi lists them, or what it says instead."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "it is not installed; it comes with the driver"
    words = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout.strip() or done.stderr.strip()) or _UNTOLD.format(done.returncode)


def read_gpus(text: str) -> list[Gpu]:
    """The GPUs that nvidia-smi lists; empty where it says something else.

    >>> read_gpus("NVIDIA H200, 143771, 143156, 580.65.06")
    [Gpu(name='NVIDIA H200', total_mib=143771, free_mib=143156)]
    """
    lines = re.findall(r"^(.+), (\d+), (\d+), [\d.]+$", text, re.MULTILINE)
    return [Gpu(name=name, total_mib=int(total), free_mib=int(free)) for name, total, free in lines]


def read_driver(text: str) -> str | None:
    """The version of the driver in what /proc/driver/nvidia/version or nvidia-smi says; None where it names none.

    >>> read_driver("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024")
    '535.183.01'
    """
    found = re.search(r"(?:^NVRM version: .*? |Driver Version: |, )(\d{3,}\.\d+(?:\.\d+)?)\b", text, re.MULTILINE)
    return found[1] if found else None


def check_gpu_memory(number: int, gpu: Gpu) -> Finding:
    """A GPU, and whether other programs hold most of it."""
    text = f"{gpu.name}, {gpu.free_mib:,} of {gpu.total_mib:,} MiB are free"
    crowded = 2 * gpu.free_mib < gpu.total_mib
    remedy = "; `nvidia-smi` names the processes that hold the rest" if crowded else ""
    return Finding(verdict=Verdict.NOTE if crowded else Verdict.OK, subject=f"GPU {number}", text=text + remedy)


def check_driver(version: str | None, built: dict[str, str], amiss: Verdict) -> Finding:
    """Whether a driver runs libraries that are built for some version of CUDA.

    Args:
        version: of the driver; None where it could not be read.
        built: library -> the CUDA that it is built for.
        amiss: the verdict of a driver that is too old.
    """
    libraries = ", ".join(f"{name} is built for CUDA {cuda}" for name, cuda in built.items())
    if version is None:
        text = f"its version cannot be read: neither {DRIVER_FILE} nor nvidia-smi names it; {libraries}"
        return Finding(verdict=Verdict.NOTE, subject="GPU driver", text=text)
    family = max((_FAMILIES.get(int(cuda.partition(".")[0]), 0) for cuda in built.values()), default=0)
    if int(version.partition(".")[0]) >= family:
        return Finding(verdict=Verdict.OK, subject="GPU driver", text=f"{version}; {libraries}")
    text = (
        f"{version} is too old: {libraries}, which needs the driver family R{family} or newer; install a newer driver "
        "on the host (a container uses the host's), or set [execution] device = cpu"
    )
    return Finding(verdict=amiss, subject="GPU driver", text=text)


def try_library(library: str, device: Device) -> Answer:
    """Try a library on a device, in a process of its own.

    Args:
        library: torch or onnxruntime.
        device: on which.
    """
    command = [sys.executable, "-m", "labelers.runtime.device_check", library, device.value]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return Answer(works=False, cuda="", text=f"no answer within {_SECONDS} s: start the driver or the machine anew")
    return read_answer(done.returncode, done.stdout, done.stderr)


def read_answer(code: int, output: str, errors: str) -> Answer:
    """What a library said in `labelers.runtime.device_check`, with the file that it lacks where it names one.

    Args:
        code: with which it ended.
        output: the CUDA that it is built for, and a line of text; less where it died.
        errors: what it wrote beside.
    """
    built = re.search(r"^built for CUDA (.+)\n", output, re.MULTILINE)
    cuda = built[1] if built else ""
    said = output[built.end() if built else 0 :].strip()
    if not code:
        return Answer(works=True, cuda=cuda, text=said)
    text = _ADVICE.sub("", said) or _UNTOLD.format(code)
    if missing := re.search(r"with error: (.+)", errors):
        text += f" ({missing[1]})"
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        text += f" (CUDA_VISIBLE_DEVICES is {given!r}: it names the GPUs that are seen)"
    return Answer(works=False, cuda=cuda, text=text)
