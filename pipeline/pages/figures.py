"""Figures of matplotlib as SVG inside a page: small, transparent, in the page's font and colour."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

INK = "#010203"
"""Drawn in this colour, a line or text gets the text colour of the page, light or dark."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""For readers of any colour vision: those of Okabe and Ito (Color Universal Design, 2008), less black and yellow."""
GREY = "#808080"

SMALL = 10
"""Size of the text in points; a page draws a point as about 1.3 pixels."""

_NUMBER = re.compile(r"-?\d+\.\d+")
_GEOMETRY = ("d", "x", "y", "transform", "viewBox")


LEFT, WIDTH = 0.11, 0.86
"""Where the axis of a wide figure begins, and how long it is, as fractions of the figure's width."""
BOTTOM, TOP = 0.16, 0.86
"""Where its bars begin, and how far up they may go, as fractions of its height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A histogram in a page: its title, the figure as SVG (empty without values), and the range in words."""

    title: str
    figure: str
    text: str


def draw_histogram(  # noqa: PLR0913 - each one is independent of the others
    counts: NDArray[np.integer],
    axis: tuple[float, float],
    name: str,
    *,
    colour: str = INK,
    logarithmic: bool = False,
    edges: Sequence[float] = (),
) -> str:
    """A small histogram without a vertical scale.

    Args:
        counts: of equal bars along the axis, [B].
        axis: its ends.
        name: unique in the page.
        colour: of the bars.
        logarithmic: whether heights are.
        edges: where dashed lines stand.
    """
    figure = Figure(figsize=(2.9, 1.25))
    axes = figure.add_axes((0.03, 0.2, 0.94, 0.78))
    draw_bars(axes, counts, axis, colour=colour, logarithmic=logarithmic)
    for edge in edges:
        if axis[0] <= edge <= axis[1]:
            axes.axvline(edge, color=INK, linewidth=1.1, linestyle=(0, (4, 2)))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    format_axes(axes)
    axes.set_yticks([])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(visible=False)
    return to_svg(figure, name)


def draw_wide_histogram(counts: NDArray[np.integer], axis: tuple[float, float], name: str, *, logarithmic: bool) -> str:
    """A histogram over which the page lays its thresholds.

    Args:
        counts: of equal bars along the axis, [B].
        axis: its ends.
        name: unique in the page.
        logarithmic: whether heights are, so that rare values are seen.
    """
    figure = Figure(figsize=(5.0, 2.15))
    axes = figure.add_axes((LEFT, BOTTOM, WIDTH, TOP - BOTTOM))
    draw_bars(axes, counts, axis, logarithmic=logarithmic)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    format_axes(axes, 9)
    if not logarithmic:
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: _show_count(value))
    axes.yaxis.set_minor_locator(NullLocator())
    return to_svg(figure, name)


def draw_bars(
    axes: Axes, counts: NDArray[np.integer], axis: tuple[float, float], *, colour: str = INK, logarithmic: bool = False
) -> None:
    """The bars of a histogram, with the limits of both axes set."""
    floor, room = (0.5, 2.0) if logarithmic else (0.0, 1.08)
    if logarithmic:
        axes.set_yscale("log", nonpositive="clip")
    edges = np.linspace(*axis, counts.size + 1)
    alpha = 0.6 if colour == INK else 0.75
    axes.stairs(counts, edges, fill=True, color=colour, alpha=alpha, linewidth=0, baseline=floor)
    axes.set_xlim(*axis)
    axes.set_ylim(floor, room * max(1.0, float(counts.max(initial=1))))


def format_axes(axes: Axes, size: float = SMALL) -> None:
    """Give axes the look of all figures: faint lines, text in the page's colour.

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
    for scale in (axes.xaxis, axes.yaxis):
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))


def to_svg(figure: Figure, name: str) -> str:
    """The figure as one `svg` element without a size of its own.

    Args:
        figure: drawn with `INK` where the page's text colour belongs.
        name: unique in the page; ids depend on it, and equal figures of one name give equal text.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify_threshold": 0.05}):
        figure.savefig(buffer, format="svg", transparent=True)
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 - matplotlib's own text
    _strip(root, set(re.findall(r"#([\w.-]+)", buffer.getvalue())))
    root.attrib = {"viewBox": root.attrib["viewBox"], "aria-hidden": "true", "focusable": "false"}
    text = ET.tostring(root, encoding="unicode")
    return text.replace(INK, "currentColor").replace("\n", "")


def _strip(element: ET.Element, referred: set[str]) -> None:
    """Leave what is seen, to a tenth of a point: no namespaces, metadata, fonts, or ids that nothing refers to."""
    element.tag = element.tag.rpartition("}")[2]
    attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    if attributes.get("id") not in referred:
        attributes.pop("id", None)
    for key, value in attributes.items():
        if key in _GEOMETRY:
            attributes[key] = _NUMBER.sub(_round, value).replace("\n", "").strip()
        elif key == "style":
            attributes[key] = re.sub(r"font-family: [^;]*;? ?", "", value)
    if "d" in attributes and not set("CQ").intersection(attributes["d"]):
        attributes["d"] = attributes["d"].replace("L ", "")  # a line is what follows where no letter stands
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    element.attrib = attributes
    element.text, element.tail = (element.text or "").strip() or None, None
    for child in list(element):
        if child.tag.rpartition("}")[2] in {"metadata", "style"}:
            element.remove(child)
            continue
        _strip(child, referred)
        if child.tag in {"g", "defs"} and not len(child):
            element.remove(child)


def _round(number: re.Match[str]) -> str:
    """One decimal at most."""
    return f"{float(number[0]):.1f}".removesuffix(".0")


def _show_count(value: float) -> str:
    """A number of images beside an axis."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
