"""Judges qualities by the errors of recognisers: arrays in, tables out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.stats import spearmanr

from data_manifests.tables.evaluation import COMPARISONS, CORRELATIONS, CURVES, METRICS, QUALITIES
from training.evaluation.error_reject import AreaRule, Protocol, area, fixed_curves, fnmr_at
from training.evaluation.methods.command_line import FLOOR
from training.evaluation.statistics import LIMITS, Draws, resample_areas

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from data_manifests.tables.stages import Table
    from training.evaluation.compared import Compared
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
    """How qualities are judged.

    Attributes:
        fmrs: false match rates.
        protocols: which pairs are rejected, and when the threshold is set.
        replicates: bootstrap draws.
        seed: of the draws.
        fewest_impostors: a threshold that rests on fewer impostor pairs is said to be unsure.
    """

    fmrs: tuple[float, ...] = FMRS
    protocols: tuple[Protocol, ...] = (Protocol.FIXED,)
    replicates: int = 1000
    seed: int = 0
    fewest_impostors: int = 10


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one table, before they are Arrow."""

    table: Table
    rows: list[dict[str, Any]] = field(default_factory=list)

    def to_arrow(self) -> pa.Table:
        """As the table's schema says."""
        return pa.Table.from_pylist(self.rows, schema=self.table.schema())


def judge(
    compared: Compared, qualities: Mapping[str, NDArray[np.floating[Any]]], options: Options
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Judge qualities by the errors of one recogniser on one benchmark.

    Args:
        compared: the benchmark's pairs.
        qualities: method -> quality of the benchmark's images [N]; NaN where it gives none, which is rejected first.
        options: how.

    Returns:
        The tables `metrics`, `curves` and `comparisons`, with benchmark and recogniser still null. The floor is judged
        beside the methods.
    """
    tables = Rows(METRICS), Rows(CURVES), Rows(COMPARISONS)
    of_images = {name: _fill(quality) for name, quality in qualities.items()}
    of_pairs = {name: np.minimum(q[compared.a], q[compared.b]) for name, q in of_images.items()}
    of_pairs[FLOOR] = compared.similarity.astype(np.float64)
    if Protocol.FIXED in options.protocols:
        thresholds = [compared.thresholds[fmr] for fmr in options.fmrs]
        draws = Draws(identities=compared.person, replicates=options.replicates, seed=options.seed)
        areas = resample_areas(compared.similarity, list(of_pairs.values()), thresholds, LIMITS, draws)
        for place, (name, quality) in enumerate(of_pairs.items()):
            curves = fixed_curves(compared.similarity, quality, thresholds)
            for number, (fmr, curve) in enumerate(zip(options.fmrs, curves, strict=True)):
                head = {"method": name, "protocol": Protocol.FIXED.value, "fmr": fmr}
                found = _describe(compared, qualities.get(name), head, curve, options)
                tables[0].rows.append(found | _intervals(areas, place, number))
                tables[1].rows.extend(_points(head, GRID, fnmr_at(*curve, GRID)))
        tables[2].rows.extend(_compare(areas, list(of_pairs), options))
    if Protocol.CR_FIQA in options.protocols:
        for name, quality in of_images.items():
            for fmr, curve in zip(options.fmrs, compared.cr_fiqa_curves(quality, options.fmrs), strict=True):
                head = {"method": name, "protocol": Protocol.CR_FIQA.value, "fmr": fmr}
                tables[0].rows.append(_describe(compared, qualities[name], head, curve, options))
                tables[1].rows.extend(_points(head, *curve))
    metrics, curve_points, comparisons = (table.to_arrow() for table in tables)
    return metrics, curve_points, comparisons


def correlate(
    qualities: Mapping[str, NDArray[np.floating[Any]]], measures: Mapping[str, NDArray[np.floating[Any]]]
) -> pa.Table:
    """The table `correlations`, with the benchmark still null.

    Args:
        qualities: method -> [N], NaN where there is none.
        measures: measure -> [N], NaN where there is none.
    """
    table = Rows(CORRELATIONS)
    for method, quality in qualities.items():
        for measure, values in measures.items():
            both = np.isfinite(quality) & np.isfinite(values)
            rank = float("nan")
            if both.sum() >= _FEWEST_IMAGES and np.ptp(quality[both]) and np.ptp(values[both]):
                rank = float(spearmanr(quality[both], values[both]).statistic)
            table.rows.append({"method": method, "measure": measure, "spearman": rank, "images": int(both.sum())})
    return table.to_arrow()


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
    """An image without a quality is rejected first: a method is not to gain by keeping silent."""
    return np.where(np.isnan(quality), -np.inf, quality).astype(np.float64)


def _describe(
    compared: Compared, quality: NDArray[np.floating[Any]] | None, head: dict[str, Any], curve: Curve, options: Options
) -> dict[str, Any]:
    """The numbers of one curve, after the columns that say which it is."""
    fmr, fnmr = head["fmr"], float(curve[1][0])
    # The exact curve of the one is a stair; CR-FIQA's script joins its twenty points by lines.
    rule = AreaRule.STEP if head["protocol"] == Protocol.FIXED else AreaRule.TRAPEZOID
    few = fmr * compared.impostors < options.fewest_impostors
    found = head | {
        "threshold": compared.thresholds[fmr],
        "genuine": len(compared.similarity),
        "impostors": compared.impostors,
        "unscored": 0 if quality is None else _unscored(compared, quality),
        "fnmr": fnmr,
        "status": "no_errors" if fnmr == 0 else "too_few_impostors" if few else "ok",
    }
    for name, limit in zip(NAMES, LIMITS, strict=True):
        found[f"{name}_raw"] = area(*curve, limit, rule, normalised=False)
        found[name] = area(*curve, limit, rule)
    return found


def _unscored(compared: Compared, quality: NDArray[np.floating[Any]]) -> int:
    """Images of genuine pairs without a quality."""
    return int(np.isnan(quality[np.unique(np.concatenate([compared.a, compared.b]))]).sum())


def _intervals(areas: ResampledAreas, method: int, threshold: int) -> dict[str, float]:
    """The ends of the bootstrap intervals."""
    ends: dict[str, float] = {}
    for place, name in enumerate(NAMES):
        interval = areas.interval(method, threshold, place)
        ends |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return ends


def _points(head: dict[str, Any], rejection: NDArray[np.float64], fnmr: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The rows of one curve."""
    return [head | {"rejection": x, "fnmr": y} for x, y in zip(rejection.tolist(), fnmr.tolist(), strict=True)]


def _compare(areas: ResampledAreas, methods: Sequence[str], options: Options) -> list[dict[str, Any]]:
    """Every method against every later one."""
    rows = []
    for first, method in enumerate(methods):
        for second in range(first + 1, len(methods)):
            for number, fmr in enumerate(options.fmrs):
                for place, name in enumerate(NAMES):
                    test = areas.compare(first, second, number, place)
                    rows.append({
                        "fmr": fmr, "area": name, "method": method, "other": methods[second],
                        "difference": test.difference, "low": test.low, "high": test.high, "p_value": test.p_value,
                    })  # fmt: skip
    return rows
