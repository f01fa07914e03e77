"""Templates, sets of images and video frames of one person: pooled to one embedding each, and compared in pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from training.evaluation.pairs.ranked_pairs import RankedPairs
from training.evaluation.pairs.similarity import pair_similarities

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

FARS = (1e-4, 1e-5, 1e-6)
"""False accept rates at which IJB-C is reported. Source: CR-FIQA section IV."""

_ROWS = 8192
"""Images pooled at a time: 32 MB of float64 for embeddings of 512 values."""


class TemplateError(ValueError):
    """Templates cannot be pooled or compared; names the template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates:
    """One embedding a template.

    Attributes:
        ids: ascending [T].
        units: float32 [T, D], of unit length; zero where the weighted images of a template cancel or weigh nothing,
            whose similarity with every template is then 0, as in the released code.
    """

    ids: NDArray[np.int64]
    units: NDArray[np.float32]

    @classmethod
    def pool(
        cls,
        embeddings: NDArray[np.floating[Any]],
        templates: NDArray[np.integer[Any]],
        media: NDArray[np.integer[Any]],
        weights: NDArray[np.floating[Any]] | None = None,
    ) -> Self:
        """Pool the images of every template.

        With weights w and embeddings e, template t = Σ_m (1/|m|) Σ_{i in m} w_i e_i over its media m (a photo, or the
        frames of a video that are in the template), brought to unit length: a video counts as much as one photo. A
        factor common to all weights changes nothing.

        Args:
            embeddings: [N, D], float16 or float32, one an image of a template. With unit embeddings and no weights it
                is InsightFace's pooling of normalised features; weights of `norm` give its pooling of raw features.
            templates: [N], the template's number; an image in two templates stands twice.
            media: [N], the medium's number, which need not be unique among templates.
            weights: of the images [N], at least 0, such as `scale_quality` of their qualities; 1 where not given.

        Raises:
            TemplateError: wrong shapes, an embedding that is not finite, or a weight that is not finite or below 0.

        Source: InsightFace's IJB evaluation; with quality weights CR-FIQA section IV and its released evaluation.
        """
        _check_shapes(embeddings, templates, media, weights)
        order = np.lexsort((media, templates))
        ids, starts = np.unique(templates[order], return_index=True)
        units = np.empty((len(ids), embeddings.shape[1]), np.float32)
        for first, last in _chunks(starts, len(order)):
            rows = order[starts[first] : starts[last] if last < len(ids) else len(order)]
            images = embeddings[rows].astype(np.float64)
            if weights is not None:
                images *= weights[rows, None]
            _check_finite(images, rows, templates)
            units[first:last] = _pool_sorted(images, templates[rows], media[rows])
        return cls(ids=ids.astype(np.int64), units=units)

    def similarities(self, a: NDArray[np.integer[Any]], b: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Cosine similarity of pairs of templates, numbers [P] twice, float32 [P].

        Raises:
            TemplateError: if a template has no images.
        """
        return pair_similarities(self.units, self._rows(a), self._rows(b))

    def _rows(self, numbers: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
        """Where templates [P] stand."""
        rows = np.searchsorted(self.ids, numbers)
        missing = np.append(self.ids, -1)[rows] != numbers if len(self.ids) else np.ones(len(numbers), np.bool_)
        if missing.any():
            raise TemplateError(
                f"{len(np.unique(numbers[missing]))} templates are in a pair but have no images, the first is template"
                f" {numbers[missing][0]}: give their images, or leave their pairs out, and say so"
            )
        return rows


def scale_quality(quality: NDArray[np.floating[Any]], templates: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Weights of images from their qualities: (q - min) / (max - min) over all images, so that the worst weighs 0.

    Args:
        quality: of the images [N].
        templates: of the images [N], which an error names.

    Raises:
        TemplateError: wrong shapes, a quality that is not finite, or all of them equal.

    Source: CR-FIQA's released evaluation of IJB-C.
    """
    if quality.ndim != 1 or quality.shape != templates.shape:
        raise TemplateError(f"quality {list(quality.shape)} and templates {list(templates.shape)} have to be [N]")
    values = quality.astype(np.float64)
    _check_numbers(values, np.isfinite(values), templates, "quality")
    if not len(values) or values.min() == values.max():
        raise TemplateError(f"the qualities of {len(values)} images are all alike and give no weights: pool without")
    return np.asarray((values - values.min()) / (values.max() - values.min()))


def lowest_quality(quality: NDArray[np.floating[Any]], templates: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """The quality of every template, for error-reject curves: that of its worst image.

    Args:
        quality: of the images [N]; NaN where there is none.
        templates: of the images [N].

    Returns:
        Of the templates by their numbers, ascending [T]; NaN where an image has none.

    Source: CR-FIQA's released evaluation, ijb_pair_file.py.
    """
    order = np.argsort(templates, kind="stable")
    starts = np.unique(templates[order], return_index=True)[1]
    return np.asarray(np.minimum.reduceat(quality[order].astype(np.float64), starts))


def measure_tar(
    similarity: NDArray[np.floating[Any]], same: NDArray[np.bool_], fars: Sequence[float] = FARS
) -> dict[float, float]:
    """True accept rate at each false accept rate.

    The threshold is that of `error_reject.threshold`: the similarity of a pair whose FAR, the share of impostor pairs
    as similar or more, is nearest to the one wanted. TAR is the share of genuine pairs as similar or more.

    Args:
        similarity: of the pairs [P].
        same: whether a pair shows one person [P].
        fars: false accept rates.

    Raises:
        ValueError: wrong shapes, a NaN, no genuine or no impostor pairs, or a rate not over 0 and at most 1.
    """
    pairs = RankedPairs.build(similarity, same)
    genuine = -pairs.genuine_distance
    return {far: float(np.mean(genuine >= limit)) for far, limit in zip(fars, pairs.thresholds(fars), strict=True)}


def _pool_sorted(
    images: NDArray[np.float64], templates: NDArray[np.integer[Any]], media: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Pool weighted images [R, D] that are sorted by template and medium; one row a template."""
    new_template = np.append(True, templates[1:] != templates[:-1])
    medium_starts = np.flatnonzero(new_template | np.append(True, media[1:] != media[:-1]))
    means = np.add.reduceat(images, medium_starts, axis=0)  # [M, D]
    means /= np.diff(medium_starts, append=len(images))[:, None]
    sums = np.add.reduceat(means, np.flatnonzero(new_template[medium_starts]), axis=0)  # [T, D]
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0))


def _chunks(starts: NDArray[np.intp], images: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole templates, each with few enough images unless it is one template."""
    ends = np.append(starts[1:], images)
    first = 0
    while first < len(starts):
        last = max(int(np.searchsorted(ends, starts[first] + _ROWS, side="right")), first + 1)
        yield first, last
        first = last


def _check_shapes(
    embeddings: NDArray[np.floating[Any]],
    templates: NDArray[np.integer[Any]],
    media: NDArray[np.integer[Any]],
    weights: NDArray[np.floating[Any]] | None,
) -> None:
    count = len(embeddings)
    if embeddings.ndim != 2 or templates.shape != (count,) or media.shape != (count,):
        raise TemplateError(
            f"embeddings {list(embeddings.shape)}, templates {list(templates.shape)} and media {list(media.shape)}"
            " have to be [N, D], [N], [N]"
        )
    if weights is None:
        return
    if weights.shape != (count,):
        raise TemplateError(f"weights {list(weights.shape)} have to be [{count}], one an image")
    _check_numbers(weights, np.isfinite(weights) & (weights >= 0), templates, "weight")


def _check_numbers(
    values: NDArray[np.floating[Any]], fit: NDArray[np.bool_], templates: NDArray[np.integer[Any]], name: str
) -> None:
    """Name the first image [N] whose number is not fit."""
    unfit = np.flatnonzero(~fit)
    if len(unfit):
        row = unfit[0]
        raise TemplateError(
            f"the {name} of {len(unfit)} images cannot be used, the first is {values[row]} for an image of template"
            f" {templates[row]} (row {row}): give them a {name} that is finite and not below 0, or leave them out"
        )


def _check_finite(
    images: NDArray[np.float64],
    rows: NDArray[np.intp],
    templates: NDArray[np.integer[Any]],
) -> None:
    """Name the first template with an embedding that is not finite."""
    lost = np.flatnonzero(~np.isfinite(images).all(axis=1))
    if len(lost):
        row = rows[lost[0]]
        raise TemplateError(
            f"the embedding of an image of template {templates[row]} (row {row}) is not finite: leave the image out,"
            " and say so"
        )
