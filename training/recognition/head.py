"""The classes that embeddings are told apart by: one centre each, and the softmax over all of them.

With several processes each holds the centres of some classes: every process sees the embeddings of all, and the
softmax is summed up over the processes. Only embeddings and sums of them travel, never a centre or a logit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.recognition.objective import add_margin, unit

if TYPE_CHECKING:
    from training.recognition.config import Margin
    from training.trainer.ranks import Ranks

_SPREAD = 0.01
"""Standard deviation of the first weights, as in CR-FIQA's code."""

_BLOCK = 4096
"""Classes whose first weights are drawn from one seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """N images held against all C centres; the same in every process.

    Attributes:
        loss: cross-entropy of every image over the classes [N], CR-FIQA Eq. 1.
        ccs: cosine with the own centre [N], without gradient.
        nnccs: cosine with the nearest other centre [N], likewise.
    """

    loss: Tensor
    ccs: Tensor
    nnccs: Tensor


class ClassHead(nn.Module):
    """Centres of classes, as many of them as are this process's.

    Args:
        classes: C, in all.
        dimension: D.
        margin: which margin.
        size: m of the margin.
        scale: s, of all logits.
        ranks: the processes.
        seed: of the first weights, which are the same for any number of processes.

    Attributes:
        weight: float32 [C of this process, D], not normalised.
        first: the number of the first class of this process.

    Raises:
        ValueError: if there are fewer than two classes, or fewer than processes.
    """

    def __init__(  # noqa: PLR0913 - the settings of the softmax, and where it is computed
        self, *, classes: int, dimension: int, margin: Margin, size: float, scale: float, ranks: Ranks, seed: int = 0
    ) -> None:
        super().__init__()
        if classes < max(2, ranks.world_size):
            raise ValueError(
                f"{classes} people for {ranks.world_size} processes: two people, and one for each process, are needed"
            )
        self._margin, self._size, self._scale, self._ranks = margin, size, scale, ranks
        self.first, end = share_of_classes(classes, ranks.rank, ranks.world_size)
        self.weight = nn.Parameter(_draw_centres(self.first, end, dimension, seed))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Classified:
        """Hold embeddings against all centres.

        Args:
            embeddings: of the images of all processes [N, D], from `gather_rows`.
            labels: their classes, int64 [N].
        """
        cosines = (unit(embeddings) @ unit(self.weight).T).clamp(-1.0, 1.0)  # [N, C of this process]
        places = labels - self.first
        here = (places >= 0) & (places < len(self.weight))
        columns = places.clamp(0, len(self.weight) - 1)[:, None]
        own = cosines.gather(1, columns)[:, 0]
        hardened = self._scale * torch.where(here, add_margin(own, self._margin, self._size), own)
        logits = (self._scale * cosines).scatter(1, columns, hardened[:, None])
        highest = self._highest(logits.detach().amax(dim=1))
        total = self._sum((logits - highest[:, None]).exp().sum(dim=1))
        right = self._sum(torch.where(here, hardened, 0.0))
        with torch.no_grad():
            ccs = self._sum(torch.where(here, own, 0.0))
            hidden = torch.where(here, -torch.inf, own)
            nnccs = self._highest(cosines.scatter(1, columns, hidden[:, None]).amax(dim=1))
        return Classified(loss=highest + total.log() - right, ccs=ccs, nnccs=nnccs)

    def _sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, whose gradient each of them takes for its own part."""
        if self._ranks.world_size == 1:
            return values
        found: Tensor = _Sum.apply(values)
        return found

    def _highest(self, values: Tensor) -> Tensor:
        """The largest over all processes, without gradient."""
        if self._ranks.world_size > 1:
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return values


def _draw_centres(first: int, end: int, dimension: int, seed: int) -> Tensor:
    """The first weights of some classes [end - first, D], drawn in blocks: nobody draws those of all classes."""
    blocks = []
    for start in range(first - first % _BLOCK, end, _BLOCK):
        generator = torch.Generator().manual_seed((seed << 32) + start)
        rows = torch.empty(_BLOCK, dimension).normal_(0.0, _SPREAD, generator=generator)
        blocks.append(rows[max(0, first - start) : end - start])
    return torch.cat(blocks)


def share_of_classes(classes: int, rank: int, ranks: int) -> tuple[int, int]:
    """The first class of a process and the one after its last; shares differ by one class at most."""
    return rank * classes // ranks, (rank + 1) * classes // ranks


def gather_rows(own: Tensor, first: int, rows: int, ranks: Ranks) -> Tensor:
    """The rows of all processes.

    Args:
        own: those of this one [n, D].
        first: where they stand.
        rows: N, how many all have.
        ranks: the processes.

    Returns:
        [N, D], the same in every process. A process gets the gradient of its rows from all.
    """
    if ranks.world_size == 1:
        return own
    found: Tensor = _Gather.apply(own, first, rows)
    return found


class _Sum(torch.autograd.Function):
    """The sum over all processes of something from which each computes the same loss."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Gather(torch.autograd.Function):
    """Rows of all processes, each of which uses them for something else."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, first: int, rows: int) -> Tensor:
        ctx.place = slice(first, first + len(own))
        whole = own.new_zeros(rows, *own.shape[1:])
        whole[ctx.place] = own
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        whole = gradient.contiguous().clone()
        dist.all_reduce(whole)
        return whole[ctx.place], None, None
