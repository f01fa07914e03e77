"""Comparison scores of a benchmark by one recogniser: its genuine pairs, and the thresholds that impostors set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from labelers.runtime.device import Device
from training.evaluation.error_reject import RankedPairs
from training.evaluation.pairs.all_pairs import AllPairs
from training.evaluation.pairs.similarity import pair_similarities, unit_embeddings
from training.evaluation.verification import measure_accuracy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from data_manifests.benchmarks.pairs import PairList
    from training.evaluation.pairs.ranked_pairs import Curve
    from training.evaluation.verification import Accuracy

    CrFiqaCurves: TypeAlias = Callable[[NDArray[np.floating[Any]], Sequence[float]], list[Curve]]


class BenchmarkError(ValueError):
    """A benchmark cannot be evaluated; says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonScores:
    """What the protocols need of all pairs; a row is a row of the benchmark's images, or of its templates.

    Attributes:
        a: row of one side of every genuine pair, int32 [G].
        b: row of the other.
        similarity: cosine similarity of the genuine pairs, float32 [G].
        person: whose pair it is, int32 [G], where people have many pairs each; None for a list of pairs of images.
        impostors: number of impostor pairs.
        thresholds: similarity at each false match rate.
        left_out: pairs of a list without an embedding of both sides; images without one of an identity set.
        cr_fiqa_curves: of a quality [N] at false match rates, by the protocol `cr_fiqa`.
        accuracy: of a list of pairs of images, by its folds; else None.
    """

    a: NDArray[np.int32]
    b: NDArray[np.int32]
    similarity: NDArray[np.float32]
    person: NDArray[np.int32] | None
    impostors: int
    thresholds: dict[float, float]
    left_out: int
    cr_fiqa_curves: CrFiqaCurves
    accuracy: Accuracy | None = None


def compare_pairs(
    embeddings: NDArray[np.floating[Any]], found: NDArray[np.bool_], keys: NDArray[np.int32], pairs: PairList,
    fmrs: Sequence[float],
) -> ComparisonScores:  # fmt: skip
    """Compare the images of a list of pairs.

    Args:
        embeddings: [N, D], float16 or float32.
        found: bool [N], whether an image has an embedding.
        keys: int32 [N], ascending.
        pairs: by keys.
        fmrs: false match rates.

    Raises:
        BenchmarkError: if a pair names an image that the benchmark has not, or no pairs of a kind are left.
        VerificationPairsError: if the folds give no accuracy.
    """
    a, b = _rows(keys, pairs.a), _rows(keys, pairs.b)
    kept = found[a] & found[b]
    a, b, same, fold = a[kept], b[kept], pairs.same[kept], pairs.fold[kept]
    require_both_kinds(same, len(pairs), "images")
    require_directions(embeddings[found], "images")
    similarity = pair_similarities(unit_embeddings(embeddings, np.arange(len(embeddings))), a, b)
    scores = _compare(similarity, a, b, same, fmrs)
    return replace(scores, left_out=int((~kept).sum()), accuracy=measure_accuracy(similarity, same, fold))


def compare_templates(
    similarity: NDArray[np.float32], a: NDArray[np.integer[Any]], b: NDArray[np.integer[Any]], same: NDArray[np.bool_],
    fmrs: Sequence[float],
) -> ComparisonScores:  # fmt: skip
    """Compare the templates of a list of pairs.

    The list names nobody: templates that genuine pairs join, directly or through others, are of one person.

    Args:
        similarity: of the pairs [P].
        a: row of one template of every pair [P].
        b: row of the other.
        same: whether a pair shows one person [P]; of both kinds there are some.
        fmrs: false match rates.
    """
    count = int(max(a.max(), b.max())) + 1
    links = coo_array((np.ones(int(same.sum()), np.bool_), (a[same], b[same])), shape=(count, count))
    people = connected_components(links, directed=False)[1]
    return replace(_compare(similarity, a, b, same, fmrs), person=people[a[same]].astype(np.int32))


def require_both_kinds(same: NDArray[np.bool_], pairs: int, of: str) -> None:
    """Refuse a list of which only one kind of pairs is left.

    Args:
        same: of the pairs that are left.
        pairs: how many there were.
        of: what a pair is of.

    Raises:
        BenchmarkError: if no genuine or no impostor pairs are left.
    """
    if same.all() or not same.any():
        raise BenchmarkError(
            f"of {pairs:,} pairs {len(same):,} have an embedding of both {of}, {int(same.sum()):,} of them genuine: "
            "genuine and impostor pairs are needed"
        )


def require_directions(vectors: NDArray[np.floating[Any]], of: str) -> None:
    """Refuse vectors [N, D] that are all alike, by which no pair differs from another.

    Args:
        vectors: of unit length, or zero.
        of: what they are of.

    Raises:
        BenchmarkError: if they are.
    """
    if len(vectors) > 1 and not np.ptp(vectors, axis=0).any():
        raise BenchmarkError(
            f"all {len(vectors):,} {of} have the same embedding, so no pair differs from another: the recogniser's "
            "weights are damaged, or what the embeddings are weighted with is 0"
        )


def _compare(
    similarity: NDArray[np.float32], a: NDArray[np.integer[Any]], b: NDArray[np.integer[Any]], same: NDArray[np.bool_],
    fmrs: Sequence[float],
) -> ComparisonScores:  # fmt: skip
    """The scores of listed pairs, of rows `a` and `b`."""
    ranked = RankedPairs.build(similarity, same)

    def follow(quality: NDArray[np.floating[Any]], rates: Sequence[float]) -> list[Curve]:
        return ranked.curves(np.minimum(quality[a], quality[b]), rates, "cr_fiqa")

    return ComparisonScores(
        a=a[same].astype(np.int32),
        b=b[same].astype(np.int32),
        similarity=similarity[same],
        person=None,
        impostors=int((~same).sum()),
        thresholds=dict(zip(fmrs, ranked.thresholds(fmrs), strict=True)),
        left_out=0,
        cr_fiqa_curves=follow,
    )


def compare_identities(
    embeddings: NDArray[np.floating[Any]], found: NDArray[np.bool_], identities: NDArray[np.int32],
    fmrs: Sequence[float], device: Device = Device.CPU,
) -> ComparisonScores:  # fmt: skip
    """Compare the images of known people all against all.

    Args:
        embeddings: [N, D], float16 or float32.
        found: bool [N], whether an image has an embedding.
        identities: int32 [N], below 0 where the person is not known.
        fmrs: false match rates.
        device: where all pairs are compared.

    Raises:
        BenchmarkError: if there are no genuine or no impostor pairs.
    """
    require_directions(embeddings[found], "images")
    people = np.where(found, identities, -1)
    pairs = AllPairs.build(embeddings, people, device=device)
    if not pairs.impostors or not len(pairs.similarity):
        raise BenchmarkError(
            f"{int((people >= 0).sum()):,} images of known people give {len(pairs.similarity):,} genuine and "
            f"{pairs.impostors:,} impostor pairs: two people, and two images of one of them, are needed"
        )
    return ComparisonScores(
        a=pairs.a,
        b=pairs.b,
        similarity=pairs.similarity,
        person=people[pairs.a].astype(np.int32),
        impostors=pairs.impostors,
        thresholds=pairs.thresholds(fmrs).similarity,
        left_out=int((~found).sum()),
        cr_fiqa_curves=pairs.cr_fiqa_curves,
    )


def _rows(keys: NDArray[np.int32], wanted: NDArray[np.int32]) -> NDArray[np.intp]:
    """Where keys stand."""
    rows = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    unknown = np.flatnonzero(keys[rows] != wanted)
    if len(unknown):
        raise BenchmarkError(f"a pair names key {wanted[unknown[0]]}, which no image has: make the index again")
    return rows
