"""How N images are cut into shards, and shards into parts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

MAX_SHARDS = 96
MIN_SHARD_ROWS = 1024
MAX_PART_ROWS = 1024
"""A crash costs each worker at most one part: at FaceLandmarker's 113 images/s that is nine seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows `start` to `stop` (exclusive) of a shard, computed and staged as one piece.

    Attributes:
        shard: number of the shard.
        start: first row within the shard.
        stop: row after the last.
    """

    shard: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


def cut(count: int, pieces: int) -> tuple[range, ...]:
    """Cut `count` rows into contiguous pieces whose sizes differ by at most one.

    >>> cut(7, 3)
    (range(0, 2), range(2, 4), range(4, 7))
    """
    edges = [count * i // pieces for i in range(pieces + 1)]
    return tuple(range(a, b) for a, b in pairwise(edges))


def plan_shards(images: int) -> tuple[range, ...]:
    """The rows of each shard: at most 96 shards, of at least 1,024 images; one where there are fewer."""
    return cut(images, max(1, min(MAX_SHARDS, images // MIN_SHARD_ROWS)))


def plan_parts(shard: int, rows: int) -> tuple[Part, ...]:
    """The parts of a shard, each of at most MAX_PART_ROWS rows."""
    pieces = cut(rows, max(1, -(-rows // MAX_PART_ROWS)))
    return tuple(Part(shard=shard, start=r.start, stop=r.stop) for r in pieces)
