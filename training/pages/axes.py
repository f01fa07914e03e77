"""How the axes of every picture look: faint lines, text in the page's colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter

from training.pages.svg import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALL = 10
"""Size of the text in points; a page draws a point as about 1.3 pixels."""


def furnish(axes: Axes, size: float = SMALL) -> None:
    """Give axes the look of the family.

    Args:
        axes: drawn, with its ticks chosen.
        size: of the text, in points.
    """
    axes.grid(color=INK, alpha=0.14, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(left=False, bottom=False, labelsize=size, labelcolor=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    axes.spines["bottom"].set_alpha(0.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
