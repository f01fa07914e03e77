"""One pass over all images of a set, shared out among the processes and put together again in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from training.trainer.loader import Loader
    from training.trainer.ranks import Ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """How a pass is done.

    Attributes:
        ranks: the processes; all have to take part.
        batch: images in a run, over all processes.
        stopped: whether to end early; all processes ask it together before every run.
        advance: is told the share that is done.
    """

    ranks: Ranks
    batch: int
    stopped: Callable[[], bool]
    advance: Callable[[float], None]

    def run(self, loader: Loader, images: int, compute: Callable[[Tensor], Tensor]) -> NDArray[np.float32] | None:
        """Compute a few numbers for every image.

        Args:
            loader: decodes the images.
            images: M, how many there are; at least 1.
            compute: uint8 [n, 112, 112, 3] on the CPU to float32 [n, K] on the CPU.

        Returns:
            float32 [M, K], the same in every process; None if it ended early.
        """
        mine = np.array_split(np.arange(images), self.ranks.count)[self.ranks.rank]
        size = max(1, self.batch // self.ranks.count)
        # Every process goes through as many pieces as the first, the last of which may be empty.
        longest = -(-images // self.ranks.count)
        pieces = [mine[start : start + size] for start in range(0, longest, size)]
        own: list[NDArray[np.float32]] = []
        for done, piece in enumerate(loader.batches(pieces)):
            if self.ranks.any(self.stopped()):
                return None
            if len(piece.rows):
                own.append(compute(piece.images).numpy())
            self.advance(done / len(pieces))
        return np.concatenate([part for parts in self.ranks.gather(own) for part in parts])
