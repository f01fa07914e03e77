"""What a measurement of speed needs: time over repeated steps, the memory meanwhile, and the device's ceiling."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from timeit import repeat
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

T = TypeVar("T")

_MIB = 1 << 20
_SAMPLE_SECONDS = 0.1
_MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}
_MATRIX_ROUNDS = {"cpu": 1, "cuda": 10}
WARM_UP = {"cpu": 1, "cuda": 10}
"""Steps before the clock starts: a GPU tries algorithms and fills its allocator first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """So many images in so many steps.

    Attributes:
        images: in all timed steps.
        steps: that were timed.
        seconds: that they took.
        cold: whether the first step had to count, because it alone took longer than was granted.
    """

    images: int
    steps: int
    seconds: float
    cold: bool = False

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One line of the table.

    Attributes:
        name: what was measured.
        timing: how fast it was.
        trains: whether the image tower was trained, so that its ceiling holds.
        rss_mib: the most that this process and its workers held at once; pages that workers share count in each.
        gpu_mib: the most that tensors took on the GPU; None without one.
    """

    name: str
    timing: Timing
    trains: bool
    rss_mib: float
    gpu_mib: float | None


def time_steps(
    step: Callable[[], int],
    seconds: float,
    device: torch.device,
    *,
    warm_up: int | None = None,
    impatient: bool = False,
) -> Timing:
    """Repeat a step for some seconds, after a few that do not count.

    Args:
        step: does its work and says how many images it took.
        seconds: to go on for; at least one step is timed.
        device: whose work is waited for before a clock is read.
        warm_up: steps before; by default as the device needs it.
        impatient: whether the first step counts, and is the only one, if it alone takes longer.
    """
    for _ in range(WARM_UP[device.type] if warm_up is None else warm_up):
        started = time.perf_counter()
        images = step()
        wait_for(device)
        if impatient and (spent := time.perf_counter() - started) > seconds:
            return Timing(images=images, steps=1, seconds=spent, cold=True)
    started, images, steps = time.perf_counter(), 0, 0
    while not steps or time.perf_counter() - started < seconds:
        images += step()
        steps += 1
    wait_for(device)
    return Timing(images=images, steps=steps, seconds=time.perf_counter() - started)


def measure(name: str, device: torch.device, work: Callable[[], Timing], *, trains: bool = False) -> Part:
    """Do a piece of work that times itself, and watch the memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with MemoryWatch() as memory:
        timing = work()
    gpu = torch.cuda.max_memory_allocated(device) / _MIB if device.type == "cuda" else None
    return Part(name=name, timing=timing, trains=trains, rss_mib=memory.peak / _MIB, gpu_mib=gpu)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class UntilStopped(Iterable[T]):
    """Goes on with what another iterable gives until it is told to stop.

    Processes that work ahead are ended by letting them run dry: one that is ended in the middle of a hand-over aborts
    while Python shuts down, and PyTorch then raises wherever its parent happens to be.

    Attributes:
        stopped: set it, and take what comes still.
    """

    def __init__(self, source: Iterable[T]) -> None:
        self._source = source
        self.stopped = False

    def __iter__(self) -> Iterator[T]:
        for item in self._source:
            if self.stopped:
                return
            yield item


class MemoryWatch:
    """Looks ten times a second at the resident memory of this process and of the processes that it started.

    Attributes:
        peak: the most that was seen, in bytes. The system keeps such a peak too, but one for the whole life of a
            process, which says nothing of a single part.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        processes = (os.getpid(), *(child.pid for child in multiprocessing.active_children()))
        self.peak = max(self.peak, sum(map(_resident_bytes, processes)))


def _resident_bytes(process: int | None) -> int:
    """Resident memory of a process; 0 when it has just ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


def matrix_rate(device: torch.device, kind: torch.dtype) -> float:
    """FLOP a second of a large matrix product of random numbers, the best of a few: it stands for a ceiling.

    On a processor NumPy's product counts too where it is faster: PyTorch's library holds processors of AMD back.
    """
    side, rounds = _MATRIX_SIDE[device.type], _MATRIX_ROUNDS[device.type]
    left, right = (torch.randn(side, side, device=device).to(kind) for _ in range(2))

    def multiply() -> float:
        wait_for(device)
        started = time.perf_counter()
        for _ in range(rounds):
            torch.mm(left, right)
        wait_for(device)
        return (time.perf_counter() - started) / rounds

    multiply()
    best = min(multiply() for _ in range(5))
    if device.type == "cpu" and kind == torch.float32:
        arrays = left.numpy(), right.numpy()
        best = min(best, *repeat(lambda: np.matmul(*arrays), number=1, repeat=5))
    return 2 * side**3 / best


def count_flops(network: nn.Module, side: int) -> float:
    """FLOP of one image of so many pixels a side, forward and backward; 36.65e9 for RN50 at 224 pixels."""
    # On the device `meta` shapes alone are computed, so this takes no time and leaves batch statistics as they are.
    network = copy.deepcopy(network).to("meta")
    pixels = torch.empty((2, 3, side, side), device="meta")
    with FlopCounterMode(display=False) as counter:
        network(pixels).sum().backward()
    return float(counter.get_total_flops()) / len(pixels)


def count_waits(step: Callable[[], object], device: torch.device) -> int | None:
    """How often a step makes the processor wait for the GPU, as far as PyTorch tells; None without a GPU."""
    if device.type != "cuda":
        return None
    wait_for(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)
