"""An installation that lacks something says what, and the remedy, in one message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_manifests.installation import REPAIR, SHARED_MODULES, SYSTEM_PACKAGES, find_fault, find_missing_library

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


def test_a_library_that_the_system_lacks_is_named(tmp_path: Path) -> None:
    """A minimal Debian; what cv2 raises there."""
    said = "libxcb.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").write_text(f"raise ImportError({said!r})\n")
    done = import_with(tmp_path, package="pipeline", bare=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {said}: install")
    assert done.stderr.count("\n") == 1
    listed = (ROOT / "docker" / "debian-packages.txt").read_text().split()
    assert set(listed) - {"g++"} == set(SYSTEM_PACKAGES.split())  # g++ is torch.compile's
