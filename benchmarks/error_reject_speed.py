"""Error-reject curves: time and memory for ten million pairs, beside the way of CR-FIQA's published script.

    python -m benchmarks.error_reject_speed

The pairs are made up: half of them genuine, similarities and one quality in float32. Ours gives both protocols at
three false match rates, with areas. The script's way gives `cr_fiqa` alone: at each of 20 rates all kept scores go
into a list of (score, kind), which is sorted and grouped into thresholds, and a loop counts the genuine pairs for
every false match rate. It is written anew here, and is spared what the script does besides (it computes the distances
of all kept pairs again at every rate). It gets as many pairs as it manages in about 20 seconds, and both are compared
on these. One thread.
"""

from __future__ import annotations

import argparse
import resource
import time
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.error_reject import AreaRule, Protocol, RankedPairs, area

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Pairs = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]

FMRS = (1e-2, 1e-3, 1e-4)
LIMITS = (0.3, 0.95)
SECONDS_AIM, MEMORY_AIM = 10, 2e9
TOLERANCE = 1e-12
FIRST_TRY = 20_000


def make_pairs(count: int) -> Pairs:
    """Similarity, same and quality of `count` pairs, the genuine ones less alike where quality is low."""
    random = np.random.default_rng(0)
    same = random.random(count, np.float32) < 0.5
    quality = random.random(count, np.float32)
    similarity = random.standard_normal(count, np.float32)
    similarity *= np.float32(0.12)
    similarity += same * (np.float32(0.25) + np.float32(0.5) * quality)
    return similarity, same, quality


def peak_memory() -> float:
    """Bytes that this process has held at most, the interpreter and the pairs included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_ours(pairs: Pairs, protocols: tuple[Protocol, ...]) -> dict[Protocol, NDArray[np.float64]]:
    """Normalised areas [FMR, rule, limit] by protocol."""
    similarity, same, quality = pairs
    ranked = RankedPairs.build(similarity, same)
    return {
        protocol: np.array(
            [
                [[area(*points, upto, rule) for upto in LIMITS] for rule in AreaRule]
                for points in ranked.curves(quality, FMRS, protocol)
            ]
        )
        for protocol in protocols
    }


def group_scores(genuine: NDArray[Any], impostor: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Distinct distances, largest first, and the false match rate of each, through one sorted list of all scores."""
    scores = [(-d, 1) for d in genuine] + [(-d, 0) for d in impostor]
    scores.sort(key=itemgetter(0))
    table = np.array(scores)
    before = np.cumsum(table[:, 1])
    values, first = np.unique(table[:, 0], return_index=True)
    missed = before[first] - table[first, 1]
    return -values, (len(impostor) - (first - missed)) / len(impostor)


def run_script_way(pairs: Pairs) -> NDArray[np.float64]:
    """Normalised areas [FMR, limit] of `cr_fiqa` by the trapezoid rule."""
    similarity, same, quality = pairs
    distance = -similarity.astype(np.float64)
    order = np.argsort(quality, kind="stable")
    rates = 0.05 * np.arange(20)
    fnmr = np.empty((len(FMRS), len(rates)))
    for place, rate in enumerate(rates):
        kept = order[int(rate * len(order)) :]
        genuine, impostor = (np.sort(distance[kept[same[kept] == kind]]) for kind in (True, False))
        thresholds, fmrs = group_scores(genuine, impostor)
        for number, fmr in enumerate(FMRS):
            limit = thresholds[np.argmin(np.abs(fmrs - fmr))]
            matched = [d for d in genuine if d < limit]
            fnmr[number, place] = 1 - len(matched) / len(genuine)
    ends = [np.flatnonzero(rates <= limit + 1e-9)[-1] + 1 for limit in LIMITS]
    return np.array(
        [
            [np.trapezoid(y[:end], rates[:end]) / y[0] / limit for end, limit in zip(ends, LIMITS, strict=True)]
            for y in fnmr
        ]
    )


def measure_script_way(seconds: float, most: int) -> tuple[Pairs, float, NDArray[np.float64]]:
    """As many pairs as fit into the time, the seconds they took, and their areas."""
    count = min(FIRST_TRY, most)
    while True:
        pairs = make_pairs(count)
        start = time.perf_counter()
        areas = run_script_way(pairs)
        taken = time.perf_counter() - start
        if taken > seconds / 2 or count == most:
            return pairs, taken, areas
        count = min(int(count * min(0.9 * seconds / taken, 20)), most)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000_000, help="pairs for ours")
    parser.add_argument("--seconds", type=float, default=20, help="about how long the script's way may take")
    arguments = parser.parse_args()

    pairs = make_pairs(arguments.pairs)
    held = sum(column.nbytes for column in pairs)
    start, start_busy = time.perf_counter(), time.process_time()
    for protocol, areas in run_ours(pairs, tuple(Protocol)).items():
        partial, whole = areas[1, 0]
        print(f"{protocol:8} at FMR 1e-3: pAUC {partial:.4f}, AUC {whole:.4f} (normalised, trapezoid)")
    taken, busy = time.perf_counter() - start, time.process_time() - start_busy
    print(f"ours, both protocols, {len(FMRS)} FMRs, areas: {arguments.pairs:,} pairs in {taken:.1f} s", end="")
    print(f", of them {busy:.1f} s on a core (aim: 10 million under {SECONDS_AIM} s)")
    print(f"peak memory of the process {peak_memory() / 1e9:.2f} GB (aim: under {MEMORY_AIM / 1e9:.0f} GB)", end="")
    print(f", the pairs themselves {held / 1e9:.2f} GB")

    pairs, script_seconds, expected = measure_script_way(arguments.seconds, arguments.pairs)
    count = len(pairs[0])
    start = time.perf_counter()
    found = run_ours(pairs, (Protocol.CR_FIQA,))[Protocol.CR_FIQA][:, 0]
    our_seconds = time.perf_counter() - start
    print(f"{'cr_fiqa, the way of the published script':42} {count / script_seconds:12,.0f} pairs/s ({count:,} pairs)")
    print(f"{'cr_fiqa, ours, the same pairs':42} {count / our_seconds:12,.0f} pairs/s")
    difference = float(np.abs(found - expected).max())
    print(f"ratio {script_seconds / our_seconds:,.0f}x; largest difference of an area {difference:.1e}", end="")
    print(f" (at most {TOLERANCE:.0e})")
    return 0 if difference <= TOLERANCE else 1


if __name__ == "__main__":
    raise SystemExit(main())
