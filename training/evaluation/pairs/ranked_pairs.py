"""Pairs of images in the order of their distance: error-reject curves of many qualities from one sort.

A distance is the negative of a similarity.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.pairs.kept_order import KeptOrder, count_rates_kept, find_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeAlias

    from numpy.typing import ArrayLike, NDArray

    from training.evaluation.pairs.kept_order import Floats

    Curve: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]

CR_FIQA_RATES: NDArray[np.float64] = 0.05 * np.arange(20, dtype=np.float64)
"""Rejection rates of CR-FIQA's published script."""


class Protocol(StrEnum):
    """Which pairs are rejected, and when the threshold is set."""

    FIXED = "fixed"
    """Genuine pairs; once, on all pairs. Ties of quality are rejected together (the fiqat toolkit's step curve)."""
    CR_FIQA = "cr_fiqa"
    """Genuine and impostor pairs together; anew at each of 20 rates. Ties are rejected by index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedPairs:
    """Pairs ordered by distance once, for any number of qualities and false match rates.

    Attributes:
        genuine: where the genuine pairs stand among all, nearest first [G].
        impostor: where the impostor pairs stand, nearest first [I].
        genuine_distance: ascending [G].
        impostor_distance: ascending [I].
    """

    genuine: NDArray[np.intp]
    impostor: NDArray[np.intp]
    genuine_distance: Floats
    impostor_distance: Floats

    @classmethod
    def build(cls, similarity: ArrayLike, same: ArrayLike) -> RankedPairs:
        """Order the pairs.

        Args:
            similarity: [P], larger = more alike.
            same: [P], true where both images show one person.

        Raises:
            ValueError: wrong shapes, a NaN, or no genuine or no impostor pairs.
        """
        alike = as_floats(similarity, "similarity")
        genuine, impostor = _split(same, len(alike))
        genuine, genuine_distance = _order(alike, genuine)
        impostor, impostor_distance = _order(alike, impostor)
        return cls(
            genuine=genuine,
            impostor=impostor,
            genuine_distance=genuine_distance,
            impostor_distance=impostor_distance,
        )

    def thresholds(self, fmrs: Sequence[float]) -> list[float]:
        """The similarity at each false match rate, set on all pairs (`error_reject.threshold`)."""
        for fmr in fmrs:
            if not 0 < fmr <= 1:
                raise ValueError(f"the false match rate {fmr} has to be over 0 and at most 1")
        orders = self._keep(np.ones(len(self.genuine) + len(self.impostor), np.uint8), 1)
        return [-float(find_threshold(*orders, 0, fmr)) for fmr in fmrs]

    def curves(
        self, quality: ArrayLike, fmrs: Sequence[float], protocol: Protocol | str = Protocol.FIXED
    ) -> list[Curve]:
        """The curve of one quality [P] at each false match rate (`error_reject.curve`)."""
        values = as_quality(quality, len(self.genuine) + len(self.impostor))
        thresholds = self.thresholds(fmrs)
        if Protocol(protocol) is Protocol.FIXED:
            return reject_genuine(-self.genuine_distance, values[self.genuine], thresholds)
        starts = (CR_FIQA_RATES * len(values)).astype(np.int64)  # [20] how many pairs each rate drops
        orders = self._keep(count_rates_kept(values, starts), len(starts))
        return [_follow_rates(*orders, fmr) for fmr in fmrs]

    def _keep(self, kept: NDArray[np.uint8], rates: int) -> tuple[KeptOrder, KeptOrder]:
        """Genuine and impostor pairs, with the number of rates that keep each pair [P]."""
        return (
            KeptOrder.build(self.genuine_distance, kept[self.genuine], rates),
            KeptOrder.build(self.impostor_distance, kept[self.impostor], rates),
        )


def reject_genuine(similarity: Floats, quality: Floats, thresholds: Sequence[float]) -> list[Curve]:
    """The curves of protocol `fixed`, from genuine pairs alone [G], in any order, checked (`fixed_curves`)."""
    order = np.argsort(quality)
    ordered = quality[order]
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))  # [K] of each distinct quality
    kept = len(ordered) - first
    rejection = np.append(first / len(ordered), 1.0)
    alike = similarity[order]
    curves = []
    for limit in thresholds:
        errors = np.cumsum(alike < np.float64(limit), dtype=np.int64)  # [G]
        rejected = np.append(0, errors[first[1:] - 1])  # [K] errors of lower quality
        curves.append((rejection, np.append((errors[-1] - rejected) / kept, 0.0)))
    return curves


def as_floats(values: ArrayLike, name: str) -> Floats:
    """A vector of float32 or float64 without NaN, copied only where it is neither.

    Raises:
        ValueError: not a vector of numbers, or a NaN.
    """
    found = np.asarray(values)
    if found.ndim != 1 or found.dtype.kind not in "fiub":
        raise ValueError(f"{name} has to be a vector of numbers, not {found.dtype} of shape {found.shape}")
    if found.dtype not in (np.float32, np.float64):
        found = found.astype(np.float32 if found.dtype == np.float16 else np.float64)
    missing = int(np.count_nonzero(np.isnan(found)))
    if missing:
        raise ValueError(f"{name} of {missing} of {len(found)} pairs is NaN: leave these pairs out, and say so")
    return found


def as_quality(values: ArrayLike, count: int) -> Floats:
    """A quality for each of `count` pairs; see `as_floats`."""
    found = as_floats(values, "quality")
    if len(found) != count:
        raise ValueError(f"quality has shape {found.shape}, similarity ({count},): both have to be of the same pairs")
    return found


def _follow_rates(genuine: KeptOrder, impostor: KeptOrder, fmr: float) -> Curve:
    """The curve of protocol `cr_fiqa`."""
    fnmr: NDArray[np.float64] = np.full(len(CR_FIQA_RATES), np.nan)
    for rate in range(len(fnmr)):
        total = genuine.total(rate)
        if total and impostor.total(rate):
            limit = find_threshold(genuine, impostor, rate, fmr)
            fnmr[rate] = (total - genuine.count_below(rate, limit)) / total
    return CR_FIQA_RATES.copy(), fnmr


def _order(similarity: Floats, pairs: NDArray[np.intp]) -> tuple[NDArray[np.intp], Floats]:
    """The pairs, nearest first, and their distances."""
    distance = -similarity[pairs]
    order = np.argsort(distance)
    return pairs[order], distance[order]


def _split(same: ArrayLike, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of the genuine and of the impostor pairs."""
    flags: NDArray[Any] = np.asarray(same)
    if flags.shape != (count,):
        raise ValueError(f"same has shape {flags.shape}, similarity ({count},): both have to be [P]")
    if flags.dtype != np.bool_ and not bool(((flags == 0) | (flags == 1)).all()):
        raise ValueError("same holds values other than true and false (1 and 0)")
    genuine = flags.astype(np.bool_)
    found = np.flatnonzero(genuine), np.flatnonzero(~genuine)
    for name, pairs in zip(("genuine", "impostor"), found, strict=True):
        if len(pairs) == 0:
            raise ValueError(f"there are no {name} pairs among {count}, so no error rate can be set or measured")
    return found
