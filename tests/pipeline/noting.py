"""Work that leaves a note of every call. It stands alone, so that a worker process that is sent it starts quickly."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelers.runtime.denormals import flushes_denormals
from labelers.runtime.device import VISIBLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.execution.contract import PartWork
    from pipeline.storage.shards import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Leaves a file a call that names the process, and fails on chosen parts, on some at their first try alone."""

    folder: Path
    seconds: float = 0.0
    fails: tuple[int, ...] = ()
    kills: tuple[int, ...] = ()
    kills_once: tuple[int, ...] = ()
    inner: PartWork | None = None

    def __call__(self, part: Part, advance: Callable[[int], None]) -> dict[str, float]:
        (self.folder / f"{part.start}-{os.getpid()}-{time.time_ns()}").touch()
        time.sleep(self.seconds)
        if part.start in self.fails:
            raise ValueError(f"part {part.start} is bad")
        first = len(list(self.folder.glob(f"{part.start}-*"))) == 1
        if part.start in self.kills or (part.start in self.kills_once and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.inner is not None:
            return self.inner(part, advance)
        advance(part.rows)
        return {"process": os.getpid(), "flushes": flushes_denormals(), "gpu": float(os.environ.get(VISIBLE, "-1"))}
