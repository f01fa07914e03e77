"""How sure an area under an error-reject curve is, and whether two qualities differ: the bootstrap.

Genuine pairs are drawn anew with replacement, and the normalised area of protocol `fixed` by the step rule is taken of
each draw. The threshold stays: it belongs to the recogniser, is the same for all qualities, and is set on impostor
pairs, which are many more. So the intervals say how sure an area is at that threshold.

All qualities and thresholds see the same draws. A draw is a count for every pair: each quality is sorted once, and its
areas at all thresholds are one pass over the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from labelers.runtime.compilation import compile_kernel
from training.evaluation.pairs.ranked_pairs import as_floats, as_quality
from training.evaluation.weighted_area import count_failures, measure, rank

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

LIMITS = (0.3, 0.95)
"""Limits of the partial area and of the whole one (CLIB-FIQA's tables)."""
CONFIDENCE = 0.95


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
        people = None if self.identities is None else _number_people(self.identities, pairs)
        units = pairs if people is None else int(people.max()) + 1
        random = np.random.default_rng(self.seed)
        for _ in range(self.replicates):
            counts = _count(random.integers(units, size=units))
            yield counts if people is None else counts[people]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A bootstrap interval; NaN where there are no errors, hence no normalised area."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An area less another one: below 0 where the first quality is better.

    Attributes:
        difference: on all pairs.
        low: lower end of its bootstrap interval.
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
    """

    values: NDArray[np.float64]
    replicates: NDArray[np.float64]

    def interval(self, quality: int, threshold: int, limit: int, confidence: float = CONFIDENCE) -> Interval:
        """The percentile interval of one area; draws without an error are left out."""
        low, high = _find_ends(self.replicates[:, quality, threshold, limit], confidence)
        return Interval(value=float(self.values[quality, threshold, limit]), low=low, high=high)

    def compare(
        self, quality: int, other: int, threshold: int, limit: int, confidence: float = CONFIDENCE
    ) -> Difference:
        """The paired test of two qualities, on their differences on the same draws.

        The p-value is twice the smaller share of draws whose difference is on one side of 0 or at it, the data
        themselves counted as one more draw: 1 less the confidence at which the percentile interval just reaches 0.
        """
        draws = self.replicates[:, quality, threshold, limit] - self.replicates[:, other, threshold, limit]
        low, high = _find_ends(draws, confidence)
        difference = float(self.values[quality, threshold, limit] - self.values[other, threshold, limit])
        return Difference(difference=difference, low=low, high=high, p_value=_find_p_value(draws))


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
    areas = [
        [measure(counts, ranking, levels, ends) for ranking in rankings]
        for counts in chain([np.ones(len(alike), np.uint16)], (draws or Draws()).counts(len(alike)))
    ]
    values = np.asarray(areas)  # [1 + R, M, T, L]
    return ResampledAreas(values=values[0], replicates=values[1:])


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


def _find_ends(draws: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """The middle part of the draws that hold errors."""
    known = draws[~np.isnan(draws)]
    if len(known) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _find_p_value(differences: NDArray[np.float64]) -> float:
    """Two-sided."""
    known = differences[~np.isnan(differences)]
    if len(known) == 0:
        return float("nan")
    beyond = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    return float(min(1.0, 2 * (beyond + 1) / (len(known) + 1)))
