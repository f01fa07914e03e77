"""What every process does in every step, worked out beforehand so that images can be decoded ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.trainer.sampler import part_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from training.trainer.sampler import Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A micro-batch of one process: what one forward and backward pass takes.

    Attributes:
        rows: int64 [n].
        flipped: bool [n], which of them are mirrored.
        whole: int64 [N], the rows of the batch over all processes.
        last: whether the weights move after it.
    """

    rows: NDArray[np.int64]
    flipped: NDArray[np.bool_]
    whole: NDArray[np.int64]
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How batches are shared out.

    Attributes:
        sampler: which rows stand in which batch.
        rank: the process, from 0.
        ranks: how many there are.
        parts: micro-batches into which a process cuts its share.
    """

    sampler: Sampler
    rank: int
    ranks: int
    parts: int

    def __post_init__(self) -> None:
        if self.sampler.smallest < self.ranks * self.parts:
            raise ValueError(
                f"a batch of {self.sampler.smallest} images cannot give each of {self.ranks} processes {self.parts} "
                "parts: raise the batch, or lower processes or accumulation"
            )

    def work(self, start: int, stop: int) -> Iterator[Work]:
        """The micro-batches of this process in a range of steps, across epochs."""
        number, epoch = -1, None
        for step in range(start, stop):
            wanted, place = divmod(step, self.sampler.steps)
            if epoch is None or wanted != number:
                number, epoch = wanted, self.sampler.epoch(wanted)
            whole = epoch.batch(place)
            share = part_of(whole, self.rank, self.ranks)
            for part in range(self.parts):
                rows = part_of(share, part, self.parts)
                yield Work(rows=rows, flipped=epoch.flipped[rows], whole=whole, last=part == self.parts - 1)
