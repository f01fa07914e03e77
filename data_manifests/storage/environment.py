"""Environment variables that are set for a while, versions of packages, and memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for this block, and for the processes that are started in it; then put back what was there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""What a container may take, under both kinds of control groups."""


def memory_bytes() -> int:
    """The memory of this machine, or what its container may take of it."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # ValueError: the word max
            found.append(int(path.read_text()))
    return min(found)


def peak_bytes() -> int:
    """The most memory that this process has held at once, by Linux; 0 where that is not told.

    The system's other figure, ru_maxrss, begins with the memory of the process that started this one.
    """
    try:
        told = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(told[1]) * 1024 if told else 0


def version_of(package: str) -> str:
    """The version of a package, or "none": a run that does not need it goes without."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
