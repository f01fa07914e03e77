"""The one command for a GPU runs whole on a processor; a step that fails or hangs costs nothing but its own figures."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_check
from benchmarks.gpu_check import STEPS, Step, run
from benchmarks.gpu_report import BEGIN, END, write_section
from data_manifests.weights.files import WeightsUnreachableError, fetch
from data_manifests.weights.registry import load_registry
from labelers.runtime.device import Device

ROOT = Path(__file__).resolve().parents[2]


def test_it_runs_whole_and_writes_its_section(tmp_path: Path) -> None:
    try:
        for name in ("fr_feature", "fr_pose"):
            fetch(load_registry().get(name))
    except WeightsUnreachableError as error:
        pytest.skip(f"the sample's weights cannot be fetched: {error}")
    figures, document = tmp_path / "gpu.json", tmp_path / "scale.md"
    document.write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n")
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--small"]
    # tests/training tries the trainings and how they go on; a processor beside itself has the same classes, and the
    # last one is like the nearest.
    left_out = {"training", "recognition", "resume", "same_classes", "all_pairs"}
    steps = {step.name for step in STEPS if step.small} - left_out
    command += ["--json", str(figures), "--document", str(document), "--steps", *sorted(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = json.loads(figures.read_text())
    assert set(found["steps"]) == steps
    assert not [step for step in found["steps"].values() if "error" in step]
    by_network = {line["network"]: line for line in found["steps"]["networks"]["figures"]["networks"]}
    assert by_network["fr_feature"]["least_cosine"] == pytest.approx(1.0, abs=1e-6)
    assert [s["stage"] for s in found["steps"]["labels"]["figures"]["stages"]][-1] == "labels"
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| fr_feature | float32 |" in text
    assert "Only a small run" in text
    assert "stale" not in text.partition(BEGIN)[2]


def here(folder: Path) -> argparse.Namespace:
    return argparse.Namespace(device=Device.CPU, small=False, json=folder / "gpu_check.json")


def test_packing_needs_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "PACKED", ("factors_mini",))
    gpu_check.main(["--pack", str(tmp_path / "packed")])
    assert (tmp_path / "packed" / "train.rec").is_file()
    assert (tmp_path / "packed" / "factors_mini" / "factors_mini.onnx").is_file()


@pytest.mark.parametrize(
    ("code", "seconds", "error"),
    [
        ("import time; print('begun', flush=True); time.sleep(60)", 3.0, "given up after 3 s"),
        ("raise SystemExit('no such thing')", 60.0, "no such thing"),
        ("print('never begun')", 0.0, "no time was left"),
    ],
)
def test_a_step_that_fails_or_hangs_says_so(
    code: str, seconds: float, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_step.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = run(Step(name="a", words=("a_step",), seconds=60.0), here(tmp_path), {}, seconds)
    assert error in found["error"]
    assert "figures" not in found


def test_the_section_is_added_where_there_is_none_and_tells_of_failures(tmp_path: Path) -> None:
    document = tmp_path / "scale.md"
    step = {"seconds": 3.0, "peak_process_mib": 100.0, "error": "python -m x ended with 1: Traceback\nNo such GPU"}
    found = {"gpu": "NVIDIA H200, 580.65.06, 143771", "machine": {"cores": 16, "processor": "X"}, "torch": "2.15"}
    never = run(Step(name="labels", words=("a",), seconds=60.0), here(tmp_path), {}, 0.0)
    steps = {"networks": step, "labels": never}
    found |= {"small": False, "seconds": 9.0, "versions": {"onnxruntime-gpu": "1.31.1"}, "steps": steps}
    write_section(document, found)
    once = document.read_text()
    assert "It failed: `No such GPU`" in once
    assert "It failed: `no time was left for it`" in once
    assert "NVIDIA H200" in once
    write_section(document, found)
    assert document.read_text() == once
