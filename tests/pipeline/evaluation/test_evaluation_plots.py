import re
from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest

from pipeline.evaluation.report.page import draw_distributions
from pipeline.evaluation.report.plots import assign_styles, draw_betas, draw_curves, draw_losses
from pipeline.pages.figures import COLOURS

RATES = np.linspace(0, 1, 201)


def falling(speed):
    return RATES, 0.2 * (1 - RATES) ** speed


def draw(curves, leading=None, name="a"):
    return draw_curves(curves, assign_styles(curves), leading, name)


def filled_widths(svg, colour):
    """Right ends of the areas filled with a colour, as shares of the widest."""
    ends = []
    for path in ET.fromstring(svg).iter("path"):
        if f"fill: {colour.lower()}" in path.attrib.get("style", "").lower():
            x = [float(number) for number in re.findall(r"-?[\d.]+", path.attrib["d"])[0::2]]
            ends.append((min(x), max(x)))
    return ends


def test_a_picture_is_one_element_in_the_colour_and_font_of_the_page():
    svg = draw({"one": falling(1), "floor": falling(4)}, "one")
    root = ET.fromstring(svg)
    assert root.tag == "svg"
    assert set(root.attrib) == {"viewBox", "aria-hidden", "focusable"}
    assert "currentColor" in svg
    assert "font-family" not in svg
    assert "http" not in svg
    assert {"metadata", "style", "script"}.isdisjoint(element.tag for element in root.iter())
    assert len(svg) < 20_000


def test_ids_of_two_pictures_differ_and_all_that_is_referred_to_is_there():
    curves = {"one": falling(1)}
    first, second = draw(curves, "one", "a"), draw(curves, "one", "b")
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])
    for svg, own in zip((first, second), ids, strict=True):
        assert set(re.findall(r"#([\w-]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg)) <= own


def test_equal_pictures_are_equal_text():
    assert draw({"one": falling(1)}, "one") == draw({"one": falling(1)}, "one")


def test_the_areas_to_both_limits_are_shaded_under_the_leading_method_alone():
    curves = {"one": falling(1), "two": falling(2)}
    assert filled_widths(draw(curves), COLOURS[1]) == []
    (left, partial), (start, whole) = sorted(filled_widths(draw(curves, "two"), COLOURS[1]))
    assert left == start
    assert (partial - left) / (whole - left) == pytest.approx(0.3 / 0.95, abs=0.001)
    assert filled_widths(draw(curves, "two"), COLOURS[0]) == []


def test_a_rate_that_cannot_be_measured_leaves_a_gap():
    rejection, fnmr = np.arange(0, 1, 0.05), np.full(20, 0.1)
    fnmr[-3:] = np.nan
    svg = draw({"one": (rejection, fnmr)}, "one")
    assert "nan" not in svg.lower()


def test_thirty_six_methods_look_different_and_a_method_looks_the_same_among_others():
    names = [f"m{number}" for number in range(36)]
    styles = assign_styles([*names, "random", "floor"])
    assert len({(style.colour, style.dashes) for style in styles.values()}) == 38
    assert len({styles[name].colour for name in names[:12]}) == 12
    assert assign_styles([*names, "later"])["m3"] == styles["m3"]
    assert styles["random"].colour == styles["floor"].colour not in COLOURS


def test_a_baseline_has_one_colour_by_all_recognisers():
    styles = assign_styles(["one", "norm", "norm (r50)", "norm (mbf)", "sobel", "one (2)"])
    assert styles["norm"].colour == styles["norm (r50)"].colour == styles["norm (mbf)"].colour == COLOURS[1]
    assert len({styles[name].dashes for name in styles if name.startswith("norm")}) == 3
    assert styles["sobel"].colour == COLOURS[2]
    assert styles["one (2)"].colour == COLOURS[3]  # a method, not a baseline of another recogniser


def test_areas_by_beta_have_no_colour_of_a_method():
    svg = draw_betas({"pAUC": {8.0: 0.5, 32.0: 0.4}, "AUC": {8.0: 0.3, 32.0: 0.2}}, "betas")
    assert all(colour.lower() not in svg.lower() for colour in COLOURS)


def test_losses_are_drawn_by_epoch_in_the_colour_of_their_method():
    losses = {"one": np.array([0.9, 0.5, 0.4]), "two": np.array([0.8])}
    svg = draw_losses(losses, assign_styles([*losses, "other"]), "losses")
    ET.fromstring(svg)
    assert all(colour.lower() in svg.lower() for colour in COLOURS[:2])
    assert COLOURS[2].lower() not in svg.lower()


@pytest.mark.parametrize("quality", [np.zeros(5), np.array([1e-3]), np.array([0.1, 0.2, 1e6]), np.arange(1000) / 7])
def test_any_scores_have_a_distribution(quality):
    style = assign_styles(["one"])["one"]
    qualities = pl.DataFrame({"method": "one", "quality": quality.astype(np.float32)})
    svg = next(draw_distributions(qualities, {"one": style}, "d")).figure
    assert style.colour.lower() in svg.lower()
    assert "nan" not in svg.lower()
    ET.fromstring(svg)
