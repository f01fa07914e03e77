"""All pairs of the images of known people: similarities of the genuine ones, exact thresholds from the impostor ones.

The impostor pairs are too many to sort (57 million of 10,743 images). In blocks they are counted in a histogram, then
looked up exactly where the histogram says that the threshold lies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from labelers.runtime.device import Device
from training.evaluation.pairs.histogram import BINS
from training.evaluation.pairs.impostors import Impostors
from training.evaluation.pairs.ranked_pairs import CR_FIQA_RATES
from training.evaluation.pairs.rejection_levels import RejectionLevels
from training.evaluation.pairs.similarity import pair_similarities, unit_embeddings
from training.evaluation.pairs.threshold_search import ThresholdSearch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.evaluation.pairs.blocks import BlockShape
    from training.evaluation.pairs.ranked_pairs import Curve

MAX_GENUINE = 1 << 30
"""Genuine pairs are kept in memory, 12 bytes each."""


class IdentitySetError(ValueError):
    """An identity set cannot be compared all against all; says which image or number is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What the impostor pairs of an identity set say.

    Attributes:
        similarity: threshold at each false match rate, NaN where there are no impostor pairs.
        histogram: impostor pairs in 65,536 equal bins of similarity over [-1, 1] (`histogram.bin_edges`), int64; a
            pair within `product_error` of an edge may stand on its other side.
    """

    similarity: dict[float, float]
    histogram: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AllPairs:
    """All unordered pairs of the images of known people.

    Images of an unknown person (identity below 0) are in no pair: with them nobody knows what is genuine.

    Attributes:
        a: first image of each genuine pair, int32 [G], a row of what `build` was given; pairs by identity.
        b: second image, int32 [G], over `a`.
        similarity: cosine similarity of the genuine pairs, float32 [G].
        impostors: number of impostor pairs.
        images: N, what `build` was given.
    """

    a: NDArray[np.int32]
    b: NDArray[np.int32]
    similarity: NDArray[np.float32]
    impostors: int
    images: int
    _known: NDArray[np.intp] = field(repr=False)
    _units: NDArray[np.float32] = field(repr=False)
    _device: Device
    _shape: BlockShape | None

    @classmethod
    def build(
        cls,
        embeddings: NDArray[np.floating[Any]],
        identities: NDArray[np.integer[Any]],
        *,
        device: Device = Device.CPU,
        shape: BlockShape | None = None,
    ) -> Self:
        """Pair the images of known people.

        Args:
            embeddings: [N, D], float16 or float32, of any length: similarities are cosines.
            identities: [N], below 0 where the person is not known.
            device: where all pairs are compared. On the processor it uses as many threads as matrix products may.
            shape: largest block; decides memory and speed, never a result.

        Raises:
            IdentitySetError: wrong shapes, an embedding of a known person that has no direction, or over 2^30 genuine
                pairs.
        """
        if embeddings.ndim != 2 or identities.shape != (len(embeddings),):
            raise IdentitySetError(
                f"embeddings {list(embeddings.shape)} and identities {list(identities.shape)}: have to be [N, D], [N]"
            )
        known = np.flatnonzero(identities >= 0)
        units = unit_embeddings(embeddings, known)
        lost = np.flatnonzero(np.isnan(units).any(axis=1))
        if len(lost):
            raise IdentitySetError(
                f"the embeddings of {len(lost)} images have no direction (zero or not finite), the first in row"
                f" {known[lost[0]]}: leave these images out, or give them the identity -1, and say so"
            )
        first, second = _pair_same(identities[known])
        return cls(
            a=known[first].astype(np.int32),
            b=known[second].astype(np.int32),
            similarity=pair_similarities(units, first, second),
            impostors=len(known) * (len(known) - 1) // 2 - len(first),
            images=len(embeddings),
            _known=known,
            _units=units,
            _device=device,
            _shape=shape,
        )

    def thresholds(self, fmrs: Sequence[float]) -> Thresholds:
        """The similarity at each false match rate, set on all pairs, by the rule of `error_reject.threshold`.

        Raises:
            ValueError: a rate not over 0 and at most 1.
            ProviderError: if CUDA is asked for and cannot be used.
        """
        _check_rates(fmrs)
        if not self.impostors:
            return Thresholds(similarity=dict.fromkeys(fmrs, np.nan), histogram=np.zeros(BINS, np.int64))
        search = self._search(RejectionLevels.single(len(self._known)))
        genuine = np.sort(self.similarity)
        found = search.thresholds([(0, fmr) for fmr in fmrs], [genuine])
        return Thresholds(similarity=dict(zip(fmrs, found, strict=True)), histogram=search.counts[0])

    def cr_fiqa_curves(self, quality: NDArray[np.floating[Any]], fmrs: Sequence[float]) -> list[Curve]:
        """The error-reject curve of each false match rate by the protocol `cr_fiqa`.

        Equal to `error_reject.curve` of all pairs in the order of `np.triu_indices(N, 1)`, which decides what is
        rejected among pairs of equal quality.

        Args:
            quality: of the images [N]; those of unknown people are not looked at.
            fmrs: false match rates.

        Raises:
            IdentitySetError: wrong shape, or a NaN.
            ValueError: a rate not over 0 and at most 1.
            ProviderError: if CUDA is asked for and cannot be used.
        """
        _check_rates(fmrs)
        values = self._known_quality(quality)
        levels = RejectionLevels.build(values, CR_FIQA_RATES)
        level = levels.of_pairs(*self._genuine())
        order = np.argsort(self.similarity)
        similarity, level = self.similarity[order], level[order]
        kept = [similarity[level >= rate] for rate in range(levels.count)]
        curves = np.full((len(fmrs), levels.count), np.nan)
        if self.impostors and len(self.similarity):
            search = self._search(levels)
            asked = [(rate, fmr) for fmr in fmrs for rate in range(levels.count)]
            limits = np.reshape(search.thresholds(asked, kept), curves.shape)
            for (row, rate), limit in np.ndenumerate(limits):
                if len(kept[rate]) and not np.isnan(limit):
                    curves[row, rate] = np.searchsorted(kept[rate], np.float32(limit), side="right") / len(kept[rate])
        return [(CR_FIQA_RATES.copy(), fnmr) for fnmr in curves]

    def _known_quality(self, quality: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """The qualities of the images of known people."""
        if quality.shape != (self.images,):
            raise IdentitySetError(f"quality {list(quality.shape)} has to be [{self.images}], one an image")
        values = quality[self._known]
        missing = np.flatnonzero(np.isnan(values))
        if len(missing):
            raise IdentitySetError(
                f"the quality of {len(missing)} images is NaN, the first in row {self._known[missing[0]]}: give these"
                " images the identity -1, or a quality, and say so"
            )
        return values

    def _genuine(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The genuine pairs as rows of the images of known people."""
        return np.searchsorted(self._known, self.a), np.searchsorted(self._known, self.b)

    def _search(self, levels: RejectionLevels) -> ThresholdSearch:
        """Count the impostor pairs."""
        return ThresholdSearch(Impostors(self._units, self._genuine(), levels, device=self._device, shape=self._shape))


def _pair_same(identities: NDArray[np.integer[Any]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All pairs (i, j), i < j, of rows [N] of one identity."""
    order = np.argsort(identities, kind="stable")
    ordered = identities[order]
    ends = np.searchsorted(ordered, ordered, side="right")
    partners = ends - np.arange(len(ordered)) - 1  # later rows of the same person
    total = int(partners.sum())
    if total > MAX_GENUINE:
        person = ordered[int(partners.argmax())]
        raise IdentitySetError(
            f"{total:,} genuine pairs are too many to keep; identity {person} alone has"
            f" {int(partners.max()) + 1:,} images: are the identities right?"
        )
    first = np.repeat(np.arange(len(ordered)), partners)
    second = first + 1 + np.arange(total) - np.repeat(partners.cumsum() - partners, partners)
    return order[first], order[second]


def _check_rates(fmrs: Sequence[float]) -> None:
    for fmr in fmrs:
        if not 0 < fmr <= 1:
            raise ValueError(f"the false match rate {fmr} has to be over 0 and at most 1")
