"""The bars of a score, as SVG without any text of a user; its axis lies where the page expects it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from training.pages.axes import furnish
from training.pages.svg import INK, to_svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

LEFT, WIDTH = 0.11, 0.86
"""Where the axis of a wide picture begins, and how long it is, as shares of the picture's width."""
BOTTOM, TOP = 0.16, 0.86
"""Where its bars begin, and how far up they may go, as shares of its height."""

_SMALL = 9.0


def draw_wide(counts: NDArray[np.int64], axis: tuple[float, float], name: str, *, logarithmic: bool) -> str:
    """A histogram over which the page lays its thresholds.

    Args:
        counts: of equal bars along the axis, int64 [B].
        axis: its ends.
        name: unique in the page.
        logarithmic: whether heights are, so that rare values are seen.
    """
    figure = Figure(figsize=(5.0, 2.15))
    axes = figure.add_axes((LEFT, BOTTOM, WIDTH, TOP - BOTTOM))
    _draw(axes, counts, axis, logarithmic=logarithmic)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    furnish(axes, _SMALL)
    if not logarithmic:
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: _count(value))
    axes.yaxis.set_minor_locator(NullLocator())
    return to_svg(figure, name)


def draw_small(
    counts: NDArray[np.int64], axis: tuple[float, float], name: str, *, logarithmic: bool, edges: Sequence[float]
) -> str:
    """A small histogram with its thresholds as dashed lines.

    Args:
        counts: of equal bars along the axis, int64 [B].
        axis: its ends.
        name: unique in the page.
        logarithmic: whether heights are.
        edges: the thresholds.
    """
    figure = Figure(figsize=(2.9, 1.25))
    axes = figure.add_axes((0.03, 0.2, 0.94, 0.78))
    _draw(axes, counts, axis, logarithmic=logarithmic)
    for edge in edges:
        if axis[0] <= edge <= axis[1]:
            axes.axvline(edge, color=INK, linewidth=1.1, linestyle=(0, (4, 2)))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    furnish(axes)
    axes.set_yticks([])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(visible=False)
    return to_svg(figure, name)


def _draw(axes: Axes, counts: NDArray[np.int64], axis: tuple[float, float], *, logarithmic: bool) -> None:
    """The bars."""
    edges = np.linspace(*axis, counts.size + 1)
    if logarithmic:
        axes.set_yscale("log", nonpositive="clip")
    axes.stairs(counts, edges, fill=True, color=INK, alpha=0.6, linewidth=0, baseline=0.5 if logarithmic else 0)
    axes.set_xlim(*axis)
    axes.set_ylim(0.5 if logarithmic else 0, max(1.0, float(counts.max(initial=1))) * (2.0 if logarithmic else 1.08))


def _count(value: float) -> str:
    """A number of images beside an axis."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
