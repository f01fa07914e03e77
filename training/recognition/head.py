"""The classes that embeddings are told apart by: one centre each, and the softmax over all of them.

With several processes each holds the centres of some classes: every process sees the embeddings of all, and the
softmax is summed up over the processes. Only embeddings and sums of them travel, never a centre or a logit.

The softmax may be over a sample of the classes, drawn anew for every step (Partial FC, An et al. 2022). The similarity
with the nearest other centre is that of all classes all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.recognition.objective import add_margin, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.recognition.config import Margin
    from training.trainer.ranks import Ranks

_SPREAD = 0.01
"""Standard deviation of the first weights, as in CR-FIQA's code."""

_BLOCK = 4096
"""Classes whose first weights are drawn from one seed, or whose centres are searched at a time."""

_SAMPLE = 2
"""Kind of draw, beside the order and the mirroring of images (training.trainer.sampler)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """N images held against all C centres; the same in every process.

    Attributes:
        loss: cross-entropy of every image over the classes [N], or those that were sampled, CR-FIQA Eq. 1.
        ccs: cosine with the own centre [N], without gradient.
        nnccs: cosine with the nearest other centre of all [N], likewise.
    """

    loss: Tensor
    ccs: Tensor
    nnccs: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledRows:
    """The classes of this process that take part in a step.

    Attributes:
        rows: int64 [K], their rows in the head's weight, ascending.
        weight: float32 [K, D], a copy of these rows, which gets the gradient.
    """

    rows: Tensor
    weight: Tensor


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
        sampled: the classes that take part in the step that has begun; None where all do, or between two steps.

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
        self.sampled: SampledRows | None = None

    @torch.no_grad()
    def start_at(self, directions: Tensor) -> None:
        """Let the centres of this process's classes begin in some directions, as long as random ones are."""
        self.weight.copy_(unit(directions) * _SPREAD * directions.shape[1] ** 0.5)

    def forward(self, embeddings: Tensor, labels: Tensor, sample: Tensor | None = None) -> Classified:
        """Hold embeddings against all centres.

        Args:
            embeddings: of the images of all processes [N, D], from `gather_rows`.
            labels: their classes, int64 [N].
            sample: rows of this process's classes that the softmax is over, int64 [K], ascending, those of the labels
                among them; the same in all parts of a step. `sampled` gets the gradient until it is set to None. None:
                all.
        """
        weight = self.weight if sample is None else self._take(sample).weight
        cosines = (unit(embeddings) @ unit(weight).T).clamp(-1.0, 1.0)  # [N, C of this process, or K]
        places = labels - self.first
        here = (places >= 0) & (places < len(self.weight))
        rows = places.clamp(0, len(self.weight) - 1)
        columns = (rows if sample is None else torch.searchsorted(sample, rows).clamp(max=len(sample) - 1))[:, None]
        own = cosines.gather(1, columns)[:, 0]
        hardened = self._scale * torch.where(here, add_margin(own, self._margin, self._size), own)
        logits = (self._scale * cosines).scatter(1, columns, hardened[:, None])
        highest = self._highest(logits.detach().amax(dim=1))
        total = self._sum((logits - highest[:, None]).exp().sum(dim=1))
        right = self._sum(torch.where(here, hardened, 0.0))
        with torch.no_grad():
            ccs = self._sum(torch.where(here, own, 0.0))
            nnccs = self._highest(
                _highest_other(cosines, places) if sample is None else self._search(embeddings, places)
            )
        return Classified(loss=highest + total.log() - right, ccs=ccs, nnccs=nnccs)

    def _take(self, sample: Tensor) -> SampledRows:
        """The sampled classes, copied when a step begins."""
        if self.sampled is None:
            self.sampled = SampledRows(rows=sample, weight=self.weight.detach()[sample].requires_grad_())
        return self.sampled

    def _search(self, embeddings: Tensor, places: Tensor) -> Tensor:
        """The cosine with the nearest other centre of all that this process holds [N], in blocks of classes."""
        units, found = unit(embeddings), []
        for start in range(0, len(self.weight), _BLOCK):
            cosines = (units @ unit(self.weight[start : start + _BLOCK]).T).clamp(-1.0, 1.0)
            found.append(_highest_other(cosines, places - start))
        return torch.stack(found).amax(dim=0)

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


def _highest_other(cosines: Tensor, places: Tensor) -> Tensor:
    """The largest in every row of [N, K] but for the one in its own place [N], which may lie outside."""
    count = cosines.shape[1]
    columns = places.clamp(0, count - 1)[:, None]
    hidden = torch.where(((places >= 0) & (places < count))[:, None], -torch.inf, cosines.gather(1, columns))
    return cosines.scatter(1, columns, hidden).amax(dim=1)


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


def sample_classes(  # noqa: PLR0913 - what it depends on
    wanted: NDArray[np.int64], classes: int, share: float, *, seed: int, step: int, rank: int = 0, ranks: int = 1
) -> NDArray[np.int64]:
    """Which classes of a process take part in a step: those of the batch, and others by chance, to a share of its own.

    A function of its arguments alone, so that a training that goes on draws the same; with another number of processes
    it draws others.

    Args:
        wanted: classes of the images of the whole batch, of all processes [N].
        classes: C, in all.
        share: of the process's classes, above 0, at most 1; at least one takes part, and all that are wanted.
        seed: of the training.
        step: from 0.
        rank: the process.
        ranks: how many there are.

    Returns:
        Their rows in the process's part of the head, ascending [K].

    Source: An et al., Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition CNNs by
    Partial FC, CVPR 2022.
    """
    first, end = share_of_classes(classes, rank, ranks)
    random = np.random.Generator(np.random.PCG64([seed, step, _SAMPLE, rank]))
    order = random.random(end - first)
    mine = np.unique(wanted[(wanted >= first) & (wanted < end)]) - first
    order[mine] = -1.0  # before all others
    count = max(1, len(mine), round(share * (end - first)))
    return np.sort(np.argpartition(order, count - 1)[:count])


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
