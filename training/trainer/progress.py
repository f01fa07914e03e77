"""How far a training is: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from data_manifests.durations import describe_time_left

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

PLAIN_SECONDS = 10.0
"""Seconds between two plain lines."""


class TrainingProgress:
    """Shows the losses, the speed and the time left.

    Args:
        total: steps of the training.
        done: steps that were done before; they do not count for the speed.
        shown: whether this process shows anything; of several, one does.
        clock: gives seconds.
    """

    def __init__(
        self, *, total: int, done: int = 0, shown: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total
        self._clock = clock
        self._shown = shown
        self._images = 0
        self._busy = 0.0
        self._steps = 0
        self._last = self._last_plain = clock()
        self._live = _live_line() if shown and sys.stderr.isatty() else None
        self._task = TaskID(0)
        self._done = done

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
            self._task = self._live.add_task("training", total=self._total, completed=self._done, text="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError):  # the terminal is gone; the work is not
                self._live.stop()

    @property
    def speed(self) -> float:
        """Images a second over all processes since the start of this run, pauses left out."""
        return self._images / self._busy if self._busy else 0.0

    def resume(self) -> None:
        """Do not count the time since the last step: something else was done."""
        self._last = self._clock()

    def advance(self, images: int) -> None:
        """Count a step of so many images over all processes."""
        now = self._clock()
        self._busy += now - self._last
        self._last = now
        self._images += images
        self._steps += 1
        self._done += 1

    def text(self, phase: str, losses: Mapping[str, float]) -> str:
        """The state in one line."""
        parts = [f"{phase}, step {self._done:,} of {self._total:,}"]
        parts += [f"{name} {value:.4f}" for name, value in losses.items()]
        if self._steps:
            left = (self._total - self._done) * self._busy / self._steps
            parts.append(f"{self.speed:,.0f} images/s, {describe_time_left(left)} left")
        return ", ".join(parts)

    def show(self, phase: str, losses: Mapping[str, float]) -> None:
        """Show the state: at once in a terminal, every ten seconds elsewhere."""
        if self._done == self._total:
            self._last_plain = float("-inf")
        self.note(self.text(phase, losses))

    def note(self, text: str) -> None:
        """Show what is done between two steps; in a terminal at once, elsewhere every ten seconds."""
        if not self._shown:
            return
        if self._live is not None:
            self._live.update(self._task, completed=self._done, text=text)
        elif self._clock() - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = self._clock()
            logger.info("%s", text)


def _live_line() -> Progress:
    """One line that is drawn anew in place."""
    columns = (BarColumn(bar_width=16), TextColumn("{task.fields[text]}", markup=False))
    return Progress(*columns, console=Console(stderr=True, markup=False, emoji=False), transient=True)
