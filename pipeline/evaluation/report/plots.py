"""The curves of an evaluation, as SVG without any text of a user."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.evaluation.report.method_order import Kind, kind_of
from pipeline.pages.figures import COLOURS, GREY, INK, SMALL, format_axes, to_svg
from training.evaluation.statistics import LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from training.evaluation.pairs.ranked_pairs import Curve

DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 2), (8, 2, 2, 2), (4, 4), (8, 2, 2, 2, 2, 2))

METHOD_COLOURS = (
    *COLOURS, "#7A5CCF", "#8C8C1A", "#C2334D", "#2AA6A6", "#B246B2", "#9A6324",
)  # fmt: skip
"""Of each method its own, readable on white and on black; the first six for readers of any colour vision."""

_HALF = len(COLOURS) // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How the line of a method looks, the same in every figure.

    Attributes:
        colour: `#rrggbb`.
        dashes: lengths of dashes and gaps, in widths of the line; none for a whole line.
        width: in points.
    """

    colour: str
    dashes: tuple[float, ...]
    width: float


def assign_styles(methods: Iterable[str]) -> dict[str, Style]:
    """A style for every method, by its position; `random` and `floor` are grey.

    Twelve methods have colours of their own, and thirty-six differ: the dashes change with every third colour, so that
    the nearest ones differ in both. What one baseline is by several recognisers, `norm (fr_feature)`, has the colour of
    the baseline.
    """
    styles = {}
    places: dict[str, int] = {}
    alike: Counter[str] = Counter()
    for method in methods:
        kind = kind_of(method)
        if kind is Kind.RANDOM:
            styles[method] = Style(colour=GREY, dashes=(1.5, 2.5), width=1.6)
        elif kind is Kind.FLOOR:
            styles[method] = Style(colour=GREY, dashes=(), width=1.0)
        else:
            own = method if kind is Kind.METHOD else method.partition(" (")[0]
            place = places.setdefault(own, len(places))
            dashes = DASHES[(place // _HALF + alike[own]) % len(DASHES)]
            width = 2.2 if kind is Kind.METHOD else 1.6
            styles[method] = Style(colour=METHOD_COLOURS[place % len(METHOD_COLOURS)], dashes=dashes, width=width)
            alike[own] += 1
    return styles


def draw_curves(curves: Mapping[str, Curve], styles: Mapping[str, Style], leading: str | None, name: str) -> str:
    """Error-reject curves of one benchmark, recogniser and false match rate (CLIB-FIQA Figure 3).

    Args:
        curves: method -> fractions rejected [K], false non-match rates [K].
        styles: of the methods.
        leading: the method under whose curve the areas of pAUC and AUC are shaded.
        name: unique in the page.
    """
    figure = Figure(figsize=(5.4, 3.5), layout="constrained")
    axes = figure.subplots()
    partial, whole = LIMITS
    axes.set_xlim(0, whole)
    axes.set_ylim(0, _find_top(curves))
    if leading is not None:
        _shade(axes, curves[leading], styles[leading].colour)
    for method in reversed(list(curves)):
        style = styles[method]
        line = axes.plot(*curves[method], color=style.colour, linewidth=style.width, solid_capstyle="butt")[0]
        if style.dashes:
            line.set_dashes(style.dashes)
    axes.axvline(partial, color=INK, linewidth=0.8, alpha=0.6)
    for middle, text in ((partial / 2, "pAUC"), ((partial + whole) / 2, "AUC")):
        axes.text(middle, 0.985, text, transform=axes.get_xaxis_transform(), ha="center", va="top",
                  fontsize=SMALL, color=INK, alpha=0.7)  # fmt: skip
    axes.set_xlabel("share of pairs rejected", fontsize=SMALL, color=INK)
    axes.set_ylabel("FNMR", fontsize=SMALL, color=INK)
    axes.set_xticks([0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.95])
    axes.yaxis.set_major_locator(MaxNLocator(5))
    format_axes(axes)
    return to_svg(figure, name)


def draw_losses(losses: Mapping[str, NDArray[np.float64]], styles: Mapping[str, Style], name: str) -> str:
    """Mean losses of trainings by epoch (CLIB-FIQA Figure 4, right).

    Args:
        losses: method -> one number an epoch [E].
        styles: of the methods.
        name: unique in the page.
    """
    figure = Figure(figsize=(5.4, 3.0), layout="constrained")
    axes = figure.subplots()
    for method, means in losses.items():
        style = styles[method]
        epochs = np.arange(1, len(means) + 1)
        line = axes.plot(epochs, means, color=style.colour, linewidth=style.width, marker="o", markersize=3)[0]
        if style.dashes:
            line.set_dashes(style.dashes)
    axes.set_xlabel("epoch", fontsize=SMALL, color=INK)
    axes.set_ylabel("loss", fontsize=SMALL, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    format_axes(axes)
    return to_svg(figure, name)


def draw_betas(areas: Mapping[str, Mapping[float, float]], name: str) -> str:
    """Areas by the beta that a model learned with (CLIB-FIQA Figure 4, left).

    Args:
        areas: pAUC and AUC -> beta -> area, normalised; smaller is better.
        name: unique in the page.
    """
    figure = Figure(figsize=(5.4, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log", base=2)
    betas = sorted({beta for found in areas.values() for beta in found})
    for (title, found), marker in zip(areas.items(), "os", strict=True):  # colours are the methods'
        heights = [found.get(beta, np.nan) for beta in betas]
        axes.plot(betas, heights, color=INK, linestyle=":" if marker == "s" else "-", marker=marker, markersize=4,
                  label=title)  # fmt: skip
    axes.set_xticks(betas, [f"{beta:g}" for beta in betas])
    axes.minorticks_off()
    axes.set_xlabel("beta", fontsize=SMALL, color=INK)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.legend(fontsize=SMALL, frameon=False, labelcolor=INK)
    format_axes(axes)
    return to_svg(figure, name)


def _find_top(curves: Mapping[str, Curve]) -> float:
    """The end of the y axis: all curves, but no more than half over the rate without rejection."""
    whole = LIMITS[1]
    start = max(float(fnmr[0]) for _, fnmr in curves.values())
    most = max(float(np.nanmax(fnmr[rejection <= whole])) for rejection, fnmr in curves.values())
    return 1.12 * min(most, 1.5 * start) if most > 0 else 1.0


def _shade(axes: Axes, curve: Curve, colour: str) -> None:
    """The areas up to both limits; that of pAUC is darker."""
    rejection, fnmr = curve
    for limit in LIMITS:
        inside = (rejection <= limit + 1e-9) & np.isfinite(fnmr)
        x = np.concatenate([[0.0], rejection[inside], [rejection[inside][-1]]])
        y = np.concatenate([[0.0], fnmr[inside], [0.0]])
        axes.fill(x, y, color=colour, alpha=0.16, linewidth=0)
