"""How often 95 % intervals of an area hold the true one, by the number of wrong pairs and the kind of the interval.

    python -m benchmarks.coverage [--simulations 500] [--replicates 500]

Sets of genuine pairs are drawn, seeded, of which a quality foretells the similarity; the true area is that of two
million pairs. Kinds: percentiles of the draws; basic, the same turned round about the area; BCa, which the evaluation
uses.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from pipeline.storage.receipts import machine
from training.evaluation.error_reject import area, fixed_curve
from training.evaluation.statistics import LIMITS, Draws, resample_areas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pairs = tuple[NDArray[np.float64], NDArray[np.float64]]

SETS = ((1000, 3), (1000, 5), (1000, 10), (1000, 20), (1000, 30), (3000, 30), (1000, 100), (300, 100))
"""Genuine pairs, and about how many of them are wrong."""
MANY = 2_000_000
ENDS = (0.025, 0.975)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--replicates", type=int, default=500)
    given = parser.parse_args()
    error = 100 * np.sqrt(0.95 * 0.05 / given.simulations)
    print(f"{machine()['processor']}; {given.simulations} sets, {given.replicates} draws each; ±{error:.1f} points")
    print(f"{'pairs':>6} {'errors':>7}  {'area':<5} {'percentile':>11} {'basic':>7} {'BCa':>7}")
    random = np.random.default_rng(0)
    whole = draw_pairs(random, MANY)
    for pairs, errors in SETS:
        threshold = float(np.quantile(whole[0], errors / pairs))
        true = np.array([area(*fixed_curve(*whole, threshold), limit, "step") for limit in LIMITS])
        held = [
            count_held(draw_pairs(random, pairs), threshold, true, Draws(replicates=given.replicates, seed=seed))
            for seed in range(given.simulations)
        ]
        for name, shares in zip(("pAUC", "AUC"), 100 * np.nanmean(held, axis=0), strict=True):
            percentile, basic, bca = shares
            print(f"{pairs:6} {errors:7}  {name:<5} {percentile:10.1f}% {basic:6.1f}% {bca:6.1f}%", flush=True)


def draw_pairs(random: np.random.Generator, pairs: int) -> Pairs:
    """Similarities and a quality that foretells them."""
    quality = random.random(pairs)
    return 0.2 + 0.4 * quality + 0.1 * random.standard_normal(pairs), quality


def count_held(pairs: Pairs, threshold: float, true: NDArray[np.float64], draws: Draws) -> NDArray[np.float64]:
    """Whether percentiles, basic and BCa hold each true area [2, 3]; NaN where no pair is wrong."""
    similarity, quality = pairs
    found = resample_areas(similarity, [quality], [threshold], LIMITS, draws)
    held = np.full((len(LIMITS), 3), np.nan)
    for place, value in enumerate(found.values[0, 0]):
        if np.isfinite(value):
            low, high = np.nanquantile(found.replicates[:, 0, 0, place], ENDS)
            bca = found.interval(0, 0, place)
            intervals = (low, high), (2 * value - high, 2 * value - low), (bca.low, bca.high)
            held[place] = [start <= true[place] <= end for start, end in intervals]
    return held


if __name__ == "__main__":
    main()
