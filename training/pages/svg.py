"""Pictures of matplotlib as SVG that lives inside a page: small, transparent, in the page's font and colour."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import matplotlib as mpl

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"
"""Drawn in this colour, a line or text gets the text colour of the page, light or dark."""

_NUMBER = re.compile(r"-?\d+\.\d+")
_GEOMETRY = ("d", "x", "y", "transform", "viewBox")


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
