"""A score in order: from it follow quantiles, counts at thresholds, bars, and who stands near what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_LOW = np.uint64(0xFFFF_FFFF)
_SIGN = np.uint64(0x8000_0000)


class Rule(StrEnum):
    """How a value is compared with a threshold, both in single precision as labelers/levels.py does."""

    BELOW = "<"
    UP_TO = "<="
    ABOVE = ">"
    FROM = ">="


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """The values of a score.

    Attributes:
        ascending: those that are known, in order, float32 [K].
        images: how many images there are, with a value or without.
    """

    ascending: NDArray[np.float32]
    images: int

    @classmethod
    def sort(cls, values: NDArray[np.float32]) -> Sorted:
        """Sort a score, float32 [N], NaN for null."""
        return Sorted(ascending=np.sort(values[~np.isnan(values)]), images=values.size)

    @property
    def known(self) -> int:
        """How many images have a value."""
        return self.ascending.size

    def quantile(self, share: float) -> float:
        """The value at a share of the images, without interpolation, so that it is some image's own."""
        return float(self.ascending[min(self.known - 1, int(share * self.known))])

    def count(self, rule: Rule, thresholds: Sequence[float]) -> NDArray[np.int64]:
        """For each threshold the number of values that keep the rule, exactly as the classification counts them."""
        edges = np.asarray(thresholds, np.float32)
        inclusive = rule in {Rule.UP_TO, Rule.ABOVE}
        under = np.searchsorted(self.ascending, edges, side="right" if inclusive else "left").astype(np.int64)
        return under if rule in {Rule.BELOW, Rule.UP_TO} else self.known - under

    def bars(self, low: float, high: float, count: int) -> NDArray[np.int64]:
        """How many values fall into each of equal bars, int64 [count]; what lies outside stands in the outer bars."""
        inner = np.linspace(low, high, count + 1)[1:-1]
        places = np.searchsorted(self.ascending, inner.astype(np.float32), side="left")
        return np.diff(np.concatenate([[0], places, [self.known]])).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Ranked(Sorted):
    """A score, and its images in order; of equal values the smaller key comes first.

    Attributes:
        values: of all images, float32 [N], NaN for null.
        ranks: places of the images that have a value, in its order, int64 [K].
    """

    values: NDArray[np.float32]
    ranks: NDArray[np.int64]

    @classmethod
    def rank(cls, values: NDArray[np.float32]) -> Ranked:
        """Put the images of a score in order.

        Value and place are sorted as one number, which is several times as fast as a stable sort of places.
        """
        places = np.flatnonzero(~np.isnan(values))
        known = values[places] + np.float32(0)  # without a negative zero, which would come before the other
        bits = known.view(np.uint32).astype(np.uint64)
        # Floats as integers of the same order: the sign of positive ones turned, all bits of negative ones.
        bits = np.where(bits & _SIGN, ~bits & _LOW, bits | _SIGN)
        ranks = (np.sort((bits << np.uint64(32)) | places.astype(np.uint64)) & _LOW).astype(np.int64)
        return cls(ascending=values[ranks], images=values.size, values=values, ranks=ranks)

    def nearest(self, targets: Sequence[float]) -> NDArray[np.int64]:
        """For each target the image whose value is nearest; each image once, in the order of the score."""
        if not self.known:
            return np.empty(0, np.int64)
        right = np.clip(np.searchsorted(self.ascending, np.asarray(targets, np.float32)), 0, self.known - 1)
        left = np.maximum(right - 1, 0)
        goal = np.asarray(targets, np.float64)
        closer = np.abs(self.ascending[left] - goal) <= np.abs(self.ascending[right] - goal)
        places: NDArray[np.int64] = np.unique(np.where(closer, left, right))
        return self.ranks[places]

    def spread(self, count: int) -> NDArray[np.int64]:
        """Images at even ranks, the first and the last among them, in the order of the score."""
        places = np.linspace(0, self.known - 1, min(count, self.known)).round().astype(np.int64)
        return self.ranks[places]
