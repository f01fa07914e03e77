"""Error-reject curves against other people's programs, the definition written out, and values worked by hand."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from training.evaluation.error_reject import (
    AreaRule,
    Protocol,
    RankedPairs,
    area,
    curve,
    fixed_curve,
    fixed_curves,
    fnmr_at,
    threshold,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FMRS = ("1e-2", "1e-3", "1e-4")
QUALITIES = ("informative", "random", "levels5")
RATES = 0.05 * np.arange(20)


@pytest.fixture(scope="module")
def erc(real_data: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    folder = real_data / "oracles/erc"
    with np.load(folder / "erc.npz") as arrays:
        return dict(arrays), json.loads((folder / "erc.json").read_text())["results"]


def define_threshold(distance: NDArray[Any], same: NDArray[np.bool_], fmr: float) -> Any:
    """The rule of CR-FIQA's script, candidate by candidate."""
    candidates = np.unique(distance)[::-1]
    rates = np.array([np.mean(distance[~same] <= t) for t in candidates])
    return candidates[np.argmin(np.abs(rates - fmr))]


def define_cr_fiqa(similarity: NDArray[Any], same: NDArray[np.bool_], quality: NDArray[Any], fmr: float) -> list[float]:
    order = np.argsort(quality, kind="stable")
    found = []
    for rate in RATES:
        kept = order[int(rate * len(order)) :]
        d, s = -similarity[kept], same[kept]
        whole = s.any() and not s.all()
        found.append(np.mean(d[s] >= define_threshold(d, s, fmr)) if whole else np.nan)
    return found


def define_fixed(similarity: NDArray[Any], quality: NDArray[Any], limit: float) -> tuple[list[float], list[float]]:
    levels = np.unique(quality)
    rejection = [float(np.mean(quality < level)) for level in levels]
    fnmr = [float(np.mean(similarity[quality >= level] < limit)) for level in levels]
    return [*rejection, 1.0], [*fnmr, 0.0]


@st.composite
def pair_lists(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[Any]]:
    """Few pairs with many ties."""
    size = draw(st.integers(2, 60))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    similarity = draw(hnp.arrays(dtype, size, elements=st.sampled_from([-0.5, -0.0, 0.0, 0.1, 0.2, 0.3, 0.7])))
    same = draw(hnp.arrays(np.bool_, size).filter(lambda flags: flags.any() and not flags.all()))
    quality = draw(hnp.arrays(np.int64, size, elements=st.integers(-3, 3)))
    return similarity, same, quality.astype(dtype)


class TestOracles:
    @pytest.mark.parametrize("score", ["dist", "cos"])
    @pytest.mark.parametrize("fmr", FMRS)
    @pytest.mark.parametrize("quality", QUALITIES)
    def test_cr_fiqa_script(self, erc: Any, quality: str, fmr: str, score: str) -> None:
        arrays, scalars = erc
        similarity = arrays["cos"] if score == "cos" else -arrays["dist"]
        x, y = curve(similarity, arrays["same"], arrays[f"pairq__{quality}"], float(fmr), "cr_fiqa")
        assert np.array_equal(x, arrays["u"])
        assert np.allclose(y, arrays[f"{quality}__{fmr}__fnmr_stable"], rtol=0, atol=1e-12)
        expected = scalars[quality][fmr]
        assert abs(area(x, y, 0.95, "trapezoid", normalised=False) - expected["erc_auc_stable"]) < 1e-12
        assert abs(y[0] - expected["fnmr0"]) < 1e-12

    @pytest.mark.parametrize("fmr", FMRS)
    @pytest.mark.parametrize("quality", QUALITIES)
    def test_cr_fiqa_areas(self, erc: Any, quality: str, fmr: str) -> None:
        arrays, scalars = erc
        expected = scalars[quality][fmr]
        y = arrays[f"{quality}__{fmr}__fnmr"]
        assert abs(area(arrays["u"], y, 0.95, normalised=False) - expected["erc_auc"]) < 1e-12
        assert abs(area(arrays["u"], y, 0.3, normalised=False) - expected["erc_pauc30"]) < 1e-12
        assert abs(area(arrays["u"], y, 0.3) - expected["pauc_norm_fnmr0_range"]) < 1e-12
        assert abs(area(arrays["u"], y, 0.95) - expected["auc_norm_fnmr0_range"]) < 1e-12

    @pytest.mark.parametrize("fmr", FMRS)
    @pytest.mark.parametrize("quality", QUALITIES)
    def test_fiqat(self, erc: Any, quality: str, fmr: str) -> None:
        arrays, scalars = erc
        expected = scalars[quality][fmr]
        x, y = curve(-arrays["dist"], arrays["same"], arrays[f"pairq__{quality}"], float(fmr))
        if f"{quality}__{fmr}__fiqat_x" in arrays:
            assert np.allclose(x, arrays[f"{quality}__{fmr}__fiqat_x"], rtol=0, atol=1e-12)
            assert np.allclose(y, arrays[f"{quality}__{fmr}__fiqat_y"], rtol=0, atol=1e-12)
        assert abs(y[0] - expected["fiqat_fnmr0"]) < 1e-12
        for name, upto in (("pauc30", 0.3), ("auc95", 0.95)):
            assert abs(area(x, y, upto, "step", normalised=False) - expected[f"fiqat_{name}"]) < 1e-12
            assert abs(area(x, y, upto, "step") - expected[f"fiqat_{name}_norm"]) < 1e-12

    @pytest.mark.parametrize("fmr", FMRS)
    def test_threshold(self, erc: Any, fmr: str) -> None:
        arrays, _ = erc
        expected = arrays[f"informative__{fmr}__th"][0]
        assert threshold(-arrays["dist"], arrays["same"], float(fmr)) == -expected

    def test_curves_of_many_at_once_are_the_single_ones(self, erc: Any) -> None:
        arrays, _ = erc
        pairs = RankedPairs.build(-arrays["dist"], arrays["same"])
        quality = arrays["pairq__levels5"]
        for protocol in Protocol:
            together = pairs.curves(quality, [1e-2, 1e-3, 1e-4], protocol)
            for fmr, (x, y) in zip((1e-2, 1e-3, 1e-4), together, strict=True):
                alone = curve(-arrays["dist"], arrays["same"], quality, fmr, protocol)
                assert np.array_equal(x, alone[0])
                assert np.array_equal(y, alone[1])


class TestDefinition:
    @settings(deadline=None)
    @given(pair_lists(), st.sampled_from([1e-4, 0.01, 0.1, 0.25, 0.5, 1.0]))
    def test_threshold(self, pairs: Any, fmr: float) -> None:
        similarity, same, _ = pairs
        assert threshold(similarity, same, fmr) == -define_threshold(-similarity, same, fmr)

    @settings(deadline=None)
    @given(pair_lists(), st.sampled_from([1e-4, 0.01, 0.1, 0.25, 0.5, 1.0]))
    def test_cr_fiqa(self, pairs: Any, fmr: float) -> None:
        x, y = curve(*pairs, fmr, Protocol.CR_FIQA)
        assert np.array_equal(x, RATES)
        assert np.allclose(y, define_cr_fiqa(*pairs, fmr), rtol=0, atol=1e-12, equal_nan=True)

    @settings(deadline=None)
    @given(pair_lists(), st.sampled_from([0.01, 0.1, 0.25, 0.5]))
    def test_fixed(self, pairs: Any, fmr: float) -> None:
        similarity, same, quality = pairs
        x, y = curve(similarity, same, quality, fmr)
        limit = threshold(similarity, same, fmr)
        expected = define_fixed(similarity[same], quality[same], limit)
        assert np.allclose(x, expected[0], rtol=0, atol=1e-12)
        assert np.allclose(y, expected[1], rtol=0, atol=1e-12)
        alone = fixed_curve(similarity[same], quality[same], limit)
        assert np.array_equal(x, alone[0])
        assert np.array_equal(y, alone[1])


class TestProperties:
    @settings(deadline=None)
    @given(pair_lists(), st.sampled_from(Protocol))
    def test_only_the_order_of_the_qualities_counts(self, pairs: Any, protocol: Protocol) -> None:
        similarity, same, quality = pairs
        other = np.exp(quality.astype(np.float64)) * 1e3 - 7
        for one, two in zip(curve(*pairs, 0.1, protocol), curve(similarity, same, other, 0.1, protocol), strict=True):
            assert np.array_equal(one, two, equal_nan=True)

    @settings(deadline=None)
    @given(pair_lists(), st.sampled_from(Protocol), st.randoms())
    def test_the_order_of_the_pairs_does_not_count(self, pairs: Any, protocol: Protocol, random: Any) -> None:
        similarity, same, _ = pairs
        quality = np.array(random.sample(range(1000), len(same)))
        shuffle = np.array(random.sample(range(len(same)), len(same)))
        straight = curve(similarity, same, quality, 0.1, protocol)
        shuffled = curve(similarity[shuffle], same[shuffle], quality[shuffle], 0.1, protocol)
        for one, two in zip(straight, shuffled, strict=True):
            assert np.array_equal(one, two, equal_nan=True)

    @settings(deadline=None)
    @given(pair_lists())
    def test_no_quality_beats_the_similarity_itself(self, pairs: Any) -> None:
        similarity, same, quality = pairs
        # Nearly equal similarities are told apart, so that the floor has a point at every number of pairs.
        alike = similarity[same].astype(np.float64) + 1e-6 * np.arange(same.sum())
        limit = 0.15
        x, y = fixed_curve(alike, quality[same], limit)
        floor = fixed_curve(alike, alike, limit)
        assert np.all(fnmr_at(*floor, x) <= y + 1e-12)
        for upto in (0.3, 0.95):
            assert area(*floor, upto, "step", normalised=False) <= area(x, y, upto, "step", normalised=False) + 1e-12

    def test_a_quality_that_tells_nothing_has_1_on_average(self) -> None:
        random = np.random.default_rng(3)
        similarity = random.random(300)
        areas = [area(*fixed_curve(similarity, random.random(300), 0.3), 0.95, "step") for _ in range(400)]
        assert abs(np.mean(areas) - 1) < 3 * np.std(areas) / np.sqrt(len(areas))
        assert np.std(areas) < 0.2

    @settings(deadline=None)
    @given(pair_lists())
    def test_one_quality_for_all_has_1(self, pairs: Any) -> None:
        similarity, same, _ = pairs
        x, y = fixed_curve(similarity[same], np.zeros(same.sum()), 0.15)
        assert x.tolist() == [0.0, 1.0]
        assert area(x, y, 0.3, "step") == pytest.approx(1) or y[0] == 0


class TestByHand:
    SIMILARITY = (0.9, 0.2, 0.6, 0.4, 0.5, 0.1, 0.3, 0.0)
    SAME = (1, 1, 1, 1, 0, 0, 0, 0)
    QUALITY = (4, 1, 3, 1, 2, 9, 9, 9)

    def test_threshold(self) -> None:
        # A quarter of the impostors are at .5 or more: of the pairs with that rate the least alike has .4.
        assert threshold(self.SIMILARITY, self.SAME, 0.25) == 0.4
        # Nobody at .6 or more.
        assert threshold(self.SIMILARITY, self.SAME, 1e-4) == 0.6
        # 1/8 is as far from 0 as from 1/4: the larger distance.
        assert threshold(self.SIMILARITY, self.SAME, 0.125) == 0.4

    def test_no_candidate_without_a_false_match(self) -> None:
        assert threshold([0.1, 0.9, 0.5], [1, 0, 0], 1e-3) == 0.9

    def test_fixed(self) -> None:
        x, y = curve(self.SIMILARITY, self.SAME, self.QUALITY, 0.25)
        assert x.tolist() == [0, 0.5, 0.75, 1]  # both pairs of quality 1 go together
        assert y.tolist() == [0.25, 0, 0, 0]  # .4 is at the threshold and matches
        assert area(x, y, 0.25, "step") == 1
        assert area(x, y, 0.75, "step", normalised=False) == 0.125

    def test_cr_fiqa(self) -> None:
        x, y = curve(self.SIMILARITY, self.SAME, self.QUALITY, 0.25, "cr_fiqa")
        assert len(x) == 20
        assert y[0] == 0.5  # .2, and .4 at the threshold
        # At .15 the first of the two of quality 1 (.2) is gone, at .25 the other, at .4 the impostor of .5:
        # a third of the three left is nearer to a quarter than none, so the threshold is .3.
        assert y[2:9].tolist() == [0.5, 1 / 3, 1 / 3, 0, 0, 0, 0]
        # From .5 on one genuine pair is left, then none, and an error rate of no pairs is none.
        assert y[9:13].tolist() == [0, 0, 0, 0]
        assert np.isnan(y[13:]).all()

    def test_pairs_of_float32_are_compared_as_they_are(self) -> None:
        similarity = np.array([0.1, 0.2, 0.3], np.float32)
        assert fixed_curve(similarity, [1, 2, 3], float(similarity[1]))[1][0] == 1 / 3
        assert fixed_curve(similarity, [1, 2, 3], float(np.nextafter(np.float64(similarity[1]), 1)))[1][0] == 2 / 3

    def test_infinite_qualities_are_the_lowest_and_the_highest(self) -> None:
        x, y = fixed_curve([0.1, 0.9, 0.2], [-np.inf, np.inf, 0], 0.5)
        assert np.allclose(x, [0, 1 / 3, 2 / 3, 1])
        assert np.allclose(y, [2 / 3, 1 / 2, 0, 0])


class TestArea:
    @pytest.mark.parametrize("rule", AreaRule)
    @pytest.mark.parametrize("upto", [0.05, 0.3, 0.31, 0.95])
    def test_a_flat_curve_has_1(self, rule: AreaRule, upto: float) -> None:
        assert area(RATES, np.full(20, 0.2), upto, rule) == pytest.approx(1, abs=1e-12)
        assert area(RATES, np.full(20, 0.2), upto, rule, normalised=False) == pytest.approx(0.2 * upto, abs=1e-12)

    def test_the_limit_has_a_slack(self) -> None:
        assert RATES[6] > 0.3
        y = np.linspace(1, 0, 20)
        assert area(RATES, y, 0.3, normalised=False) == pytest.approx(np.trapezoid(y[:7], RATES[:7]), abs=1e-12)

    @pytest.mark.parametrize("rule", AreaRule)
    def test_the_end_of_the_curve_has_a_slack_too(self, rule: AreaRule) -> None:
        assert 0.1 + 0.2 > 0.3
        assert area([0, 0.3], [0.5, 0.5], 0.1 + 0.2, rule) == pytest.approx(1, abs=1e-12)

    def test_a_limit_between_points(self) -> None:
        x, y = [0, 0.2, 0.6, 1], [1.0, 0.5, 0.1, 0]
        assert area(x, y, 0.4, "step", normalised=False) == pytest.approx(0.2 + 0.2 * 0.5)
        assert area(x, y, 0.4, normalised=False) == pytest.approx(0.2 * 0.75 + 0.2 * 0.4)

    def test_without_errors_there_is_no_normalised_area(self) -> None:
        assert np.isnan(area([0, 1], [0, 0], 0.3))
        assert area([0, 1], [0, 0], 0.3, normalised=False) == 0

    def test_a_point_that_is_not_known_spoils_only_what_holds_it(self) -> None:
        y = np.where(RATES > 0.5, np.nan, 0.1)
        for rule in AreaRule:
            assert area(RATES, y, 0.3, rule) == pytest.approx(1)
            assert np.isnan(area(RATES, y, 0.95, rule))

    def test_values_at_rates(self) -> None:
        x, y = [0, 0.5, 1], [0.4, 0.1, 0]
        assert fnmr_at(x, y, [0, 0.49, 0.5, 0.7, 1]).tolist() == [0.4, 0.4, 0.1, 0.1, 0]
        with pytest.raises(ValueError, match="rates have to lie between 0"):
            fnmr_at(x, y, [1.1])

    @pytest.mark.parametrize(
        ("x", "y", "upto", "says"),
        [
            ([0, 0.5], [1, 1], 0.6, "limit 0.6"),
            ([0, 0.5], [1, 1], 0, "limit 0"),
            ([0, 0.5], [1, 1], float("nan"), "limit nan"),
            ([0, 0.5], [1], 0.3, "two vectors"),
            ([], [], 0.3, "two vectors"),
            ([0.1, 0.5], [1, 1], 0.3, "ascend from 0"),
            ([0, 0.5, 0.4], [1, 1, 1], 0.3, "ascend from 0"),
        ],
    )
    def test_what_is_no_curve(self, x: list[float], y: list[float], upto: float, says: str) -> None:
        with pytest.raises(ValueError, match=says):
            area(x, y, upto)

    def test_an_unknown_rule(self) -> None:
        with pytest.raises(ValueError, match="simpson"):
            area([0, 1], [1, 0], 0.3, "simpson")


@pytest.mark.parametrize(
    ("pairs", "fmr", "says"),
    [
        (([0.1, np.nan], [1, 0], [1, 2]), 0.1, "similarity of 1 of 2 pairs is NaN"),
        (([0.1, 0.2], [1, 0], [1, np.nan]), 0.1, "quality of 1 of 2 pairs is NaN"),
        (([0.1, 0.2], [1, 0], [1]), 0.1, "quality has shape"),
        (([0.1, 0.2], [1, 0, 0], [1, 2]), 0.1, "same has shape"),
        (([[0.1, 0.2]], [1, 0], [1, 2]), 0.1, "similarity has to be a vector"),
        ((["a", "b"], [1, 0], [1, 2]), 0.1, "similarity has to be a vector of numbers"),
        (([0.1, 0.2], [1, 1], [1, 2]), 0.1, "no impostor pairs"),
        (([0.1, 0.2], [0, 0], [1, 2]), 0.1, "no genuine pairs"),
        (([], [], []), 0.1, "no genuine pairs"),
        (([0.1, 0.2], [2, 0], [1, 2]), 0.1, "same holds values"),
        (([0.1, 0.2], [np.nan, 0], [1, 2]), 0.1, "same holds values"),
        (([0.1, 0.2], [1, 0], [1, 2]), 0.0, "false match rate 0.0"),
        (([0.1, 0.2], [1, 0], [1, 2]), 1.1, "false match rate 1.1"),
        (([0.1, 0.2], [1, 0], [1, 2]), float("nan"), "false match rate nan"),
    ],
)
@pytest.mark.parametrize("protocol", Protocol)
def test_what_cannot_be_evaluated(pairs: tuple[Any, Any, Any], fmr: float, says: str, protocol: Protocol) -> None:
    with pytest.raises(ValueError, match=says):
        curve(*pairs, fmr, protocol)


def test_genuine_pairs_alone_are_checked_too() -> None:
    with pytest.raises(ValueError, match="no genuine pairs"):
        fixed_curve([], [], 0.3)
    with pytest.raises(ValueError, match="threshold is NaN"):
        fixed_curves([0.1], [1], [0.2, float("nan")])
    with pytest.raises(ValueError, match="quality has shape"):
        fixed_curve([0.1], [1, 2], 0.3)
    with pytest.raises(ValueError, match="median"):
        curve([0.1, 0.2], [1, 0], [1, 2], 0.1, "median")


@pytest.mark.parametrize("protocol", Protocol)
def test_float32_pairs_are_not_copied_many_times(protocol: Protocol) -> None:
    random = np.random.default_rng(0)
    pairs = 400_000
    same = random.random(pairs) < 0.5
    similarity, quality = random.random(pairs, np.float32), random.random(pairs, np.float32)
    tracemalloc.start()
    try:
        curve(similarity, same, quality, 1e-3, protocol)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60 * pairs  # bytes: four columns of float64, and the places of the pairs
