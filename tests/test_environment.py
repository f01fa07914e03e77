"""The environment and the tree keep their promises."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import onnx
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(("module", "provider"), [("onnxruntime", "onnxruntime-gpu"), ("cv2", "opencv-python")])
def test_one_provider_of_each_module(module: str, provider: str) -> None:
    assert set(importlib.metadata.packages_distributions()[module]) == {provider}


@pytest.mark.parametrize(
    "name", ["onnxruntime", "opencv-contrib-python", "opencv-python-headless", "openvino-telemetry"]
)
def test_the_lock_never_installs_what_is_kept_out(name: str) -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.startswith(f"{name}==")]
    assert all("sys_platform == 'never'" in line for line in lines)


def test_the_lock_has_hashes_and_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text()
    packages = re.findall(r"^[a-z][^\s=]*==", text, re.MULTILINE)
    assert len(packages) > 80
    assert text.count("--hash=sha256:") >= len(packages)
    assert "://" not in text


def test_polars_takes_no_path_for_a_pattern() -> None:
    """A folder may be called faces [v2]: every path given to Polars is literal."""
    readers = {"scan_parquet", "read_parquet", "scan_csv", "read_csv"}
    folders = ("pipeline", "labelers", "training", "data_manifests", "examples", "benchmarks")
    calls = [
        (path, call)
        for path in sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in readers
        if isinstance(call.func.value, ast.Name) and call.func.value.id == "pl"
    ]
    assert calls
    for path, call in calls:
        literal = any(key.arg == "glob" and getattr(key.value, "value", True) is False for key in call.keywords)
        assert literal, f"{path}:{call.lineno}: give glob=False"


def test_planning_loads_no_heavy_library() -> None:
    program = (
        "import sys, pipeline.__main__\n"
        "heavy = ['torch', 'onnxruntime', 'openvino', 'mediapipe', 'onnx', 'numba', 'scipy', 'dask', 'cv2', 'polars']\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_onnx_runtime_reports_nothing(tmp_path: Path) -> None:
    """By itself it does, from version 1.29 on: it makes a number for the machine and a store of what to send."""
    network = tmp_path / "same.onnx"
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("a", "b")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["a"], ["b"])], "same", value[:1], value[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), network)
    stays = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "ORT_", "GITHUB_"))}
    for package in ("data_manifests", "labelers", "training", "pipeline"):
        home = tmp_path / package
        home.mkdir()
        program = f"import {package}, onnxruntime; onnxruntime.InferenceSession({str(network)!r})"
        environment = {**stays, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
        assert not [path for path in home.rglob("*") if "onnxruntime" in path.name.lower()]


def test_openvino_reports_nothing(tmp_path: Path) -> None:
    """By itself it does when it is imported, where the package for that is there."""
    package = tmp_path / "openvino_telemetry"
    package.mkdir()
    (package / "__init__.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'loaded')!r}).touch()\nraise ImportError('for this test')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    for first, loaded in (("data_manifests, labelers, training, pipeline, ", False), ("", True)):
        program = f"import {first}openvino"
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
        assert (tmp_path / "loaded").exists() == loaded


@pytest.mark.parametrize(
    ("given", "turns"), [({}, 1_000), ({"GOMP_SPINCOUNT": "7"}, 7), ({"OMP_WAIT_POLICY": "active"}, 30e9)]
)
def test_threads_that_wait_for_each_other_sleep_soon_unless_told_otherwise(given: dict[str, str], turns: int) -> None:
    """So says the library of PyTorch's threads, which reads its variables when it is loaded."""
    stays = {name: value for name, value in os.environ.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    command = [sys.executable, "-m", "training.score", "--help"]
    environment = {**stays, **given, "OMP_DISPLAY_ENV": "verbose"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert f"GOMP_SPINCOUNT = '{turns:.0f}'" in done.stderr


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
