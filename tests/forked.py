"""Commands in processes of their own, forked from one that has imported the slow packages already.

A command spends a second of the processor on imports, or five where it needs PyTorch; the tests run hundreds. All else
is as if a shell had started it: its environment, umask, outputs and exit code, and the processes that it starts.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch
from luigi.cmdline import luigi_run

import pipeline.__main__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.process import BaseProcess

ROOT = Path(__file__).resolve().parent.parent

WIDTH = {"COLUMNS": "200"}
"""How wide tables are in what commands print."""

PACKAGES = ["luigi.cmdline", "pipeline.__main__", "polars", "scipy.stats", "matplotlib.figure", "torch"]
"""What is imported once; the tests of trainings add their own, before any of them runs."""

_AT_IMPORT = {**os.environ, **WIDTH}
_READ_AT_IMPORT = ("COLUMNS", "GOMP_", "LANG", "LC_", "LUIGI_", "MPL", "OMP_", "PYTHON", "TERM")
"""How variables begin that packages read when they are imported: with others of these a command is started anew."""


@functools.cache
def forking() -> multiprocessing.context.ForkServerContext:
    """Starts processes that have imported the slow packages."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PACKAGES)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WIDTH.items():
            patch.setenv(name, value)
        forkserver.ensure_running()
    return context


def run(words: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `luigi ...`, `python -m pipeline ...`, or any other command, which is not forked, in the project's folder.

    Args:
        words: of the command.
        environment: of the process.
    """
    early = [name for name in {**environment, **_AT_IMPORT} if name.startswith(_READ_AT_IMPORT)]
    is_as_imported = all(environment.get(name) == _AT_IMPORT.get(name) for name in early)
    if not is_as_imported or (words[0] != "luigi" and list(words[:3]) != ["python", "-m", "pipeline"]):
        program = [_beside(words[0]) if words[0] in {"luigi", "python"} else words[0], *words[1:]]
        return subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [str(Path(folder) / name) for name in ("stdout", "stderr")]
        os.umask(mask := os.umask(0))
        process = forking().Process(target=_be, args=(list(words), dict(environment), mask, outputs))
        process.start()
        process.join()
        texts = [Path(output).read_text() for output in outputs]
    return subprocess.CompletedProcess(list(words), process.exitcode, *texts)


def start(module: str, words: Sequence[str], environment: Mapping[str, str], log: Path) -> BaseProcess:
    """Start `python -m MODULE ...` of a training, on one thread.

    Args:
        module: with `main`.
        words: its arguments.
        environment: variables beside those of the tests.
        log: gets what it says, behind what is there.
    """
    process = forking().Process(target=_train, args=(module, list(words), dict(environment), log))
    process.start()
    return process


def _train(module: str, words: list[str], environment: dict[str, str], log: Path) -> None:
    """Be that training, from the fork on."""
    opened = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(opened, 1), os.dup2(opened, 2)
    os.environ.update({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment)
    torch.set_num_threads(1)
    sys.exit(importlib.import_module(module).main(words))


def _beside(program: str) -> str:
    """A program of the environment in which the tests run."""
    return str(Path(sys.executable).with_name(program))


def _be(words: list[str], environment: dict[str, str], mask: int, outputs: list[str]) -> None:
    """Be that command, from the fork on."""
    os.umask(mask)
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "wb", closefd=False)) for n in (1, 2))
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    # What multiprocessing has told this process of the tests, its own processes would do too.
    sys.modules["__main__"] = ModuleType("__main__")
    multiprocessing.process._parent_process = None
    multiprocessing.set_start_method("spawn", force=True)
    try:
        if words[0] == "python":
            sys.argv = words[2:]
            pipeline.__main__.main()
        else:
            sys.argv = [_beside("luigi"), *words[1:]]
            luigi_run(sys.argv[1:])
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
