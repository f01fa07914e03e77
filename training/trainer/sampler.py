"""Which images stand in which batch, for which process: a pure function of seed, epoch and step.

Nothing here has a state, so a training that goes on in the middle of an epoch needs two numbers, the epoch and the
step, and the batches are the same whatever the number of processes, threads or interruptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_ORDER, _FLIP = 0, 1
"""Kinds of draws, so that the order and the mirroring of an epoch are independent of each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One pass over the images.

    Attributes:
        order: int64 [N], every row once.
        flipped: bool [N], by row (not by place in the order): whether the image is mirrored in this pass.
        bounds: where the batches start in the order, and N; one more than there are batches.
    """

    order: NDArray[np.int64]
    flipped: NDArray[np.bool_]
    bounds: tuple[int, ...]

    def batch(self, step: int) -> NDArray[np.int64]:
        """The rows of one batch over all processes."""
        return self.order[self.bounds[step] : self.bounds[step + 1]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A micro-batch of one process: what one forward and backward pass takes.

    Attributes:
        step: from 0, over all epochs.
        rows: int64 [n].
        flipped: bool [n], which of them are mirrored.
        whole: int64 [N], the rows of the batch over all processes.
        last: whether the weights move after it.
        together: int64 [M], the rows of all processes that are computed at the same time, by process.
        first: where this process's begin among them.
    """

    step: int
    rows: NDArray[np.int64]
    flipped: NDArray[np.bool_]
    whole: NDArray[np.int64]
    last: bool
    together: NDArray[np.int64]
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Shuffles N images anew for every epoch and cuts them into batches.

    An epoch has ceil(N / batch) batches. All hold `batch` images but the last two, which share what is left evenly:
    every image is seen exactly once an epoch, and yet no batch is a splinter with which batch statistics and a whole
    step would be spoilt.

    Attributes:
        images: N.
        batch: images in a batch over all processes.
        seed: of the order and the mirroring.
        rank: the process whose micro-batches `work` gives, from 0.
        ranks: processes that share every batch.
        parts: micro-batches into which a process cuts its share.
    """

    images: int
    batch: int
    seed: int
    rank: int = 0
    ranks: int = 1
    parts: int = 1

    def __post_init__(self) -> None:
        if self.images < 1 or self.batch < 1 or self.seed < 0:
            raise ValueError(
                f"images and batch must be at least 1 and the seed at least 0, not {self.images}, {self.batch}, "
                f"{self.seed}"
            )
        if self.smallest < self.ranks * self.parts:
            raise ValueError(
                f"a batch of {self.smallest} images cannot give each of {self.ranks} processes {self.parts} parts: "
                "raise the batch, or lower processes or accumulation"
            )

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.images // self.batch)

    @property
    def smallest(self) -> int:
        """Images in the smallest batch."""
        return int(np.diff(self.bounds()).min())

    def bounds(self) -> tuple[int, ...]:
        """Where the batches start, and N."""
        starts = [step * self.batch for step in range(self.steps)]
        if self.steps > 1:
            starts[-1] = starts[-2] + -(-(self.images - starts[-2]) // 2)
        return (*starts, self.images)

    def epoch(self, number: int) -> Epoch:
        """One epoch, from 0."""
        return Epoch(
            order=self._random(number, _ORDER).permutation(self.images),
            flipped=self._random(number, _FLIP).integers(0, 2, self.images, dtype=np.int8).astype(np.bool_),
            bounds=self.bounds(),
        )

    def work(self, start: int, stop: int) -> Iterator[Work]:
        """The micro-batches of this process in a range of steps, across epochs."""
        number, epoch = -1, None
        for step in range(start, stop):
            wanted, place = divmod(step, self.steps)
            if epoch is None or wanted != number:
                number, epoch = wanted, self.epoch(wanted)
            whole = epoch.batch(place)
            shares = [part_of(whole, rank, self.ranks) for rank in range(self.ranks)]
            for part in range(self.parts):
                every = [part_of(share, part, self.parts) for share in shares]
                rows = every[self.rank]
                yield Work(
                    step=step,
                    rows=rows,
                    flipped=epoch.flipped[rows],
                    whole=whole,
                    last=part == self.parts - 1,
                    together=np.concatenate(every),
                    first=sum(map(len, every[: self.rank])),
                )

    def _random(self, epoch: int, kind: int) -> np.random.Generator:
        # NumPy promises the stream of PCG64, and in practice keeps what a Generator makes of it.
        return np.random.Generator(np.random.PCG64([self.seed, epoch, kind]))


def part_of(rows: NDArray[np.int64], part: int, parts: int) -> NDArray[np.int64]:
    """One of several contiguous parts of a batch, whose sizes differ by at most one.

    A batch is cut so into the shares of the processes, and a share into the micro-batches of accumulation.

    Raises:
        ValueError: if a part would be empty: a process without an image could not take part in the step.
    """
    if len(rows) < parts:
        raise ValueError(f"a batch of {len(rows)} images cannot be cut into {parts} parts")
    small, large = divmod(len(rows), parts)
    start = part * small + min(part, large)
    return rows[start : start + small + (part < large)]
