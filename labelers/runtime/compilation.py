"""How this package compiles its inner loops: once a machine, not once a process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger(__name__)


def compile_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function with numba at its first call and keep the machine code on the disk.

    Numba keeps it beside the source; where that folder is read-only, in the user's cache folder; or always in
    `NUMBA_CACHE_DIR` when that is set. Where none of them can be written the function still compiles, in every
    process anew, and a warning says how to avoid that. Floating point is strict: no reordering, no fused operations,
    so that thresholds fall as in the reference programs. The kernel releases the GIL and uses one thread.

    A kernel calls only kernels of its own file: numba does not notice when a function of another file has changed.
    """
    try:
        compiled: Callable[P, R] = njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        log.warning(
            "no folder can keep the compiled %s, so every process compiles it again; "
            "set NUMBA_CACHE_DIR to a folder that can be written",
            function.__name__,
        )
        compiled = njit(nogil=True, error_model="numpy")(function)
    return compiled
