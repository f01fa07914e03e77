"""Kernels are compiled once a machine: where the machine code is kept, and what happens where it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

KERNEL = """
import logging
logging.basicConfig(level=logging.WARNING)
from labelers.runtime.compilation import compile_kernel

@compile_kernel
def double(value: int) -> int:
    return 2 * value

print(double(21))
"""


def run_kernel(folder, environment):
    script = folder / "kernel.py"
    script.write_text(KERNEL)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    root = str(Path(__file__).parents[3])
    return subprocess.run(
        [sys.executable, str(script)], env=clean | {"PYTHONPATH": root} | environment, cwd=folder,
        capture_output=True, text=True, check=True,
    )  # fmt: skip


def test_kernels_are_kept_in_the_folder_that_is_named(tmp_path):
    done = run_kernel(tmp_path, {"NUMBA_CACHE_DIR": str(tmp_path / "kept")})
    assert done.stdout.strip() == "42"
    assert list((tmp_path / "kept").rglob("*double*.nbc"))


def test_kernels_are_kept_with_the_user_where_the_sources_are_read_only(tmp_path):
    (tmp_path / "__pycache__").write_text("a file where the folder should be: nothing can be written in it")
    done = run_kernel(tmp_path, {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home/cache")})
    assert done.stdout.strip() == "42"
    assert list((tmp_path / "home").rglob("*double*.nbc"))


def test_kernels_work_and_warn_where_nothing_can_be_kept(tmp_path):
    (tmp_path / "__pycache__").write_text("a file where the folder should be")
    done = run_kernel(tmp_path, {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/cache"})
    assert done.stdout.strip() == "42"
    assert "NUMBA_CACHE_DIR" in done.stderr
