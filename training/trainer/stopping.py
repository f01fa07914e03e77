"""A polite end: a signal is remembered, and the training stops where it can be taken up again."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

EXIT_CODE = 75
"""Of a training that was told to stop and has saved: EX_TEMPFAIL of sysexits.h, 'try again later'."""


class StopRequest:
    """Whether the process was told to stop.

    Attributes:
        made: set by the first signal.
    """

    def __init__(self) -> None:
        self.made = False

    def take(self, number: int, _frame: FrameType | None) -> None:
        """Remember a signal; a second Ctrl-C ends the process at once."""
        if self.made and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.made = True


@contextlib.contextmanager
def remember_signals() -> Iterator[StopRequest]:
    """Take SIGTERM and Ctrl-C as a request, and put back what was set before."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, request.take) for number in numbers]
    try:
        yield request
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
