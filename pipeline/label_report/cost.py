"""What damage costs: the quality of every class, of every damage by itself, and of damages together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from data_manifests.tables.stages import CLASSES, Factor
from pipeline.label_report.labels_table import NO_CLASS
from pipeline.label_report.scores import ABSOLUTE_YAW, SCORES, Score

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.label_report.labels_table import LabelTable

    Codes = Mapping[Factor, NDArray[np.int8]]

SAMPLED = 100_000
"""Rows, evenly spread, that say how two scores are correlated."""

COMBINATIONS = 10
"""Damages together that are listed."""

CORRELATED = ("cpbd", "sobel", ABSOLUTE_YAW, "p_obstructed", "p_exaggerated", "p_extreme_lighting", "norm", "quality")

_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The qualities of a group of images.

    Attributes:
        images: how many have a quality.
        quantiles: at 10, 25, 50, 75 and 90 %; nothing where there are no images.
    """

    images: int
    quantiles: tuple[float, ...]

    @property
    def median(self) -> float | None:
        """The middle quality."""
        return self.quantiles[2] if self.quantiles else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCost:
    """The qualities of one class.

    Attributes:
        factor: of the class.
        name: of the class.
        spread: of its images.
        loss: its median less that of the factor's best class; None for that class, and where one is empty.
        alone: likewise for images without any other damage, against those without any.
    """

    factor: Factor
    name: str
    spread: Spread
    loss: float | None
    alone: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """Images that have exactly these damages: the worst classes, by their names; none are undamaged."""

    names: tuple[str, ...]
    spread: Spread


def spread_of(quality: NDArray[np.float32]) -> Spread:
    """The spread of qualities, NaN left out."""
    known = quality[~np.isnan(quality)]
    if not known.size:
        return Spread(images=0, quantiles=())
    return Spread(images=known.size, quantiles=tuple(np.quantile(known, _QUANTILES).tolist()))


def list_costs(codes: Codes, quality: NDArray[np.float32]) -> Iterator[ClassCost]:
    """The qualities of every class of every factor."""
    undamaged = _exactly(codes, ())
    clean = spread_of(quality[undamaged]).median
    for factor, names in CLASSES.items():
        spreads = [spread_of(quality[codes[factor] == place]) for place in range(len(names))]
        best = spreads[-1].median
        for place, (name, spread) in enumerate(zip(names, spreads, strict=True)):
            alone = spread_of(quality[_exactly(codes, (factor,))]).median if place == 0 else None
            last = place == len(names) - 1
            yield ClassCost(
                factor=factor,
                name=name,
                spread=spread,
                loss=None if last else _difference(spread.median, best),
                alone=_difference(alone, clean),
            )


def list_combinations(codes: Codes, quality: NDArray[np.float32]) -> list[Combination]:
    """The most frequent sets of damages, undamaged images first."""
    whole = _classified(codes) & ~np.isnan(quality)
    marks = np.zeros(quality.size, np.int8)
    for place, factor in enumerate(Factor):
        marks |= (codes[factor] == 0).astype(np.int8) << place
    counts = np.bincount(marks[whole], minlength=1 << len(Factor))
    frequent = sorted(np.flatnonzero(counts), key=lambda mark: (mark != 0, -counts[mark], mark))[:COMBINATIONS]
    return [
        Combination(
            names=tuple(CLASSES[factor][0] for place, factor in enumerate(Factor) if mark >> place & 1),
            spread=spread_of(quality[whole & (marks == mark)]),
        )
        for mark in frequent
    ]


def correlate(labels: LabelTable) -> tuple[tuple[Score, ...], list[list[float | None]]]:
    """Spearman's rank correlation of every two scores, of SAMPLED rows at most; None where there is none."""
    step = max(1, -(-labels.rows // SAMPLED))
    columns = {name: labels.values(name)[::step] for name in CORRELATED}
    frame = pl.DataFrame({name: pl.Series(values, nan_to_null=True) for name, values in columns.items()})
    table = [[_spearman(frame, one, other) for other in CORRELATED] for one in CORRELATED]
    return tuple(SCORES[name] for name in CORRELATED), table


def _spearman(frame: pl.DataFrame, one: str, other: str) -> float | None:
    """The correlation of two columns; None where one of them is constant or they share no rows."""
    if one == other:
        return 1.0
    pair = frame.select(a=one, b=other).drop_nulls()
    value = pair.select(pl.corr("a", "b", method="spearman")).item() if pair.height > 2 else None
    return None if value is None or not np.isfinite(value) else float(value)


def _classified(codes: Codes) -> NDArray[np.bool_]:
    """Which images have a class of every factor."""
    known: NDArray[np.bool_] = np.all([codes[factor] != NO_CLASS for factor in Factor], axis=0)
    return known


def _exactly(codes: Codes, damages: Sequence[Factor]) -> NDArray[np.bool_]:
    """Which images have the worst class of these factors, and of no other."""
    fits = [(codes[factor] == 0) == (factor in damages) for factor in Factor]
    exactly: NDArray[np.bool_] = np.all([_classified(codes), *fits], axis=0)
    return exactly


def _difference(value: float | None, against: float | None) -> float | None:
    """How far a value lies from another one."""
    return None if value is None or against is None else value - against
