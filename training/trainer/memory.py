"""What a training on a processor asks of the system's memory."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Settings of glibc's `mallopt`."""


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where the C library can.

    Every step asks for the same large blocks. By default the system takes each back when it is freed, and the next step
    waits while it is given out again, zeroed page by page: a MobileFaceNet trains 1.3 to 1.7 times as fast without.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl has not
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
