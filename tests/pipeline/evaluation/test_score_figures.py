"""Scores of several methods against each other: which are drawn, and what the figures show."""

import re
from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from pipeline.evaluation.report.plots import assign_styles
from pipeline.evaluation.report.score_figures import draw_overlay, draw_scatters, read_scores

RANDOM = np.random.default_rng(0)
FIRST = RANDOM.normal(3, 2, 1000)
SCORES = {"clib": FIRST, "other": 100 * FIRST + RANDOM.normal(0, 100, 1000), "norm": RANDOM.normal(size=1000)}
STYLES = assign_styles([*SCORES, "random", "floor"])


def polylines(svg, colour):
    """Points of the lines in a colour."""
    found = []
    for path in ET.fromstring(svg).iter("path"):
        if f"stroke: {colour.lower()}" in path.attrib.get("style", "").lower():
            found.append(np.array(re.findall(r"-?[\d.]+", path.attrib["d"]), float).reshape(-1, 2))
    return found


def test_methods_that_compete_and_vary_are_drawn_by_their_keys():
    keys = RANDOM.permutation(4)
    rows = [("norm", k, 0.5 * k) for k in keys] + [("random", k, 0.1 * k) for k in keys]
    rows += [("clib", k, None if k == 2 else float(k)) for k in keys] + [("flat", k, 1.0) for k in keys]
    qualities = pl.DataFrame(rows, schema={"method": str, "key": pl.Int32, "quality": pl.Float32}, orient="row")
    found = read_scores(qualities, assign_styles(["clib", "flat", "norm", "random"]))
    assert list(found) == ["clib", "norm"]
    np.testing.assert_array_equal(found["clib"], [0, 1, np.nan, 3])
    np.testing.assert_array_equal(found["norm"], [0, 0.5, 1, 1.5])


def test_distributions_are_on_one_scale():
    svg = draw_overlay({"clib": FIRST, "other": 100 * FIRST - 7}, STYLES, "o")
    (one,), (two,) = (polylines(svg, STYLES[name].colour) for name in ("clib", "other"))
    np.testing.assert_allclose(one, two, atol=0.2)  # a scale and an offset are taken away
    (norm,) = polylines(draw_overlay(SCORES, STYLES, "o"), STYLES["norm"].colour)
    assert len(norm) > 20
    assert "nan" not in svg.lower()


def test_scatters_are_of_the_first_method_against_each_other():
    scores = {**SCORES, "norm": np.where(np.arange(1000) < 100, np.nan, SCORES["norm"])}
    other, norm = draw_scatters(scores, STYLES, "s")
    assert other.title == "other"
    rank = spearmanr(FIRST, SCORES["other"]).statistic
    assert other.text == f"rank correlation +{rank:.2f}; 334 of 1,000 images drawn"
    assert norm.text.endswith("; 300 of 900 images drawn")
    (dots,) = polylines(other.figure, STYLES["other"].colour)
    np.testing.assert_array_equal(dots[0::2], dots[1::2])  # lines without length
    assert len(dots) == 2 * 334
    x, y = dots[::2, 0], -dots[::2, 1]
    assert np.corrcoef(x, FIRST[::3])[0, 1] > 0.999
    assert np.corrcoef(y, SCORES["other"][::3])[0, 1] > 0.999
    assert len(other.figure) < 15_000


@pytest.mark.parametrize("values", [[1.0, np.nan, np.nan, np.nan], [np.nan, 1.0, 2.0, 3.0]])
def test_too_few_images_in_common_are_no_scatter(values):
    first = np.array([1.0, 2.0, np.nan, np.nan])
    assert list(draw_scatters({"clib": first, "other": np.array(values)}, STYLES, "s")) == []
