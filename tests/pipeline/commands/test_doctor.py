"""What doctor says of a GPU, its driver and its libraries, and of the speed of networks."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from labelers.runtime.arithmetic import Seconds
from labelers.runtime.device import Device
from pipeline.commands.doctor import gpu as gpus
from pipeline.commands.doctor.command import needs_gpu
from pipeline.commands.doctor.finding import Verdict
from pipeline.commands.doctor.gpu import (
    Gpu,
    check_driver,
    check_gpu_memory,
    read_answer,
    read_driver,
    read_gpus,
    try_library,
)
from pipeline.commands.doctor.network_speed import check_core, check_network_speed
from tests.pipeline.conftest import ROOT, Factory
from tests.pipeline.shown import job_of

BUILT = {"PyTorch": "13.2", "ONNX Runtime": "13.0"}

PROC_OPEN = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder@U22-I3-AM02-24-3)  \
Sun Jul 27 07:15:42 UTC 2025
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
PROC_CLOSED = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024
GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)
"""
SMI_TABLE = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |
|-----------------------------------------+------------------------+----------------------+
"""
SMI_LIST = """\
NVIDIA H100 80GB HBM3, 81559, 80994, 580.95.05
NVIDIA GeForce RTX 3090, 24576, 1203, 580.95.05
"""
SMI_FAILS = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running."
)
SMI_MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95"

no_gpu = pytest.mark.skipif(any(p.exists() for p in gpus.DEVICES), reason="this machine has a GPU")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (PROC_OPEN, "580.65.06"),
        (PROC_CLOSED, "535.183.01"),
        (SMI_TABLE, "550.54.15"),
        (SMI_LIST, "580.95.05"),
        ("Tesla T4, 15360, 14910, 470.82", "470.82"),
        (SMI_FAILS, None),
        (SMI_MISMATCH, None),
        ("", None),
    ],
)
def test_reads_the_driver_of_real_texts(text: str, version: str | None) -> None:
    assert read_driver(text) == version


def test_reads_the_gpus_of_real_texts() -> None:
    h100 = Gpu(name="NVIDIA H100 80GB HBM3", total_mib=81_559, free_mib=80_994)
    rtx = Gpu(name="NVIDIA GeForce RTX 3090", total_mib=24_576, free_mib=1_203)
    assert read_gpus(SMI_LIST) == [h100, rtx]
    assert [read_gpus(text) for text in (SMI_FAILS, SMI_MISMATCH, SMI_TABLE)] == [[], [], []]
    found = check_gpu_memory(0, h100)
    assert (found.verdict, found.text) == (Verdict.OK, "NVIDIA H100 80GB HBM3, 80,994 of 81,559 MiB are free")
    crowded = check_gpu_memory(1, rtx)
    assert (crowded.verdict, crowded.subject) == (Verdict.NOTE, "GPU 1")
    assert "`nvidia-smi` names the processes" in crowded.text


@pytest.mark.parametrize(
    ("version", "built", "verdict", "said"),
    [
        ("580.65.06", BUILT, Verdict.OK, "580.65.06; PyTorch is built for CUDA 13.2, ONNX Runtime is built for"),
        ("595.10", BUILT, Verdict.OK, "595.10"),
        ("575.57.08", BUILT, Verdict.BAD, "575.57.08 is too old: PyTorch is built for CUDA 13.2, ONNX Runtime is"),
        ("575.57.08", BUILT, Verdict.BAD, "needs the driver family R580 or newer; install a newer driver on the host"),
        ("535.183.01", {"ONNX Runtime": "12.8"}, Verdict.OK, "535.183.01"),
        ("470.82", {"ONNX Runtime": "12.8"}, Verdict.BAD, "R525"),
        ("470.82", {}, Verdict.OK, "470.82"),
        (None, BUILT, Verdict.NOTE, "cannot be read"),
    ],
)
def test_a_driver_is_held_against_what_the_libraries_need(
    version: str | None, built: dict[str, str], verdict: Verdict, said: str
) -> None:
    found = check_driver(version, built, Verdict.BAD)
    assert found.verdict is verdict
    assert said in found.text


def test_an_error_names_the_file_that_is_missing_and_no_advice_to_run_this_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    errors = "[E:onnxruntime] Failed to load library x.so with error: libcudnn.so.9: cannot open shared object file\n\n"
    output = (
        "built for CUDA 13.0\nno usable GPU; run `python -m pipeline doctor` to see which, or choose the device cpu.\n"
    )
    answer = read_answer(1, output, errors)
    assert (answer.works, answer.cuda) == (False, "13.0")
    assert answer.text == (
        "no usable GPU, or choose the device cpu. (libcudnn.so.9: cannot open shared object file) "
        "(CUDA_VISIBLE_DEVICES is '3': it names the GPUs that are seen)"
    )
    assert "ended with code -11" in read_answer(-11, "built for CUDA 13.0\n", "").text
    assert read_answer(0, "built for CUDA 13.0\nfine\n", errors).text == "fine"


@pytest.mark.parametrize("library", gpus.LIBRARIES.values())
def test_a_library_is_tried_as_on_a_gpu(library: str) -> None:
    answer = try_library(library, Device.CPU)
    assert answer.works, answer.text
    assert answer.cuda.startswith("13.")


@no_gpu
@pytest.mark.parametrize(("library", "said"), [("torch", "no NVIDIA driver"), ("onnxruntime", "libcuda.so.1")])
def test_a_library_says_why_it_does_not_work_on_cuda(library: str, said: str) -> None:
    answer = try_library(library, Device.CUDA)
    assert not answer.works
    assert said in answer.text
    assert "pipeline doctor" not in answer.text
    assert answer.cuda.startswith("13.")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "code -11"),
        ("raise ImportError('libcudart.so.13: cannot open')", "libcudart.so.13: cannot open"),
        ("raise SystemExit(7)", "code 7"),
    ],
)
@pytest.mark.parametrize("library", gpus.LIBRARIES.values())
def test_a_broken_library_is_a_finding(
    library: str, broken: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{library}.py").write_text(broken)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    answer = try_library(library, Device.CUDA)
    assert (answer.works, answer.cuda) == (False, "")
    assert said in answer.text


@pytest.mark.skipif(not any(p.exists() for p in gpus.DEVICES), reason="needs a GPU")
def test_a_sound_gpu_passes(labelled_sample: Factory) -> None:
    said = labelled_sample.command("doctor", "--execution-device", "cuda", COLUMNS="10000").stdout
    for subject in ("GPU 0", "GPU driver", "PyTorch on cuda", "ONNX Runtime on cuda"):
        assert f"│ ok │ {subject}" in said


@pytest.mark.parametrize(("dask", "needed"), [("", True), ("local:2", True), ("tcp://host:8786", False)])
def test_a_gpu_is_needed_where_the_work_is_done(
    dask: str, needed: bool, labelled_sample: Factory, workspace_variable: None
) -> None:
    job = job_of(labelled_sample)
    assert not needs_gpu(job)
    settings = job.settings.model_copy(update={"device": Device.CUDA, "dask": dask})
    assert needs_gpu(replace(job, settings=settings)) is needed


def test_a_broken_onnxruntime_does_not_end_doctor(labelled_sample: Factory, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libonnxruntime.so: torn')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = labelled_sample.command("doctor", check=False, COLUMNS="10000", PYTHONPATH=path)
    assert done.returncode == 1
    assert (
        "ONNX Runtime does not work: libonnxruntime.so: torn; `rm -r .venv && make setup` installs it anew"
        in done.stdout
    )
    assert "│ ok │ data" in re.sub(" +", " ", done.stdout)


@no_gpu
def test_cuda_without_a_gpu_is_bad_and_names_the_remedy(labelled_sample: Factory) -> None:
    started = time.monotonic()
    done = labelled_sample.command("doctor", "--execution-device", "cuda", check=False, COLUMNS="10000")
    assert done.returncode == 1
    assert "install the driver of the machine's GPU" in done.stdout
    assert "or set [execution] device = cpu" in done.stdout
    assert "PyTorch on cuda" in done.stdout
    assert "libcuda.so.1: cannot open shared object file" in done.stdout
    assert time.monotonic() - started < 60


def test_a_sound_machine_has_no_warning_of_speed(labelled_sample: Factory) -> None:
    said = labelled_sample.command("doctor", COLUMNS="10000").stdout
    assert ("PyTorch on cuda" in said) == any(path.exists() for path in gpus.DEVICES)
    lines = [line for line in said.splitlines() if " speed " in line]
    assert len(lines) == 3
    # Other work may run beside these tests, and then doctor says so.
    assert all("│ ok " in line or "other processes had the core" in line for line in lines)


def test_a_slow_network_is_warned_of_with_its_cause() -> None:
    sound = check_network_speed("net", "net.onnx", Seconds(wall=0.010, core=0.010), 0.005)
    assert (sound.verdict, sound.text) == (
        Verdict.OK,
        "100 images/s on one core, 0.50 of what its arithmetic allows",
    )
    crowded = check_network_speed("net", "net.onnx", Seconds(wall=0.040, core=0.010), 0.005)
    assert crowded.verdict is Verdict.NOTE
    assert "0.12 of what its arithmetic allows; other processes had the core 75% of the time: end them" in crowded.text
    slow = check_network_speed("net", "net.onnx", Seconds(wall=0.100, core=0.099), 0.005)
    assert slow.verdict is Verdict.NOTE
    assert "0.05 of what its arithmetic allows" in slow.text
    assert "net.onnx" in slow.text
    assert "benchmarks.labels_speed" in slow.text


def test_a_processor_without_wide_arithmetic_is_noted() -> None:
    assert check_core(2e11, "flags\t\t: fpu sse sse2 avx avx2 fma\n").verdict is Verdict.OK
    assert check_core(2e11, "Features\t: fp asimd evtstrm\n").verdict is Verdict.OK
    narrow = check_core(2e10, "model name\t: avx2\nflags\t\t: fpu sse sse2 avx\n")
    assert narrow.verdict is Verdict.NOTE
    assert "20 GFLOP/s" in narrow.text
    assert "AVX2" in narrow.text
    assert check_core(2e11, Path("/proc/cpuinfo").read_text()).verdict is Verdict.OK
