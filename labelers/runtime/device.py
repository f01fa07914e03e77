"""Where heavy work runs. A module of its own, since what only names a device must not load a runtime."""

from __future__ import annotations

import ctypes
import os
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Device(StrEnum):
    """Where a network runs, or where class centres are compared."""

    CPU = "cpu"
    CUDA = "cuda"


class ProviderError(RuntimeError):
    """The device asked for cannot be used; says what to install or choose."""


_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of CUDA's driver."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The environment variable by which CUDA shows a process some of the GPUs."""


def list_gpus() -> list[str]:
    """The GPUs that CUDA shows here, each as `VISIBLE` names it; none where there is no driver."""
    count = _count_gpus()
    names = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return (names or [str(number) for number in range(count)])[:count]


def _count_gpus() -> int:
    """How many CUDA shows here, by its driver; 0 where there is none."""
    return _ask_driver("cuDeviceGetCount") or 0


def gpu_capability() -> tuple[int, int] | None:
    """Compute capability of the first GPU, such as (9, 0), by its driver; None where there is none."""
    major, minor = (_ask_driver("cuDeviceGetAttribute", attribute, 0) for attribute in _CAPABILITY)
    return None if major is None or minor is None else (major, minor)


def _ask_driver(function: str, *arguments: int) -> int | None:
    """The number that a function of CUDA's driver gives; None where there is no driver, or it has none to give."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    found = ctypes.c_int(0)
    failed = cuda.cuInit(0) or getattr(cuda, function)(ctypes.byref(found), *arguments)
    return None if failed else found.value


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


class TorchProducts:
    """Products of float32 matrices by PyTorch, on the device that is called so.

    Args:
        device: such as cpu or cuda.
        what: what was to be done on it, for the error.

    Raises:
        ProviderError: if it is cuda and cannot be used.
    """

    def __init__(self, device: str, what: str) -> None:
        # Here because importing PyTorch takes seconds, and the processor's way does without it.
        import torch  # noqa: PLC0415

        if device == "cuda" and not torch.cuda.is_available():
            raise ProviderError(
                f"{what} on cuda, but PyTorch finds no GPU; run `python -m pipeline doctor`, or choose the device cpu"
            )
        self.torch = torch
        self.device = torch.device(device)

    def move(self, array: NDArray[Any]) -> Any:
        """A copy of an array on the device; waits until the device has it."""
        return self.torch.tensor(array, device=self.device)

    def multiply(self, left: Any, right: Any, room: Any) -> Any:
        """The products of all rows of `left` [R, D] with all of `right` [C, D]: [R, C], at the start of `room`.

        They are float32 on a GPU too, whatever the process has set: tensor-float products are off by 1e-3, more than a
        search for the largest of many similarities allows for.
        """
        products = room[: len(left) * len(right)].view(len(left), len(right))
        matmul = self.torch.backends.cuda.matmul
        before, matmul.allow_tf32 = matmul.allow_tf32, False
        try:
            self.torch.mm(left, right.T, out=products)
        finally:
            matmul.allow_tf32 = before
        return products
