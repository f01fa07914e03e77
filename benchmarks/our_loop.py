"""The parts of our training by themselves, each made of the objects that training.train_quality uses."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, Dataset

from benchmarks.speed_probe import WARM_UP, Timing, UntilStopped, time_steps, wait_for
from data_manifests.tables.stages import Factor
from labelers.faces import SIDE
from training.quality.objective import Targets
from training.trainer.feeding import MicroBatch
from training.trainer.loader import Loader
from training.trainer.sampler import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from training.dataset.training_set import TrainingSet
    from training.quality.config import TrainingConfig
    from training.quality.learner import QualityLearner
    from training.quality.training import QualityTraining

WORKER_COUNTS = (1, 2, 4, 8, 16)
TABLE_BATCH = 256
"""Images that a worker's batch holds in the table of workers, whatever the training's batch."""

_PROCESSOR = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of every batch of a training without an end."""

    images: int
    batch: int
    seed: int

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        sampler = Sampler(images=self.images, batch=self.batch, seed=self.seed)
        return (work.rows for work in sampler.work(0, sys.maxsize))


def time_loader(data: TrainingSet, rows: Rows, threads: int, seconds: float, device: torch.device) -> Timing:
    """The training's own loader, in the order of the training."""
    with Loader(data, threads=threads, pinned=device.type == "cuda") as loader:
        batches = loader.batches(rows)
        return time_steps(lambda: len(next(batches).rows), seconds, device)


class SyntheticStep:
    """The trainer's step on noise that lies on the device already: forward, losses, backward, clipping, AdamW."""

    def __init__(self, learner: QualityLearner, config: TrainingConfig, device: torch.device) -> None:
        self._learner, count = learner, config.batch
        targets = Targets(
            quality=torch.rand(count, device=device),
            classes=torch.randint(0, 2, (count, len(Factor)), device=device),
            rho=None,
        )
        self._micro = MicroBatch(
            images=torch.randint(0, 256, (count, SIDE, SIDE, 3), dtype=torch.uint8, device=device),
            flipped=torch.rand(count, device=device) < 0.5,
            targets=targets,
            counts=learner.objective.count(targets.quality.cpu().numpy(), targets.classes.cpu().numpy()),
            last=True,
        )

    def __call__(self) -> int:
        """One step; returns the number of images."""
        self._learner.forward_backward(self._micro)
        self._learner.optimizer_step(1.0)
        return len(self._micro.images)


def time_trainer(
    training: QualityTraining, config: TrainingConfig, images: int, steps: int, device: torch.device
) -> Timing:
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

    def __init__(self, data: TrainingSet) -> None:
        self._data = data

    def __getitem__(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Images uint8 [N, 112, 112, 3]."""
        images = torch.empty((len(rows), SIDE, SIDE, 3), dtype=torch.uint8)
        for target, row in zip(images.numpy(), rows, strict=True):
            self._data.decode_into(target, int(row))
        return images


def compare_workers(
    data: TrainingSet, seed: int, seconds: float, counts: Sequence[int] = WORKER_COUNTS
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


def time_processes(data: TrainingSet, rows: Rows, workers: int, seconds: float) -> Timing:
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
