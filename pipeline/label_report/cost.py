"""What damage costs: the quality of every class, of every damage by itself, and of damages together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from data_manifests.tables.stages import CLASSES, Factor
from pipeline.label_report.scores import ABSOLUTE_YAW, SCORES, Score

if TYPE_CHECKING:
    from pipeline.label_report.labels_table import LabelTable

SAMPLED = 100_000
"""Rows, evenly spread, from which rank correlations are computed."""

COMBINATIONS = 10
"""Damages together that are listed."""

CORRELATED = (
    "cpbd",
    "sobel",
    "edge_ratio",
    ABSOLUTE_YAW,
    "p_obstructed",
    "p_exaggerated",
    "p_extreme_lighting",
    "norm",
    "quality",
)

_QUANTILES = {"p10": 0.1, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9}
_SPREAD = (
    pl.len().alias("images"),
    *(pl.col("quality").quantile(fraction, "linear").alias(name) for name, fraction in _QUANTILES.items()),
)
"""Images of a group, and quantiles of their qualities."""

_BITS = {factor: 1 << number for number, factor in enumerate(Factor)}
"""Factor -> bit that is set in `damages` where an image has its worst class."""


def measure_costs(labels: LabelTable) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The qualities of classes and of damages, of the images that have a quality.

    A damage is the worst class of a factor.

    Returns:
        Every class, worst first: `factor`, `name`, `images`, p10, p25, median, p75, p90; `loss`, its median less that
        of the factor's best class, null for that class; `alone`, likewise for images without any other damage, against
        those without any, null for all but the worst class. Numbers of an empty group are null.
        The most frequent sets of damages, undamaged images first: `names` of the worst classes, and the same numbers.
    """
    codes = {factor.value: pl.col(factor.value).to_physical() for factor in Factor}
    damages = pl.sum_horizontal((codes[factor.value] == 0).cast(pl.Int8) * bit for factor, bit in _BITS.items())
    classified = pl.all_horizontal(pl.col(list(codes)).is_not_null())
    scored = (
        labels.frame.filter(pl.col("quality").is_not_nan())
        .select("quality", damages=pl.when(classified).then(damages), **codes)
        .collect()
    )
    by_damages = scored.drop_nulls("damages").group_by("damages").agg(*_SPREAD)
    medians = dict(by_damages["damages", "median"].rows())
    classes = []
    for factor, names in CLASSES.items():
        alone, undamaged = medians.get(_BITS[factor]), medians.get(0)
        own = pl.DataFrame({"factor": factor.value, "name": names}).with_row_index(factor.value)
        found = scored.group_by(pl.col(factor.value).cast(pl.UInt32)).agg(*_SPREAD)
        is_best, is_worst = pl.col("name") == names[-1], pl.col("name") == names[0]
        classes.append(
            own.join(found, on=factor.value, how="left", maintain_order="left")
            .drop(factor.value)
            .with_columns(
                pl.col("images").fill_null(0),
                loss=pl.when(~is_best).then(pl.col("median") - pl.col("median").last()),
                alone=pl.when(is_worst).then(None if alone is None or undamaged is None else alone - undamaged),
            )
        )
    frequent = by_damages.sort(pl.col("damages") != 0, -pl.col("images").cast(pl.Int64), "damages").head(COMBINATIONS)
    sets = [[CLASSES[factor][0] for factor, bit in _BITS.items() if value & bit] for value in frequent["damages"]]
    return pl.concat(classes), frequent.with_columns(names=pl.Series(sets, dtype=pl.List(pl.String)))


def correlate(labels: LabelTable) -> tuple[tuple[Score, ...], list[list[float | None]]]:
    """Spearman's rank correlation of every two scores, of SAMPLED rows at most; None where there is none."""
    step = max(1, -(-labels.rows // SAMPLED))
    there = {score.column for score in labels.shown} | {ABSOLUTE_YAW}
    names = [name for name in CORRELATED if name in there]
    columns = {name: labels.values(name)[::step] for name in names}
    frame = pl.DataFrame({name: pl.Series(values, nan_to_null=True) for name, values in columns.items()})
    table = [[_spearman(frame, one, other) for other in names] for one in names]
    return tuple(SCORES[name] for name in names), table


def _spearman(frame: pl.DataFrame, one: str, other: str) -> float | None:
    """The correlation of two columns; None where one of them is constant or they share no rows."""
    if one == other:
        return 1.0
    pair = frame.select(a=one, b=other).drop_nulls()
    value = pair.select(pl.corr("a", "b", method="spearman")).item() if pair.height > 2 else None
    return None if value is None or not np.isfinite(value) else float(value)
