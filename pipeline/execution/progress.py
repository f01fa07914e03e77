"""How far a stage is: one live line in a terminal, plain lines elsewhere, and what Luigi's pages show."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from data_manifests.durations import describe_time_left
from pipeline.terminal import make_console

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

logger = logging.getLogger(__name__)

PLAIN_SECONDS = 10.0
"""Seconds between two plain lines."""

_STARTING = "starting; the first run on a machine compiles"
"""Said until the first images are done."""


class StageProgress:
    """Shows the progress of one stage.

    Args:
        title: name of the stage.
        total: rows in all.
        done: rows that were there before; they do not count for the speed, nor does the start.
        report: called about once a second with (share of the whole, line of text).
        later: seconds that the stages still to come will take, 0 where that is not known; and words that name those
            of which it is not.
    """

    def __init__(
        self,
        title: str,
        total: int,
        done: int = 0,
        report: Callable[[float, str], None] | None = None,
        later: tuple[float, str] = (0.0, ""),
    ) -> None:
        self._title = title
        self._total = total
        self._before = self._rows = done
        self._report = report
        self._later = later
        self._last_plain = time.monotonic()
        self._marks = [(self._last_plain, done)]
        self._live = _live_line() if sys.stderr.isatty() else None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
            self._task = self._live.add_task(self._title, total=self._total, completed=self._rows, text=_STARTING)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError):  # the terminal is gone; the work is not
                self._live.stop()

    @property
    def start(self) -> tuple[float, int]:
        """Seconds until the first images of this run were done, and how many those were; (0, 0) before."""
        (began, before), *first = self._marks
        return (first[0][0] - began, first[0][1] - before) if first else (0.0, 0)

    @property
    def speed(self) -> float:
        """Images a second of this run; since its first ones, as soon as there are more."""
        since, rows = next(mark for mark in reversed(self._marks) if mark[1] < self._rows or mark is self._marks[0])
        return (self._rows - rows) / max(time.monotonic() - since, 1e-9)

    def text(self) -> str:
        """The state in one line."""
        if self._rows == self._before:
            return _STARTING
        left = (self._total - self._rows) / self.speed
        rest = f", {describe_time_left(left)} left" if left else ""
        later, but = self._later
        rest += f", {describe_time_left(left + later)} with the stages that follow{but}" if later else ""
        return f"{self._rows:,} of {self._total:,} images, {self.speed:,.0f} images/s{rest}"

    def show(self, rows: int) -> None:
        """Show that `rows` rows are done in all, those from before included."""
        self._rows = rows
        text = self.text()
        if rows > self._before and len(self._marks) == 1:
            self._marks.append((time.monotonic(), rows))
        if self._live is not None:
            self._live.update(self._task, completed=rows, text=text)
        elif time.monotonic() - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = time.monotonic()
            logger.info("%s: %s", self._title, text)
        if self._report is not None:
            self._report(rows / max(self._total, 1), text)


def _live_line() -> Progress:
    """One line that is drawn anew in place."""
    name = TextColumn("{task.description:<26}", markup=False)
    text = TextColumn("{task.fields[text]}", markup=False)
    return Progress(name, BarColumn(bar_width=24), text, console=make_console(stderr=True), transient=True)
