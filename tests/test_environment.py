"""The environment and the tree keep their promises."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(("module", "provider"), [("onnxruntime", "onnxruntime-gpu"), ("cv2", "opencv-python")])
def test_one_provider_of_each_module(module: str, provider: str) -> None:
    assert set(importlib.metadata.packages_distributions()[module]) == {provider}


@pytest.mark.parametrize("name", ["onnxruntime", "opencv-contrib-python", "opencv-python-headless"])
def test_the_lock_never_installs_a_second_provider(name: str) -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.startswith(f"{name}==")]
    assert all("sys_platform == 'never'" in line for line in lines)


def test_the_lock_has_hashes_and_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text()
    packages = re.findall(r"^[a-z][^\s=]*==", text, re.MULTILINE)
    assert len(packages) > 80
    assert text.count("--hash=sha256:") >= len(packages)
    assert "://" not in text


def test_planning_loads_no_model_library() -> None:
    program = (
        "import sys, pipeline, pipeline.job\n"
        "print([m for m in ('torch', 'onnxruntime', 'mediapipe', 'onnx', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_processes_are_spawned() -> None:
    program = "import pipeline, multiprocessing; print(multiprocessing.get_start_method())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "spawn"


def test_every_line_of_luigi_cfg_is_explained() -> None:
    lines = [line for line in (ROOT / "luigi.cfg").read_text().splitlines() if line.strip()]
    section = ""
    for above, line in pairwise(lines):
        if line.startswith("["):
            section = line
        elif not line.startswith("#") and section != "[retcode]":
            assert above.startswith("#"), f"{section} {line} has no comment above it"
