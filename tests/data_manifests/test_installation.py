"""An installation that lacks something says what, and the remedy, in one message."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_manifests.installation import REPAIR, SHARED_MODULES, SYSTEM_PACKAGES, find_fault, find_missing_library
from tests.mounting import may_mount

ROOT = Path(__file__).resolve().parents[2]


def import_with(*places: Path, package: str, bare: bool) -> subprocess.CompletedProcess[str]:
    """Import a package with folders before all others; bare: without the installed packages."""
    program = f"import sys; sys.path[:0] = {[str(place) for place in (*places, ROOT)]}; import {package}"
    command = [sys.executable, *(["-S"] if bare else []), "-c", program]
    return subprocess.run(command, cwd=places[0], env={**os.environ}, capture_output=True, text=True, check=False)


def test_this_one_is_whole() -> None:
    assert find_fault() == find_missing_library() == ""


@pytest.mark.parametrize("module", SHARED_MODULES)
def test_a_module_without_its_files_names_the_remedy(tmp_path: Path, module: str) -> None:
    for name in SHARED_MODULES:
        (tmp_path / name).mkdir()
        if name != module:
            (tmp_path / name / "__init__.py").touch()
    done = import_with(tmp_path, package="data_manifests", bare=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the module {module} is not whole")
    assert done.stderr.endswith(f"run `{REPAIR}`\n")


def run_without(library: str, *command: str, workspace: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module where a library's file is hidden under an empty one."""
    ctypes.CDLL(library)
    stem = library.partition(".so")[0]
    maps = Path("/proc/self/maps").read_text().splitlines()
    path = next(line.split()[-1] for line in maps if f"/{stem}.so" in line)
    empty = workspace / "empty"
    empty.touch()
    script = 'mount --bind "$0" "$1" && shift && exec "$@"'
    words = ["unshare", "-rm", "sh", "-c", script, str(empty), path, sys.executable, "-m", *command]
    environment = {**os.environ, **more, "FIQA_WORKSPACE": str(workspace)}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_systems_packages_are_those_of_the_image() -> None:
    listed = (ROOT / "docker" / "debian-packages.txt").read_text().split()
    assert set(listed) - {"g++"} == set(SYSTEM_PACKAGES.split())  # g++ is torch.compile's


@pytest.mark.skipif(not may_mount(), reason="needs a mount name space")
@pytest.mark.parametrize("library", ["libxcb.so.1", "libGL.so.1", "libgthread-2.0.so.0", "libglib-2.0.so.0"])
def test_a_library_that_the_system_lacks_is_named(library: str, tmp_path: Path) -> None:
    done = run_without(library, "pipeline", "status", workspace=tmp_path)
    assert done.returncode == 1
    assert library in done.stderr
    assert done.stderr.endswith(f"`apt-get install {SYSTEM_PACKAGES}`\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not may_mount(), reason="needs a mount name space")
@pytest.mark.parametrize("library", ["libEGL.so.1", "libGLESv2.so.2"])
def test_what_only_mediapipe_needs_is_missed_before_a_pose_is_measured(
    library: str, tmp_path: Path, real_data: Path
) -> None:
    status = run_without(library, "pipeline", "status", workspace=tmp_path)
    assert (status.returncode, status.stderr) == (0, "")
    words = ("luigi", "--module", "pipeline", "PoseAll", "--dataset", "sample", "--models-pose", "face_landmarker")
    done = run_without(library, *words, workspace=tmp_path, FIQA_MODELS=str(real_data / "models"))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    (told,) = [line for line in done.stderr.splitlines() if library in line]
    assert f"`apt-get install {SYSTEM_PACKAGES}`; or take another network for the pose" in told
    assert not list(tmp_path.glob("*/index"))
