"""Evaluates qualities by the errors of recognisers: arrays in, tables out."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.stats import spearmanr

from data_manifests.tables.evaluation import COMPARISONS, CORRELATIONS, CURVES, METRICS, QUALITIES
from training.evaluation.error_reject import AreaRule, Protocol, area, fixed_curves, fnmr_at
from training.evaluation.methods.kinds import FLOOR
from training.evaluation.statistics import LIMITS, Draws, resample_areas

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from training.evaluation.comparison import ComparisonScores
    from training.evaluation.pairs.ranked_pairs import Curve
    from training.evaluation.statistics import ResampledAreas

FMRS = (1e-2, 1e-3, 1e-4)
"""False match rates of CLIB-FIQA's Tables 1 to 4."""

GRID: NDArray[np.float64] = np.linspace(0.0, 1.0, 201)
"""Shares rejected at which a curve of protocol `fixed` is written down."""

NAMES = ("pauc", "auc")
_FEWEST_IMAGES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How qualities are evaluated.

    Attributes:
        fmrs: false match rates.
        protocols: which pairs are rejected, and when the threshold is set.
        replicates: bootstrap draws.
        seed: of the draws.
        fewest_impostors: a threshold above which fewer impostor pairs lie is left out; 0: none is, as in the papers.
        fewest_errors: areas of fewer wrong pairs have neither intervals nor p-values; 0: all have.
    """

    fmrs: tuple[float, ...] = FMRS
    protocols: tuple[Protocol, ...] = (Protocol.FIXED,)
    replicates: int = 1000
    seed: int = 0
    fewest_impostors: int = 0
    fewest_errors: int = 0


def evaluate_methods(
    scores: ComparisonScores, qualities: Mapping[str, NDArray[np.floating[Any]]], options: Options
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Evaluate qualities by the errors of one recogniser on one benchmark.

    Args:
        scores: the benchmark's pairs.
        qualities: method -> quality of the benchmark's images [N]; NaN where it gives none, which is rejected first.
        options: how.

    Returns:
        The tables `metrics`, `curves` and `comparisons`, with benchmark and recogniser still null. The floor
        is evaluated beside the methods.
    """
    metrics: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    of_images = {name: _fill(quality) for name, quality in qualities.items()}
    of_pairs = {name: _take_worse(scores, quality) for name, quality in of_images.items()}
    of_pairs[FLOOR] = scores.similarity.astype(np.float64)
    if Protocol.FIXED in options.protocols:
        thresholds = [scores.thresholds[fmr] for fmr in options.fmrs]
        draws = Draws(identities=scores.person, replicates=options.replicates, seed=options.seed)
        areas = resample_areas(scores.similarity, list(of_pairs.values()), thresholds, LIMITS, draws)
        for place, (name, quality) in enumerate(of_pairs.items()):
            curves = fixed_curves(scores.similarity, quality, thresholds)
            for number, (fmr, curve) in enumerate(zip(options.fmrs, curves, strict=True)):
                head = {"method": name, "protocol": Protocol.FIXED.value, "fmr": fmr}
                found = _describe(scores, qualities.get(name), head, curve, options)
                metrics.append(found | _intervals(areas, place, number, found["status"]) | _describe_draws(draws))
                points.extend(_points(head, GRID, fnmr_at(*curve, GRID)))
        tested = [_count_errors(scores, fmr) >= options.fewest_errors for fmr in options.fmrs]
        comparisons = _compare(areas, list(of_pairs), options.fmrs, tested)
    if Protocol.CR_FIQA in options.protocols:
        for name, quality in of_images.items():
            for fmr, curve in zip(options.fmrs, scores.cr_fiqa_curves(quality, options.fmrs), strict=True):
                head = {"method": name, "protocol": Protocol.CR_FIQA.value, "fmr": fmr}
                metrics.append(_describe(scores, qualities[name], head, curve, options))
                points.extend(_points(head, *curve))
    return METRICS.to_arrow(metrics), CURVES.to_arrow(points), COMPARISONS.to_arrow(comparisons)


def find_twins(scores: ComparisonScores, qualities: Mapping[str, NDArray[np.floating[Any]]]) -> list[tuple[str, ...]]:
    """The methods that reject the same genuine pairs at every share: groups of two or more.

    Args:
        scores: the benchmark's pairs.
        qualities: as in `evaluate_methods`.
    """
    groups: dict[bytes, list[str]] = {}
    for name, quality in qualities.items():
        order = np.unique(_take_worse(scores, _fill(quality)), return_inverse=True)[1]
        groups.setdefault(hashlib.sha256(order.astype(np.int64).tobytes()).digest(), []).append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def correlate(
    qualities: Mapping[str, NDArray[np.floating[Any]]], measures: Mapping[str, NDArray[np.floating[Any]]]
) -> pa.Table:
    """The table `correlations`, with the benchmark still null.

    Args:
        qualities: method -> [N], NaN where there is none.
        measures: measure -> [N], NaN where there is none.
    """
    rows = []
    for method, quality in qualities.items():
        for measure, values in measures.items():
            both = np.isfinite(quality) & np.isfinite(values)
            rank = float("nan")
            if both.sum() >= _FEWEST_IMAGES and np.ptp(quality[both]) and np.ptp(values[both]):
                rank = float(spearmanr(quality[both], values[both]).statistic)
            rows.append({"method": method, "measure": measure, "spearman": rank, "images": int(both.sum())})
    return CORRELATIONS.to_arrow(rows)


def list_qualities(keys: NDArray[np.int32], qualities: Mapping[str, NDArray[np.floating[Any]]]) -> pa.Table:
    """The table `qualities`, with the benchmark still null."""
    schema = QUALITIES.schema()
    parts = []
    for method, quality in qualities.items():
        values = pa.array(quality.astype(np.float32), from_pandas=True)
        name = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(keys), np.int32)), pa.array([method]))
        parts.append(pa.table([pa.nulls(len(keys), schema.field(0).type), name, pa.array(keys), values], schema=schema))
    return pa.concat_tables(parts).unify_dictionaries() if parts else schema.empty_table()


def stamp(table: pa.Table, **names: str) -> pa.Table:
    """The table with columns such as benchmark and recogniser set."""
    for column, name in names.items():
        place = table.schema.get_field_index(column)
        value = pa.DictionaryArray.from_arrays(pa.array(np.zeros(table.num_rows, np.int32)), pa.array([name]))
        table = table.set_column(place, table.schema.field(place), value)
    return table


def _fill(quality: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """An image without a quality is rejected first: a method must not gain by giving no quality."""
    return np.where(np.isnan(quality), -np.inf, quality).astype(np.float64)


def _take_worse(scores: ComparisonScores, quality: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quality of genuine pairs [G]: the smaller of their two images'."""
    return np.minimum(quality[scores.a], quality[scores.b])


def _describe(
    scores: ComparisonScores,
    quality: NDArray[np.floating[Any]] | None,
    head: dict[str, Any],
    curve: Curve,
    options: Options,
) -> dict[str, Any]:
    """The numbers of one curve, after the columns that say which it is."""
    fmr, fnmr, genuine = head["fmr"], float(curve[1][0]), len(scores.similarity)
    errors = round(fnmr * genuine)
    # The exact curve of the one is a stair; CR-FIQA's script joins its twenty points by lines.
    rule = AreaRule.STEP if head["protocol"] == Protocol.FIXED else AreaRule.TRAPEZOID
    found = head | {
        "threshold": scores.thresholds[fmr],
        "genuine": genuine,
        "impostors": scores.impostors,
        "unscored": 0 if quality is None else _unscored(scores, quality),
        "fnmr": fnmr,
        "errors": errors,
        "draws": 0,
        "status": judge_counts(errors, fmr * scores.impostors, options),
    }
    for name, limit in zip(NAMES, LIMITS, strict=True):
        found[f"{name}_raw"] = area(*curve, limit, rule, normalised=False)
        found[name] = area(*curve, limit, rule)
    return found


def judge_counts(errors: int, impostors: float, options: Options) -> str:
    """The status of numbers that rest on so many wrong pairs, and so many impostor pairs above the threshold."""
    if errors == 0:
        return "no_errors"
    if impostors < options.fewest_impostors:
        return "too_few_impostors"
    return "too_few_errors" if errors < options.fewest_errors else "ok"


def _count_errors(scores: ComparisonScores, fmr: float) -> int:
    """Genuine pairs that are not matched."""
    return int(np.count_nonzero(scores.similarity < scores.thresholds[fmr]))


def _describe_draws(draws: Draws) -> dict[str, Any]:
    """How often what is drawn."""
    return {"draws": draws.replicates, "drawn": "pairs" if draws.identities is None else "people"}


def _unscored(scores: ComparisonScores, quality: NDArray[np.floating[Any]]) -> int:
    """Images of genuine pairs without a quality."""
    return int(np.isnan(quality[np.unique(np.concatenate([scores.a, scores.b]))]).sum())


def _intervals(areas: ResampledAreas, method: int, threshold: int, status: str) -> dict[str, float]:
    """The ends of the bootstrap intervals; none where they would be too narrow."""
    ends: dict[str, float] = {}
    for place, name in enumerate(NAMES if status != "too_few_errors" else ()):
        interval = areas.interval(method, threshold, place)
        ends |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return ends


def _points(head: dict[str, Any], rejection: NDArray[np.float64], fnmr: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The rows of one curve."""
    return [head | {"rejection": x, "fnmr": y} for x, y in zip(rejection.tolist(), fnmr.tolist(), strict=True)]


def _compare(
    areas: ResampledAreas, methods: Sequence[str], fmrs: Sequence[float], tested: Sequence[bool]
) -> list[dict[str, Any]]:
    """Every method against every later one; the difference alone at a rate that is not `tested`."""
    rows = []
    for first, method in enumerate(methods):
        for second in range(first + 1, len(methods)):
            for number, fmr in enumerate(fmrs):
                for place, name in enumerate(NAMES):
                    test = areas.compare(first, second, number, place)
                    row = {"fmr": fmr, "area": name, "method": method, "other": methods[second]}
                    rows.append(row | ({**asdict(test)} if tested[number] else {"difference": test.difference}))
    return rows
