"""A line for every part that a process begins or ends: after a crash it tells what was in hand."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.storage.shards import Part

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.execution.contract import PartWork

NAME = "parts.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Journalled:
    """Work on parts that leaves a trail beside the stage's receipts.

    Attributes:
        work: what is done.
        path: the journal, to which every process appends.
    """

    work: PartWork
    path: Path

    def __call__(self, part: Part, advance: Callable[[int], None]) -> dict[str, float]:
        """Do the part between two lines."""
        self._note("begin", part)
        figures = self.work(part, advance)
        self._note("end", part)
        return figures

    def _note(self, event: str, part: Part) -> None:
        """Append one line; one write of a short line is never mixed with another process's."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = f"{now} {event} {part.shard} {part.start} {part.stop} {os.getpid()}\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)


def count_begins(path: Path) -> dict[Part, int]:
    """How often each part was begun; more than once only after a crash or an error."""
    counts: dict[Part, int] = {}
    for line in path.read_text().splitlines():
        _, event, shard, start, stop, _ = line.split()
        if event == "begin":
            part = Part(shard=int(shard), start=int(start), stop=int(stop))
            counts[part] = counts.get(part, 0) + 1
    return counts
