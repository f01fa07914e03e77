"""How sure an area under an error-reject curve is, and whether two qualities differ: the bootstrap.

Genuine pairs are drawn anew with replacement, and the normalised area of protocol `fixed` by the step rule is taken of
each draw. The threshold stays: it belongs to the recogniser, is the same for all qualities, and is set on impostor
pairs, which are many more. So the intervals say how sure an area is at that threshold.
They are BCa intervals (training.evaluation.bca).

All qualities and thresholds see the same draws. A draw is a count for every pair: each quality is sorted once, and its
areas at all thresholds are one pass over the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from labelers.runtime.compilation import compile_kernel
from training.evaluation.bca import Bca
from training.evaluation.pairs.ranked_pairs import as_floats, as_quality
from training.evaluation.weighted_area import count_failures, measure, rank

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

LIMITS = (0.3, 0.95)
"""Limits of the partial area and of the whole one (CLIB-FIQA's tables)."""
CONFIDENCE = 0.95
GROUPS = 200
"""Into so many groups pairs, or people, are put at most: without each of them areas are taken once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """What is drawn anew, and how often.

    Attributes:
        identities: whole number [G] that names the person of each genuine pair: people are drawn, each with all their
            pairs. Right where people have many pairs, as in all against all, where pairs drawn by themselves give
            intervals that are far too narrow. None draws pairs: right for a list of pairs that share no person.
        replicates: number of draws.
        seed: equal seeds give equal draws.
    """

    identities: ArrayLike | None = None
    replicates: int = 1000
    seed: int = 0

    def counts(self, pairs: int) -> Iterator[NDArray[np.uint16]]:
        """How often each draw takes each of the genuine pairs [G], one draw after the other.

        16 bits do: n units are drawn n times, so that a count has nearly the Poisson distribution of mean 1.

        Raises:
            ValueError: identities that are not one whole number for each pair.
        """
        units, people = self._units(pairs)
        random = np.random.default_rng(self.seed)
        for _ in range(self.replicates):
            yield _count(random.integers(units, size=units))[people]

    def without(self, pairs: int) -> Iterator[NDArray[np.uint16]]:
        """All genuine pairs [G] but those of one group (0, the others 1), one group after the other.

        A group is one pair, or one person with all pairs; where there are more of them than GROUPS, it is several.

        Raises:
            ValueError: as `counts`.
        """
        units, people = self._units(pairs)
        group = np.arange(units) % GROUPS
        for left_out in range(min(units, GROUPS) if self.replicates and units > 1 else 0):
            yield (group != left_out).astype(np.uint16)[people]

    def _units(self, pairs: int) -> tuple[int, NDArray[np.intp] | slice]:
        """How many units are drawn, and the unit of each pair."""
        if self.identities is None:
            return pairs, slice(None)
        people = _number_people(self.identities, pairs)
        return int(people.max()) + 1, people


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A BCa interval; NaN where there are no errors, hence no normalised area. The value lies in it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An area less another one: below 0 where the first quality is better.

    Attributes:
        difference: on all pairs.
        low: lower end of its BCa interval, in which it lies.
        high: upper end.
        p_value: two-sided; 1 for equal qualities, at least 2 / (replicates + 1), NaN without errors.
    """

    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResampledAreas:
    """Normalised areas of M qualities at T thresholds up to L limits.

    Attributes:
        values: on all pairs [M, T, L].
        replicates: on every draw [R, M, T, L]; NaN where a draw holds no error.
        without: without every group of pairs [J, M, T, L]; NaN where no error is left.
    """

    values: NDArray[np.float64]
    replicates: NDArray[np.float64]
    without: NDArray[np.float64]

    def interval(self, quality: int, threshold: int, limit: int, confidence: float = CONFIDENCE) -> Interval:
        """The interval of one area; draws without an error are left out."""
        place = (..., quality, threshold, limit)
        value = float(self.values[place])
        low, high = Bca.of(value, self.replicates[place], self.without[place]).ends(confidence)
        return Interval(value=value, low=low, high=high)

    def compare(
        self, quality: int, other: int, threshold: int, limit: int, confidence: float = CONFIDENCE
    ) -> Difference:
        """The paired test of two qualities, on their differences on the same draws.

        The p-value is 1 less the confidence at which the interval just reaches 0: without its corrections twice the
        smaller share of draws whose difference is on one side of 0 or at it, the data counted as one more draw.
        """
        one, two = (..., quality, threshold, limit), (..., other, threshold, limit)
        difference = float(self.values[one] - self.values[two])
        draws, without = (areas[one] - areas[two] for areas in (self.replicates, self.without))
        found = Bca.of(difference, draws, without)
        low, high = found.ends(confidence)
        return Difference(difference=difference, low=low, high=high, p_value=found.p_value())


def resample_areas(
    similarity: ArrayLike,
    qualities: Sequence[ArrayLike],
    thresholds: Sequence[float],
    limits: Sequence[float] = LIMITS,
    draws: Draws | None = None,
) -> ResampledAreas:
    """Normalised areas on all genuine pairs and on draws of them, the same draws for all.

    Args:
        similarity: of the genuine pairs [G].
        qualities: M qualities of the genuine pairs, each [G].
        thresholds: T similarities below which a pair is not matched, at most 255.
        limits: ascending shares rejected up to which areas are taken, over 0 and at most 1.
        draws: the default draws pairs, 1,000 times.

    Raises:
        ValueError: wrong shapes, a NaN, no pairs, or limits that cannot be.
    """
    alike = as_floats(similarity, "similarity")
    if len(alike) == 0:
        raise ValueError("there are no genuine pairs to draw from")
    levels, ends = as_floats(thresholds, "threshold").astype(np.float64), np.asarray(limits, np.float64)
    if not bool(((ends > 0) & (ends <= 1)).all() & (np.diff(ends) > 0).all()):
        raise ValueError(f"limits have to ascend, over 0 and at most 1, not {limits}")
    failures = count_failures(alike, levels)
    rankings = [rank(as_quality(quality, len(alike)), failures) for quality in qualities]
    drawn, whole = draws or Draws(), np.ones(len(alike), np.uint16)
    areas = [
        [measure(counts, ranking, levels, ends) for ranking in rankings]
        for counts in chain([whole], drawn.counts(len(alike)), drawn.without(len(alike)))
    ]
    values = np.asarray(areas)  # [1 + R + J, M, T, L]
    last = 1 + drawn.replicates
    return ResampledAreas(values=values[0], replicates=values[1:last], without=values[last:])


def paired_test(
    similarity: ArrayLike,
    qualities: tuple[ArrayLike, ArrayLike],
    threshold: float,
    upto: float,
    draws: Draws | None = None,
) -> Difference:
    """Whether the normalised area of the first quality differs from that of the second, on the same pairs and draws.

    Args:
        similarity: of the genuine pairs [G].
        qualities: two qualities of the genuine pairs, each [G].
        threshold: the similarity below which a pair is not matched.
        upto: the limit of the area.
        draws: as in `resample_areas`.

    Raises:
        ValueError: as `resample_areas`.
    """
    return resample_areas(similarity, qualities, [threshold], [upto], draws).compare(0, 1, 0, 0)


@compile_kernel
def _count(drawn: NDArray[np.int64]) -> NDArray[np.uint16]:
    """How often each of the numbers 0 to N - 1 is among N numbers [N]."""
    counts = np.zeros(len(drawn), np.uint16)
    for number in drawn:
        counts[number] += 1
    return counts


def _number_people(identities: ArrayLike, pairs: int) -> NDArray[np.intp]:
    """The person of each pair as 0, 1, 2 and so on."""
    people = np.asarray(identities)
    if people.shape != (pairs,) or people.dtype.kind not in "iu":
        raise ValueError(f"identities have to be {pairs} whole numbers, not {people.dtype} of shape {people.shape}")
    numbers: NDArray[np.intp] = np.unique(people, return_inverse=True)[1]
    return numbers
