"""Quality anchors from embeddings and class centres: CCS, NNCCS, their ratios, and the way to [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.tables.stages import Status
from labelers.anchors.centres import accumulate, have_direction, head_centres, row_lengths, unit_rows
from labelers.anchors.nearest import COLUMNS, ROWS, open_search
from labelers.labeler import Measures
from labelers.runtime.device import Device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from labelers.anchors.centres import Centres
    from labelers.anchors.nearest import CentreSearch

EPSILON = 1e-9
"""Keeps the certainty ratio's denominator positive. Source: CR-FIQA Eq. 4."""

PLAIN_FLOOR = -1e-12
"""The least NNCCS of the plain ratio. Source: the released code of CR-FIQA and of CLIB-FIQA."""

BLOCK = 1024
"""Embeddings whose cosines are computed at a time in float64."""

QUANTILES = (0.001, 0.999)
"""The ends of the anchor when outliers are not to set the scale."""


class AnchorRangeError(ValueError):
    """The anchor's range over the data set cannot be brought to [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorRange:
    """Statistics of an anchor over a data set, of its finite values alone.

    Attributes:
        minimum: smallest value, NaN if there are no values.
        maximum: largest value, likewise.
        low: 0.1 % quantile, likewise.
        high: 99.9 % quantile, likewise.
        images: how many values there are.
    """

    minimum: float
    maximum: float
    low: float
    high: float
    images: int


def class_similarities(  # noqa: PLR0913 - the contract's three arrays, and how to run
    embeddings: NDArray[np.floating],
    identities: NDArray[np.integer],
    centres: NDArray[np.floating],
    *,
    device: Device = Device.CPU,
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosine similarity with the own class centre, and the largest with another one.

    Args:
        embeddings: [N, D], of any length.
        identities: [N], rows of `centres`.
        centres: [C, D], of any length; classes of which no embedding is given count as others.
        device: where all pairs are compared.
        rows: embeddings compared at a time on a processor.
        columns: centres compared at a time on a processor.

    Returns:
        CCS [N] and NNCCS [N] in [-1, 1]; NaN for an embedding without direction, and NNCCS NaN where C is 1. NNCCS is
        the true maximum over the other classes, without a floor.

    Raises:
        IdentityError: if an identity lies outside 0 to C - 1.

    Source: CR-FIQA Eq. 2 and 3.
    """
    head = head_centres(np.asarray(centres, np.float32))
    return _head_similarities(embeddings, identities, open_search(head, device, rows=rows, columns=columns))


def leave_one_out_similarities(
    embeddings: NDArray[np.floating], identities: NDArray[np.integer], *, device: Device = Device.CPU
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """CCS and NNCCS with mean centres, where an embedding does not stand in its own class's centre.

    See `leave_one_out_from_centres`; here the centres are made from the same embeddings [N, D] and identities [N].
    """
    search = open_search(accumulate([(embeddings, identities)]), device)
    return leave_one_out_from_centres(embeddings, identities, search)


def leave_one_out_from_centres(
    embeddings: NDArray[np.floating], identities: NDArray[np.integer], search: CentreSearch
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """CCS and NNCCS of embeddings that stand in the centres' sums.

    The own centre is the mean of the *other* unit embeddings of the identity; the other centres are the full means of
    their identities, people of one image included.

    Args:
        embeddings: [N, D], of any length; each stands in the sum of its identity.
        identities: [N].
        search: of the sums of unit embeddings over the whole data set.

    Returns:
        CCS [N] and NNCCS [N] in [-1, 1]. Both are NaN for people of one image, who have no other embedding to compare
        with, and for an embedding without direction; NNCCS is NaN where there is no other identity.

    Raises:
        IdentityError: if an identity has no centre.
    """
    centres = search.centres
    if centres.from_head:
        raise ValueError("the columns of a head hold no embedding that could be left out: use class_similarities")
    usable, units, own = _match(embeddings, identities, centres)
    several = centres.counts[own] > 1
    usable, units, own = usable[several], units[several], own[several]
    ccs, nnccs = np.full((2, len(embeddings)), np.nan)
    for start in range(0, len(usable), BLOCK):
        part = slice(start, start + BLOCK)
        block = units[part].astype(np.float64)
        others = centres.sums[own[part]] - block  # [R, D]
        ccs[usable[part]] = _row_cosines(block, others)
    nnccs[usable] = _nearest_cosines(embeddings[usable], units, own, search)
    return ccs, nnccs


def measure_anchors(
    embeddings: NDArray[np.floating],
    identities: NDArray[np.integer],
    search: CentreSearch,
    copies: NDArray[np.bool_] | None = None,
) -> Measures:
    """CCS, NNCCS and the certainty ratio of N embeddings [N, D], by mean centres or by those of a head.

    The search of these centres (`labelers.anchors.nearest.open_search`) is made once for all embeddings of a data set.
    `copies`, bool [N], are images that stand in no centre, since they repeat another image; without it there are none.

    Returns:
        Columns `ccs`, `nnccs`, `certainty_ratio`, float32 [N]. All three are NaN for a person of one image
        (`single_image`, mean centres only), where no other identity exists (`no_other_identity`), and for an
        embedding without direction (`no_face`; whoever holds the embedding's own status puts it in place of that),
        where the identity is below zero, which names nobody (`no_identity`), where a head has no centre of it
        (`no_centre`), and for copies (`copy`).

    Raises:
        IdentityError: if an identity of 0 or more has no mean centre.
    """
    named, everybody = identities >= 0, np.ones(len(identities), np.bool_)
    learned = np.isin(identities, search.centres.identities) if search.centres.from_head else everybody
    first = everybody if copies is None else ~copies
    known = np.where((named & learned & first)[:, None], embeddings, np.nan)
    measure = _head_similarities if search.centres.from_head else leave_one_out_from_centres
    ccs, nnccs = measure(known, identities, search)
    unmeasured = np.isnan(ccs) | np.isnan(nnccs)
    values = {"ccs": ccs, "nnccs": nnccs, "certainty_ratio": certainty_ratio(ccs, nnccs)}
    return Measures(
        columns={name: np.where(unmeasured, np.nan, value).astype(np.float32) for name, value in values.items()},
        status=_causes(
            (have_direction(embeddings), Status.NO_FACE),
            (named, Status.NO_IDENTITY),
            (learned, Status.NO_CENTRE),
            (first, Status.COPY),
            (~np.isnan(ccs), Status.SINGLE_IMAGE),
            (~unmeasured, Status.NO_OTHER_IDENTITY),
        ),
    )


def _causes(*needs: tuple[NDArray[np.bool_], Status]) -> list[Status]:
    """The first thing that an image lacks, of what an anchor needs: whether it is there, and what to say if not."""
    causes = [Status.OK] * len(needs[0][0])
    for there, cause in reversed(needs):
        for row in np.flatnonzero(~there).tolist():
            causes[row] = cause
    return causes


def certainty_ratio(ccs: NDArray[np.floating], nnccs: NDArray[np.floating]) -> NDArray[np.float64]:
    """CCS / (NNCCS + 1 + 1e-9), [N]. Source: CR-FIQA Eq. 4."""
    return np.asarray(ccs, np.float64) / (np.asarray(nnccs, np.float64) + 1.0 + EPSILON)


def plain_ratio(ccs: NDArray[np.floating], nnccs: NDArray[np.floating]) -> NDArray[np.float64]:
    """CCS / NNCCS with NNCCS of at least -1e-12, [N]; infinite where NNCCS is 0.

    The floor makes a pole: values reach -1e12. Source: the released code of CR-FIQA and CLIB-FIQA.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(ccs, np.float64) / np.maximum(np.asarray(nnccs, np.float64), PLAIN_FLOOR)


def anchor_statistics(anchor: NDArray[np.floating]) -> AnchorRange:
    """The statistics by which an anchor [N] is normalised; NaN and infinite values are left out."""
    finite = np.asarray(anchor, np.float64)[np.isfinite(anchor)]
    if not len(finite):
        return AnchorRange(minimum=np.nan, maximum=np.nan, low=np.nan, high=np.nan, images=0)
    low, high = np.quantile(finite, QUANTILES)
    return AnchorRange(
        minimum=float(finite.min()), maximum=float(finite.max()), low=float(low), high=float(high), images=len(finite)
    )


def normalise(anchor: NDArray[np.floating], low: float, high: float) -> NDArray[np.float64]:
    """Bring an anchor [N] to [0, 1]: `low` becomes 0, `high` becomes 1, what lies beyond is clipped, NaN stays.

    Raises:
        AnchorRangeError: if `high` does not exceed `low`, or one of them is not finite.

    Source: CLIB-FIQA section 3.2 (max-min normalisation over the training set).
    """
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise AnchorRangeError(
            f"an anchor from {low} to {high} cannot be brought to [0, 1]: the images with an anchor are too few or all"
            " alike; label more images, or check that the data set's identities are right"
        )
    return np.clip((np.asarray(anchor, np.float64) - low) / (high - low), 0.0, 1.0)


def _head_similarities(
    embeddings: NDArray[np.floating], identities: NDArray[np.integer], search: CentreSearch
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """CCS [N] and NNCCS [N] with centres in which the embeddings do not stand; NaN where there is no direction."""
    usable, units, own = _match(embeddings, identities, search.centres)
    ccs, nnccs = np.full((2, len(embeddings)), np.nan)
    ccs[usable] = _cosines(embeddings[usable], search.centres.sums, own)
    nnccs[usable] = _nearest_cosines(embeddings[usable], units, own, search)
    return ccs, nnccs


def _match(
    embeddings: NDArray[np.floating], identities: NDArray[np.integer], centres: Centres
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]]:
    """Which of the embeddings [N, D] have a direction, [K], these at unit length and the rows of their own centres."""
    if embeddings.ndim != 2 or len(embeddings) != len(identities):
        raise ValueError(f"{len(identities)} identities do not fit embeddings {list(embeddings.shape)}")
    if len(centres) and embeddings.shape[1] != centres.sums.shape[1]:
        raise ValueError(
            f"embeddings of {embeddings.shape[1]} values, class centres of {centres.sums.shape[1]}: they come from"
            " different recognisers"
        )
    units = unit_rows(embeddings)
    usable = np.flatnonzero(np.isfinite(units[:, 0]))
    return usable, units[usable], centres.rows_of(identities[usable])


def _nearest_cosines(
    embeddings: NDArray[np.floating], units: NDArray[np.float32], own: NDArray[np.intp], search: CentreSearch
) -> NDArray[np.float64]:
    """NNCCS [N] of embeddings [N, D], which `units` are at unit length; NaN where there is no class but their `own`.

    The neighbour is found in float32 and its cosine computed again in float64, so that the value does not depend on
    how the product was cut into tiles.
    """
    nearest = search.nearest_other(units, own)
    found = nearest >= 0
    nnccs = np.full(len(embeddings), np.nan)
    nnccs[found] = _cosines(embeddings[found], search.centres.sums, nearest[found])
    return nnccs


def _cosines(
    embeddings: NDArray[np.floating], centres: NDArray[np.float32], rows: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Cosine of every embedding [N, D] with the centre in its row of [C, D], in float64, block by block."""
    cosines = np.empty(len(embeddings), np.float64)
    for start in range(0, len(embeddings), BLOCK):
        part = slice(start, start + BLOCK)
        cosines[part] = _row_cosines(embeddings[part].astype(np.float64), centres[rows[part]].astype(np.float64))
    return cosines


def _row_cosines(rows: NDArray[np.float64], partners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of each row with its partner, clipped to [-1, 1]; 0 where the partner has no direction."""
    products = np.einsum("nd,nd->n", rows, partners)
    lengths = row_lengths(rows) * row_lengths(partners)
    return np.asarray(np.clip(products / np.where(lengths == 0.0, 1.0, lengths), -1.0, 1.0))
