"""Fits the certainty ratio to embeddings and norms in one pass over the tables (CR-FIQA, on top)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from data_manifests.folds import fold_of
from training.on_top.config import Target
from training.on_top.ridge import PENALTIES, RidgeError, choose_penalty, judge, solve, sum_products
from training.on_top.scorer import OnTopScorer, features_of, recogniser_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from training.on_top.config import OnTopConfig
    from training.on_top.ridge import Fit
    from training.on_top.tables import StoredTables

UNUSED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedOnTop:
    """A quality on top, and what is known of it.

    Attributes:
        scorer: from embedding and norm to quality, fitted to all people but those held out.
        penalty: of the regression.
        images: how many were learned from.
        people: whom they show.
        left_out: images without a certainty ratio.
        folds: how the functions that are made without a fold of the people do on it, over all folds.
        held_out: how the scorer does on the people held out; None where nobody was.
    """

    scorer: OnTopScorer
    penalty: float
    images: int
    people: int
    left_out: int
    folds: Fit
    held_out: Fit | None

    def metrics(self) -> dict[str, Any]:
        """All but the scorer, as plain values."""
        return {
            "penalty": self.penalty,
            "images": self.images,
            "people": self.people,
            "left_out": self.left_out,
            "folds": asdict(self.folds),
            "held_out": None if self.held_out is None else asdict(self.held_out),
        }


def fit(tables: StoredTables, config: OnTopConfig, advance: Callable[[int], None] = lambda _: None) -> FittedOnTop:
    """Fit ridge regression, with the penalty that does best on people who were not fitted.

    Args:
        tables: the images' people, embeddings, norms and certainty ratios.
        config: what is told, and from whom.
        advance: is told after every shard how many images it brought.

    Raises:
        RidgeError: if too few people have a certainty ratio.
    """
    identities = tables.read_column(tables.index, "identity")
    ratio = tables.read_column(tables.anchors, "certainty_ratio").astype(np.float64)
    part = divide_people(identities, config)
    part[~np.isfinite(ratio)] = UNUSED
    learned = (part >= 0) & (part < config.folds)
    if not learned.any():
        raise RidgeError(f"{tables.anchors}: no image to learn from has a certainty ratio")
    target = ratio if config.target is Target.RATIO else rank_among(ratio, ratio[learned])
    products = _sum_parts(tables, part, target, config.folds + 1, advance)
    try:
        best, folds = choose_penalty(products[:-1])
    except RidgeError as error:
        raise RidgeError(f"{tables.anchors}: {error}") from None
    function = solve(products[:-1].sum(axis=0), PENALTIES[best : best + 1])[0]
    return FittedOnTop(
        scorer=OnTopScorer.of(function, recogniser_of(tables.made_from)),
        penalty=PENALTIES[best],
        images=int(learned.sum()),
        people=len(np.unique(identities[learned])),
        left_out=int((part == UNUSED).sum()),
        folds=folds,
        held_out=judge(products[-1], function) if products[-1, -2, -2] > 1 else None,
    )


def divide_people(identities: NDArray[np.int32], config: OnTopConfig) -> NDArray[np.int64]:
    """The part of every image's person, int64 [N]: 0 to folds - 1, `folds` for those held out, -1 where not known.

    The parts are about equal, whatever fold is held out.
    """
    if config.held_out is None:
        return fold_of(identities, config.folds)
    # Modulo the product, the hash gives two numbers that have nothing to do with each other.
    part = fold_of(identities, config.folds * config.held_out.folds) // config.held_out.folds
    return np.where(config.held_out.holds(identities), config.folds, part)


def rank_among(values: NDArray[np.float64], among: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of `among` below each value, float64 [N] in [0, 1]; of equal ones half count."""
    ordered = np.sort(among)
    below, upto = np.searchsorted(ordered, values), np.searchsorted(ordered, values, side="right")
    return (below + upto) / (2.0 * len(ordered))


def _sum_parts(
    tables: StoredTables,
    part: NDArray[np.int64],
    target: NDArray[np.float64],
    parts: int,
    advance: Callable[[int], None],
) -> NDArray[np.float64]:
    """The products of every part of the images, float64 [parts, P + 2, P + 2], shard by shard."""
    products: NDArray[np.float64] | None = None
    start = 0
    # Sums depend on how many threads share them in the last bits.
    with threadpool_limits(1):
        for shard in range(tables.shards):
            embeddings, norms = tables.read_embeddings(shard)
            here = slice(start, start + len(norms))
            start = here.stop
            if products is None:
                products = np.zeros((parts, *[embeddings.shape[1] + 3] * 2))
            for number in range(parts):
                rows = np.flatnonzero(part[here] == number)
                products[number] += sum_products(features_of(embeddings[rows], norms[rows]), target[here][rows])
            advance(len(norms))
    assert products is not None  # a table has one shard or more
    return products
