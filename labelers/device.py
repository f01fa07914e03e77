"""Where heavy work runs. A module of its own, since what only names a device must not load a runtime."""

from __future__ import annotations

from enum import StrEnum


class Device(StrEnum):
    """Where a network runs, or where class centres are compared."""

    CPU = "cpu"
    CUDA = "cuda"


class ProviderError(RuntimeError):
    """The device asked for cannot be used; says what to install or choose."""
