"""Denormal numbers become zero where networks and matrix products are computed.

Numbers below 1.2e-38 cost some processors a hundred times as much as others: with a few thousand of them among its
weights, a recogniser runs at a sixth of its rate on an Intel Xeon (Sapphire Rapids). The processor has a switch for
that, one a thread, which a new thread takes over from the one that starts it.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class _Switch:
    """Where C's `fenv_t` holds the switch.

    Attributes:
        offset: of the 32-bit register in bytes.
        bits: of the register, all to be set.
    """

    offset: int
    bits: int


_SWITCHES = {
    "x86_64": _Switch(offset=28, bits=0x8040),  # MXCSR: flush to zero, denormals are zero
    "aarch64": _Switch(offset=0, bits=1 << 24),  # FPCR: flush to zero
}
_SWITCH = _SWITCHES.get(platform.machine())
_FENV_BYTES = 64
"""More than `fenv_t` takes on either."""

# PyDLL: a call is too short to let other threads run meanwhile.
_C = ctypes.PyDLL("libm.so.6") if _SWITCH else None


@contextlib.contextmanager
def flush_denormals() -> Iterator[None]:
    """Within, this thread and those that it starts take denormal numbers for zero; then it is as before.

    Processors other than x86-64 and 64-bit ARM are left as they are.
    """
    before = flushes_denormals()
    _set(True)
    try:
        yield
    finally:
        _set(before)


def flushes_denormals() -> bool:
    """Whether this thread takes denormal numbers for zero."""
    if _SWITCH is None:
        return False
    return _register(_read(), _SWITCH).value & _SWITCH.bits == _SWITCH.bits


def _set(on: bool) -> None:
    """Turn the switch of this thread on or off."""
    if _C is None or _SWITCH is None:
        return
    state = _read()
    register = _register(state, _SWITCH)
    register.value = register.value | _SWITCH.bits if on else register.value & ~_SWITCH.bits
    _C.fesetenv(state)


def _read() -> ctypes.Array[ctypes.c_char]:
    """This thread's floating-point environment, as C sees it."""
    state = ctypes.create_string_buffer(_FENV_BYTES)
    if _C is not None:
        _C.fegetenv(state)
    return state


def _register(state: ctypes.Array[ctypes.c_char], switch: _Switch) -> ctypes.c_uint32:
    """The register that holds the switch, in place."""
    return ctypes.c_uint32.from_buffer(state, switch.offset)
