"""Scores of several methods against each other: distributions on one scale, and image by image (CLIB-FIQA Figure 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from scipy.stats import spearmanr

from pipeline.evaluation.report.method_order import kind_of
from pipeline.evaluation.report.tables import show_signed
from pipeline.pages.figures import INK, SMALL, Distribution, format_axes, to_svg

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import polars as pl
    from numpy.typing import NDArray

    from pipeline.evaluation.report.plots import Style

    Scores = Mapping[str, NDArray[np.float64]]
    """Method -> score of every image [N], in the order of the keys; NaN where it gives none."""

_RANGE, _BARS = 3.5, 35
"""Standard deviations that are drawn to both sides, and bars of a distribution."""
_DOTS = 400
"""Images of a scatter, evenly spread over the keys."""
_FEWEST = 3


def read_scores(qualities: pl.DataFrame, styles: Mapping[str, Style]) -> Scores:
    """The scores of the methods that compete and vary, in the order of the page.

    Args:
        qualities: rows of the table `qualities` of one benchmark.
        styles: of all methods.
    """
    found = qualities.sort("key").partition_by("method", as_dict=True)
    own = {name: found[name,]["quality"] for name in styles if (name,) in found and kind_of(name).competes}
    values = {name: column.cast(float).fill_null(np.nan).to_numpy() for name, column in own.items()}
    known = {name: scores[np.isfinite(scores)] for name, scores in values.items()}
    return {name: values[name] for name, scores in known.items() if len(scores) >= _FEWEST and np.ptp(scores)}


def draw_overlay(scores: Scores, styles: Mapping[str, Style], name: str) -> str:
    """The distribution of every method's scores, less their mean, in standard deviations.

    What is further off than is drawn stands in the outermost bars.

    Args:
        scores: of the methods.
        styles: of the methods.
        name: unique in the page.
    """
    figure = Figure(figsize=(5.4, 2.6), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(-_RANGE, _RANGE, _BARS + 1)
    for method, values in reversed(list(scores.items())):
        known = values[np.isfinite(values)]
        standard = np.clip((known - known.mean()) / known.std(), -_RANGE, _RANGE)
        counts, _ = np.histogram(standard, bins=edges)
        style = styles[method]
        line = axes.plot(
            (edges[:-1] + edges[1:]) / 2, counts / len(known), color=style.colour, linewidth=style.width,
            drawstyle="steps-mid",
        )[0]  # fmt: skip
        if style.dashes:
            line.set_dashes(style.dashes)
    axes.set_xlim(-_RANGE, _RANGE)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("standard deviations from the mean", fontsize=SMALL, color=INK)
    axes.set_ylabel("share of images", fontsize=SMALL, color=INK)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    format_axes(axes)
    return to_svg(figure, name)


def draw_scatters(scores: Scores, styles: Mapping[str, Style], name: str) -> Iterator[Distribution]:
    """The scores of the first method against those of each other one.

    Args:
        scores: of the methods, the first in front.
        styles: of the methods.
        name: unique in the page.
    """
    first, *others = scores
    for number, other in enumerate(others):
        both = np.flatnonzero(np.isfinite(scores[first]) & np.isfinite(scores[other]))
        if len(both) < _FEWEST:
            continue
        rank = float(spearmanr(scores[first][both], scores[other][both]).statistic)
        drawn = both[:: -(-len(both) // _DOTS)]
        yield Distribution(
            title=other,
            figure=_draw_dots(scores[first][drawn], scores[other][drawn], styles[other].colour, f"{name}-{number}"),
            text=f"rank correlation {show_signed(rank, 2)}; {len(drawn):,} of {len(both):,} images drawn",
        )


def _draw_dots(x: NDArray[np.float64], y: NDArray[np.float64], colour: str, name: str) -> str:
    """Dots as one path of lines without length, which is a third of the text of as many circles."""
    figure = Figure(figsize=(2.9, 2.2), layout="constrained")
    axes = figure.subplots()
    points = np.column_stack([x, y])
    path = Path(np.repeat(points, 2, axis=0), np.tile([Path.MOVETO, Path.LINETO], len(points)))
    path.should_simplify = False
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor=colour, linewidth=2.4, capstyle="round", alpha=0.7))
    for scale, values in ((axes.set_xlim, x), (axes.set_ylim, y)):
        low, high = values.min(), values.max()
        margin = 0.04 * (high - low) or 0.5
        scale(low - margin, high + margin)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    format_axes(axes)
    return to_svg(figure, name)
