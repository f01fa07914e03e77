"""Order statistics of distances among the pairs that are kept, at every rejection rate, from one sort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

BLOCK = 4096
"""Pairs between two stored counts: an answer looks at one block at most."""
CHUNK = 1 << 20


def count_rates_kept(quality: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """At how many rejection rates each pair is still there when the lowest qualities go first, ties by index.

    Equal to a stable sort by quality of which rate i drops the first `starts[i]`, without sorting.

    Args:
        quality: [P], no NaN.
        starts: ascending numbers of dropped pairs [R], each under P, R at most 255.

    Returns:
        Number of rates [P]: a pair with n is kept at rates 0 to n - 1.
    """
    cuts = np.partition(quality, np.unique(starts))[starts]  # [R] lowest quality that rate i keeps some of
    kept = np.empty(len(quality), np.uint8)
    for begin in range(0, len(quality), CHUNK):
        chunk = slice(begin, begin + CHUNK)
        kept[chunk] = np.searchsorted(cuts, quality[chunk], side="left")
    for cut in np.unique(cuts):
        ties = np.flatnonzero(quality == cut)
        ranks = np.count_nonzero(quality < cut) + np.arange(len(ties))
        kept[ties] = np.searchsorted(starts, ranks, side="right")
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOrder:
    """Pairs of one kind by distance, and which rejection rates keep them.

    Attributes:
        distance: ascending [N].
        kept: number of rates that keep the pair [N]: n for the rates 0 to n - 1.
        before: how many of the first b·BLOCK pairs rate i keeps [blocks + 1, R]; the last row counts all.
    """

    distance: Floats
    kept: NDArray[np.uint8]
    before: NDArray[np.int64]

    @classmethod
    def build(cls, distance: Floats, kept: NDArray[np.uint8], rates: int) -> KeptOrder:
        """Count once what every later question needs.

        Args:
            distance: ascending [N].
            kept: number of rates that keep the pair [N], at most `rates`.
            rates: R.
        """
        blocks = -(-len(kept) // BLOCK)
        counts = np.zeros((blocks + 1, rates), np.int64)
        for block in range(blocks):
            ended = np.bincount(kept[block * BLOCK : (block + 1) * BLOCK], minlength=rates + 1)
            counts[block + 1] = ended[:0:-1].cumsum()[::-1]  # rate i keeps the pairs with more than i
        return cls(distance=distance, kept=kept, before=counts.cumsum(axis=0))

    def total(self, rate: int) -> int:
        """How many pairs the rate keeps."""
        return int(self.before[-1, rate])

    def select(self, rate: int, rank: int) -> np.floating[Any]:
        """Distance of the kept pair of that rank, 0 for the smallest."""
        block = int(np.searchsorted(self.before[:, rate], rank, side="right")) - 1
        kept = np.flatnonzero(self.kept[block * BLOCK : (block + 1) * BLOCK] > rate)
        found: np.floating[Any] = self.distance[block * BLOCK + kept[rank - self.before[block, rate]]]
        return found

    def count_below(self, rate: int, distance: np.floating[Any]) -> int:
        """How many kept pairs are nearer than this."""
        return self._count_first(rate, int(np.searchsorted(self.distance, distance, side="left")))

    def count_within(self, rate: int, distance: np.floating[Any]) -> int:
        """How many kept pairs are as near as this, or nearer."""
        return self._count_first(rate, int(np.searchsorted(self.distance, distance, side="right")))

    def _count_first(self, rate: int, length: int) -> int:
        """How many of the first pairs by distance the rate keeps."""
        block = length // BLOCK
        rest = self.kept[block * BLOCK : length] > rate
        return int(self.before[block, rate]) + int(np.count_nonzero(rest))


def find_threshold(genuine: KeptOrder, impostor: KeptOrder, rate: int, fmr: float) -> np.floating[Any]:
    """The distance whose false match rate among the kept pairs is nearest to the one wanted.

    Candidates are the distances of the kept pairs of both kinds; FMR(t) is the share of kept impostor pairs with a
    distance of t or less; of candidates that are equally near the largest is taken. This is how CR-FIQA's published
    script sets its threshold.

    Args:
        genuine: genuine pairs.
        impostor: impostor pairs, at least one of them kept.
        rate: number of the rejection rate.
        fmr: the false match rate wanted, 0 to 1.
    """
    total = impostor.total(rate)
    accepted = min(_attainable(genuine, impostor, rate, fmr), key=lambda n: (abs(n / total - fmr), -n))
    found = [impostor.select(rate, accepted - 1)] if accepted else []
    nearer = genuine.count_below(rate, impostor.select(rate, accepted)) if accepted < total else genuine.total(rate)
    if nearer:
        found.append(genuine.select(rate, nearer - 1))
    return max(found)


def _attainable(genuine: KeptOrder, impostor: KeptOrder, rate: int, fmr: float) -> set[int]:
    """Numbers of impostor pairs that some candidate accepts, on both sides of the number wanted."""
    total = impostor.total(rate)
    wanted = int(fmr * total)
    counts = set()
    for rank in range(max(wanted - 1, 0), min(wanted + 1, total - 1) + 1):
        distance = impostor.select(rate, rank)
        counts |= {impostor.count_below(rate, distance), impostor.count_within(rate, distance)}
    if genuine.total(rate) == 0 or genuine.select(rate, 0) >= impostor.select(rate, 0):
        counts.discard(0)
    return counts
