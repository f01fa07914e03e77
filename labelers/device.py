"""Where heavy work runs. A module of its own, since what only names a device must not load a runtime."""

from __future__ import annotations

import contextlib
import ctypes
import os
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Device(StrEnum):
    """Where a network runs, or where class centres are compared."""

    CPU = "cpu"
    CUDA = "cuda"


class ProviderError(RuntimeError):
    """The device asked for cannot be used; says what to install or choose."""


VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The environment variable by which CUDA shows a process some of the GPUs."""


def list_gpus() -> list[str]:
    """The GPUs that CUDA shows here, each as `VISIBLE` names it; none where there is no driver."""
    count = _count_gpus()
    names = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return (names or [str(number) for number in range(count)])[:count]


def _count_gpus() -> int:
    """How many CUDA shows here, by its driver; 0 where there is none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    return 0 if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) else count.value


def choose_gpus(wanted: int) -> list[str]:
    """The first so many GPUs that CUDA shows here.

    Raises:
        ProviderError: if there are fewer.
    """
    found = list_gpus()
    if len(found) < wanted:
        raise ProviderError(
            f"asked for {wanted} GPU(s), and CUDA shows {len(found)} here: ask for as many as there are, choose the"
            f" device cpu, or mend the driver or {VISIBLE}; `python -m pipeline doctor` shows what there is"
        )
    return found[:wanted]


def torch_device(name: str, what: str) -> Any:
    """The device of PyTorch that is called so, such as cpu or cuda.

    Args:
        name: the device.
        what: what was to be done on it, for the error.

    Raises:
        ProviderError: if it is cuda and cannot be used.
    """
    # Here because importing PyTorch takes seconds.
    import torch  # noqa: PLC0415

    if name == "cuda" and not torch.cuda.is_available():
        raise ProviderError(
            f"{what} on cuda, but PyTorch finds no GPU; run `python -m pipeline doctor`, or choose the device cpu"
        )
    return torch.device(name)


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Within, matrix products of PyTorch on a GPU are float32, whatever the process has set.

    Tensor-float products are off by 1e-3: more than a search for the largest of many similarities allows for.
    """
    import torch  # noqa: PLC0415

    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        yield
    finally:
        matmul.allow_tf32 = before
