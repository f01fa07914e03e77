"""The parts of our trainings by themselves, each made of the objects that the trainings use."""

from __future__ import annotations

import math
import os
import platform
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, Dataset

from benchmarks.speed_probe import (
    WARM_UP,
    Timing,
    UntilStopped,
    count_waits,
    matrix_rate,
    measure,
    time_steps,
    wait_for,
)
from labelers.faces import SIDE
from labelers.runtime.device import Device
from pipeline.storage.receipts import machine
from training.trainer.compilation import Compilation
from training.trainer.feeding import MicroBatch
from training.trainer.loader import Loader
from training.trainer.sampler import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.speed_report import Report
    from training.trainer.feeding import Tensors
    from training.trainer.loader import Images
    from training.trainer.trainer import Learner, LoopSettings, Trainer

LOADER, MODEL, BOTH = "loader alone", "model alone", "loader and model: the trainer"
LEAST_STEPS = 3
WORKER_COUNTS = (1, 2, 4, 8, 16)
TABLE_BATCH = 256
"""Images that a worker's batch holds in the table of workers, whatever the training's batch."""

_PROCESSOR = torch.device("cpu")


class Training(Protocol):
    """A training of quality or of recognition."""

    trainer: Trainer[Any]

    def run(self, limit: int | None = None) -> object:
        """Train for so many steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is measured, and where.

    Attributes:
        config: of the training; says whether it computes in bfloat16, and whether it is compiled.
        data: what it learns from.
        device: where it is trained.
        seconds: for each part.
    """

    config: Any
    data: Images
    device: torch.device
    seconds: float


def measure_loader(report: Report, setting: Setting) -> None:
    """The ceiling, and the loader by itself."""
    config, data, device = setting.config, setting.data, setting.device
    measure_ceiling(report, device)
    rows = Rows(images=len(data), batch=config.batch, seed=config.seed)
    report.add(measure(LOADER, device, lambda: time_loader(data, rows, config.threads, setting.seconds, device)))


def measure_training(report: Report, setting: Setting, training: Training, step: SyntheticStep) -> None:
    """The model by itself, and the trainer that joins it and the loader."""
    config, device, seconds = setting.config, setting.device, setting.seconds
    impatient = device.type == Device.CPU and config.compiled in {Compilation.NO, Compilation.AUTO}
    report.add(measure(MODEL, device, lambda: time_steps(step, seconds, device, impatient=impatient), trains=True))
    report.waits = count_waits(step, device)
    steps = max(LEAST_STEPS, math.ceil(seconds * report.rate(MODEL) / config.batch))
    images = len(setting.data)
    report.add(measure(BOTH, device, lambda: time_trainer(training, config, images, steps, device), trains=True))
    measure_ceiling(report, device)


def measure_ceiling(report: Report, device: torch.device) -> None:
    """The rate of a matrix product; of several calls the best counts, since other work can only slow it down."""
    for kind in (torch.bfloat16, torch.float32):
        name, rate = str(kind).removeprefix("torch."), matrix_rate(device, kind) / 1e12
        report.matrix_tflops[name] = max(rate, report.matrix_tflops.get(name, 0.0))


def describe(setting: Setting, text: str) -> dict[str, Any]:
    """What is measured, and on what; `text` says of what the images are."""
    config, device = setting.config, setting.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "processor",
        "processor": machine()["processor"],
        "cores": len(os.sched_getaffinity(0)),
        "compute_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "batch": config.batch,
        "bf16": config.bf16,
        "channels_last": config.channels_last,
        "compiled": config.compiled,
        "loader_threads": config.threads,
        "images": len(setting.data),
        "faces": text,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of every batch of a training without an end."""

    images: int
    batch: int
    seed: int

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        sampler = Sampler(images=self.images, batch=self.batch, seed=self.seed)
        return (work.rows for work in sampler.work(0, sys.maxsize))


def time_loader(data: Images, rows: Rows, threads: int, seconds: float, device: torch.device) -> Timing:
    """The training's own loader, in the order of the training."""
    with Loader(data, threads=threads, pinned=device.type == "cuda") as loader:
        batches = loader.batches(rows)
        return time_steps(lambda: len(next(batches).rows), seconds, device)


class SyntheticStep:
    """The trainer's step on noise that lies on the device already: forward, losses, backward, clipping, optimiser.

    Args:
        learner: what is trained.
        count: images in a step.
        targets: of the images, on the device.
        counts: how many of them have the label of each term.
        device: where it is trained.
    """

    def __init__(
        self, learner: Learner, count: int, targets: Tensors, counts: Sequence[int], device: torch.device
    ) -> None:
        self._learner = learner
        self._micro = MicroBatch(
            images=torch.randint(0, 256, (count, SIDE, SIDE, 3), dtype=torch.uint8, device=device),
            flipped=torch.rand(count, device=device) < 0.5,
            targets=targets,
            counts=counts,
            last=True,
        )

    def __call__(self) -> int:
        """One step; returns the number of images."""
        self._learner.forward_backward(self._micro)
        self._learner.optimizer_step(1.0)
        return len(self._micro.images)


def time_trainer(training: Training, config: LoopSettings, images: int, steps: int, device: torch.device) -> Timing:
    """Let a new training train, and read the clock behind every step of its optimiser.

    Left out is what lies before the first step and behind the last: starting the threads, and saving.
    """
    warm_up = WARM_UP[device.type]
    clock = _StepClock(device)
    hook = register_optimizer_step_post_hook(clock)
    try:
        training.run(limit=warm_up + steps)
    finally:
        hook.remove()
    bounds = Sampler(images=images, batch=config.batch, seed=config.seed).bounds()
    places = [step % (len(bounds) - 1) for step in range(warm_up, warm_up + steps)]
    done = sum(bounds[place + 1] - bounds[place] for place in places)
    return Timing(images=done, steps=steps, seconds=clock.seconds(warm_up))


class _StepClock:
    """Marks the end of every step: on a GPU in its own stream of work, so that nothing has to wait."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[Any] = []

    def __call__(self, *_: object) -> None:
        """Mark; called by PyTorch behind a step of any optimiser."""
        if self._device.type == "cuda":
            mark = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # PyTorch's own is not annotated
            mark.record()
            self._marks.append(mark)
        else:
            self._marks.append(time.perf_counter())

    def seconds(self, warm_up: int) -> float:
        """From the end of the warm-up to the end of the last step."""
        wait_for(self._device)
        first, last = self._marks[warm_up - 1], self._marks[-1]
        if self._device.type == "cuda":
            return float(first.elapsed_time(last)) / 1e3
        return float(last - first)


class DecodedBatches(Dataset[torch.Tensor]):
    """Batches of a training set, for processes that decode whole batches."""

    def __init__(self, data: Images) -> None:
        self._data = data

    def __getitem__(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Images uint8 [N, 112, 112, 3]."""
        images = torch.empty((len(rows), SIDE, SIDE, 3), dtype=torch.uint8)
        for target, row in zip(images.numpy(), rows, strict=True):
            self._data.decode_into(target, int(row))
        return images


def compare_workers(
    data: Images, seed: int, seconds: float, counts: Sequence[int] = WORKER_COUNTS
) -> list[dict[str, float]]:
    """The loader's images a second with so many threads, and with as many processes in their place."""
    cores = len(os.sched_getaffinity(0))
    rows = Rows(images=len(data), batch=TABLE_BATCH, seed=seed)
    return [
        {
            "workers": count,
            "threads": time_loader(data, rows, count, seconds, _PROCESSOR).rate,
            "processes": time_processes(data, rows, count, seconds).rate,
        }
        for count in counts
        if count <= cores
    ]


def time_processes(data: Images, rows: Rows, workers: int, seconds: float) -> Timing:
    """The same work in processes. They are spawned: beside CUDA and threads a fork is not safe."""
    work = UntilStopped(rows)
    loader = DataLoader(
        DecodedBatches(data), batch_size=None, sampler=work, num_workers=workers, multiprocessing_context="spawn"
    )
    batches = iter(loader)
    for _ in range(2 * workers):  # until all have started
        next(batches)
    timing = time_steps(lambda: len(next(batches)), seconds, _PROCESSOR, warm_up=0)
    work.stopped = True
    for _ in batches:
        pass
    return timing
