"""Qualities that need no training: measures of the factory, and chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.methods.kinds import ANCHORED, MethodKind

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A measure of the factory that is taken for a quality as it is.

    Attributes:
        table: the table that holds it.
        column: its column there.
        of_recogniser: whether it is another number for every recogniser.
    """

    table: str
    column: str
    of_recogniser: bool


MEASURES: dict[MethodKind, Measure] = {
    MethodKind.CPBD: Measure(table="blur", column="cpbd", of_recogniser=False),
    MethodKind.SOBEL: Measure(table="blur", column="sobel", of_recogniser=False),
    MethodKind.NORM: Measure(table="embeddings", column="norm", of_recogniser=True),
    **{kind: Measure(table="anchors", column=kind.value, of_recogniser=True) for kind in ANCHORED},
}
"""Where each baseline stands. The errors of a recogniser go with its own norm and ratio, unless another is named."""

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""Constants of the hash SplitMix64 (Steele, Lea and Flood 2014)."""


def random_quality(keys: NDArray[np.int32], seed: int = 0) -> NDArray[np.float64]:
    """A quality by chance, float64 [N] in [0, 1).

    An image's quality depends on its key and the seed alone, not on the images beside it.

    Args:
        keys: int32 [N].
        seed: equal seeds give equal qualities.
    """
    with np.errstate(over="ignore"):
        state = keys.astype(np.uint64) + np.uint64((1 + seed) * _GOLDEN % 2**64)
        for _ in range(2):  # the first round parts the seeds, so that key + 1 is not seed + 1
            state += np.uint64(_GOLDEN)
            for shift, factor in _MIX:
                state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
