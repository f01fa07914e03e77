"""What a Dask cluster is to the factory, and what its workers do. Nothing here imports Dask, nor Luigi.

Descriptions of parts travel to the workers and a few figures come back. Pixels and tables do not: a worker reads images
and stages parts in the folder that all hosts share, as a process of this machine does.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from data_manifests.storage.environment import version_of
from pipeline.execution.contract import PartOutcome, attempt, quieten_process
from pipeline.storage.receipts import PACKAGES, machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.execution.contract import PartWork
    from pipeline.storage.shards import Part

GPU = "GPU"
"""The Dask resource of workers that have a GPU: dask worker --resources GPU=1."""

START_WORKERS = "FIQA_WORKER=1 dask worker {address} --nworkers 8 --nthreads 1"
"""The command that starts workers on a host."""

_LOCAL = "local:"
_ADDRESS = re.compile(r"local:0*[1-9][0-9]*|(tcp|tls)://.+:[0-9]+")
_TRAVEL = ("cloudpickle", "dask", "distributed", "msgpack")
_NOT_ON_WORKERS = ("luigi",)


class ClusterError(RuntimeError):
    """The cluster cannot do the work, or is gone; says which cluster or worker, why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A Dask cluster, and what it needs for one stage.

    Attributes:
        address: tcp://host:port of the scheduler, or local:N for N processes of this machine.
        folder: a folder that every worker has to see; parts are staged below it.
        on_gpu: whether the work wants workers that declare the resource GPU; other work leaves these alone. Where all
            workers are of one kind, they do all work.
        wait_seconds: how long a scheduler may be silent, and how long there may be no fit worker.
    """

    address: str
    folder: Path
    on_gpu: bool = False
    wait_seconds: float = 30.0

    @property
    def local_processes(self) -> int:
        """How many processes of this machine make the cluster; 0 where it runs elsewhere."""
        return int(self.address.removeprefix(_LOCAL)) if self.address.startswith(_LOCAL) else 0


def check_address(address: str) -> str:
    """Return the address of a cluster.

    Raises:
        ValueError: if it is none; says what is allowed.
    """
    if not _ADDRESS.fullmatch(address):
        raise ValueError(
            f"dask = {address!r}: give tcp://host:8786, tls://host:8786, local:N for N processes, or nothing"
        )
    return address


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a process says of itself.

    Attributes:
        sees_folder: whether it sees the shared folder.
        versions: versions of Python and of the packages that make numbers or carry work; "none" where one is missing.
        code: SHA-256 of the factory's code.
        processor: the kind of processor.
    """

    sees_folder: bool
    versions: dict[str, str]
    code: str
    processor: str


@contextlib.contextmanager
def show_token(folder: Path) -> Iterator[Path]:
    """Put a file into the shared folder for this block; its name holds what stands in it.

    A killed run leaves it to `remove_leftovers`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / f".cluster-token.{uuid.uuid4().hex[:8]}.tmp"
    token.write_text(token.name)
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


def examine(token: Path) -> Standing:
    """Say what this process is, and whether it sees the token."""
    try:
        sees = token.read_text() == token.name
    except OSError:
        sees = False
    return Standing(sees_folder=sees, versions=_versions(), code=_hash_code(), processor=str(machine()["processor"]))


def find_faults(worker: Standing, here: Standing, folder: Path) -> list[str]:
    """Why a worker must not compute, each in one clause with its remedy; empty if it may."""
    faults = []
    if not worker.sees_folder:
        faults.append(
            f"does not see {folder}: mount it there at the same path, or set FIQA_WORKSPACE to a folder of all hosts"
        )
    differing = [
        f"{name} {worker.versions.get(name, 'none')} where this machine has {version}"
        for name, version in here.versions.items()
        if worker.versions.get(name) != version
    ]
    if differing:
        faults.append(f"has {', '.join(differing)}: install the same versions (requirements.lock)")
    elif worker.code != here.code:
        faults.append("runs other code of the factory: install the same there and start the worker anew")
    return faults


def compute_part(work: PartWork, part: Part, token: Path, here: Standing) -> tuple[str, PartOutcome]:
    """Compute one part in a Dask worker. Rows in between are not reported: the outcome is what travels.

    Args:
        work: the function.
        part: what to compute.
        token: the file that shows the shared folder.
        here: what the process says of itself that sent the part.

    Returns:
        The kind of processor, and how the part went.

    Raises:
        ClusterError: if this worker must not compute; says why.
    """
    standing = examine(token)
    if faults := find_faults(standing, here, token.parent):
        raise ClusterError("; it ".join(faults))
    _prepare()
    return standing.processor, attempt(work, part, lambda _: None)


_prepare = lru_cache(maxsize=1)(quieten_process)
"""Quiets a worker, once."""


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    """Versions of Python and packages in this process."""
    names = [name for name in (*PACKAGES, *_TRAVEL) if name not in _NOT_ON_WORKERS]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"python": python, **{name: version_of(name) for name in names}}


@lru_cache(maxsize=1)
def _hash_code() -> str:
    """SHA-256 over the factory's code as this process first saw it: a worker that outlives a change is found out."""
    root = Path(__file__).resolve().parents[2]
    state = hashlib.sha256()
    for package in ("data_manifests", "labelers", "pipeline"):
        for path in sorted((root / package).rglob("*.py")):
            state.update(f"{path.relative_to(root)}\n".encode())
            state.update(path.read_bytes())
    return state.hexdigest()
