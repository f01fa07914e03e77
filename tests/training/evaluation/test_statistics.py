"""Bootstrap intervals and tests: against explicit resampling, and whether they cover what they promise."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm

from training.evaluation.bca import Bca
from training.evaluation.error_reject import area, fixed_curve
from training.evaluation.statistics import Draws, ResampledAreas, paired_test, resample_areas

THRESHOLDS = [0.5, 0.2, 0.35]
LIMITS = [0.1, 0.3, 0.95, 1.0]


def draw_pairs(random: np.random.Generator, pairs: int, noise: float = 0.1) -> tuple[Any, Any]:
    """Similarities and a quality that foretells them."""
    quality = random.random(pairs)
    return 0.2 + 0.4 * quality + noise * random.standard_normal(pairs), quality


class TestAgainstExplicitResampling:
    @settings(deadline=None)
    @given(st.integers(1, 40), st.integers(1, 8), st.booleans(), st.integers(0, 2**32 - 1))
    def test_areas(self, pairs: int, levels: int, people: bool, seed: int) -> None:
        random = np.random.default_rng(seed)
        similarity = random.choice(np.float32([0.1, 0.2, 0.3, 0.4, 0.6]), pairs)
        qualities = [random.integers(0, levels, pairs), random.random(pairs)]
        draws = Draws(identities=random.integers(-2, 9, pairs) if people else None, replicates=6, seed=seed)
        found = resample_areas(similarity, qualities, THRESHOLDS, LIMITS, draws)
        repeats = [np.ones(pairs, np.int64), *draws.counts(pairs)]
        for counts, areas in zip(repeats, [found.values, *found.replicates], strict=True):
            taken = np.repeat(np.arange(pairs), counts)
            for m, quality in enumerate(qualities):
                for t, limit in enumerate(THRESHOLDS):
                    curve = fixed_curve(similarity[taken], quality[taken], limit)
                    plain = [area(*curve, upto, "step") for upto in LIMITS]
                    assert np.allclose(areas[m, t], plain, rtol=0, atol=1e-12, equal_nan=True)

    def test_pairs_are_drawn_with_replacement(self) -> None:
        counts = np.array(list(Draws(replicates=4000, seed=1).counts(5)))
        assert (counts.sum(axis=1) == 5).all()
        # A pair is left out of a draw of five with probability 0.8^5, and is in all five places with 0.2^5.
        assert np.mean(counts == 0) == pytest.approx(0.8**5, abs=0.02)
        assert counts.var(axis=0) == pytest.approx(np.full(5, 0.8), rel=0.1)

    def test_people_are_drawn_with_all_their_pairs(self) -> None:
        identities = [70, -3, 70, 9, 9, 9]
        for counts in Draws(identities=identities, replicates=50).counts(6):
            assert counts[0] == counts[2]
            assert counts[3] == counts[4] == counts[5]
            assert counts[0] + counts[1] + counts[3] == 3

    def test_seeds(self) -> None:
        similarity, quality = draw_pairs(np.random.default_rng(0), 200)
        one, same, other = (
            resample_areas(similarity, [quality], [0.4], draws=Draws(replicates=20, seed=seed)) for seed in (1, 1, 2)
        )
        assert np.array_equal(one.replicates, same.replicates)
        assert not np.array_equal(one.replicates, other.replicates)


class TestIntervals:
    @pytest.mark.parametrize(("pairs", "noise"), [(60, 0.1), (199, 0.3)])
    def test_are_those_of_scipy(self, pairs: int, noise: float) -> None:
        similarity, quality = draw_pairs(np.random.default_rng(pairs), pairs, noise)
        found = resample_areas(similarity, [quality], [0.3], [0.3, 0.95], Draws(replicates=400, seed=3))
        for place, limit in enumerate((0.3, 0.95)):

            def take(one: Any, two: Any, axis: int = -1, limit: float = limit) -> Any:
                rows = zip(np.atleast_2d(one), np.atleast_2d(two), strict=True)
                return np.array([area(*fixed_curve(*row, 0.3), limit, "step") for row in rows]).squeeze()

            class Drawn:
                bootstrap_distribution = found.replicates[:, 0, 0, place]

            theirs = bootstrap(
                (similarity, quality), take, paired=True, n_resamples=0, bootstrap_result=Drawn, method="BCa"
            ).confidence_interval  # fmt: skip
            ours = found.interval(0, 0, place)
            assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)

    @settings(deadline=None)
    @given(st.integers(1, 60), st.integers(1, 9), st.booleans(), st.integers(0, 2**32 - 1))
    def test_hold_their_estimate(self, pairs: int, levels: int, people: bool, seed: int) -> None:
        random = np.random.default_rng(seed)
        similarity = random.random(pairs)
        qualities = [random.integers(0, levels, pairs), random.random(pairs)]
        draws = Draws(identities=random.integers(0, 9, pairs) if people else None, replicates=30, seed=seed)
        areas = resample_areas(similarity, qualities, [2 / pairs, 0.5], [0.3, 0.95], draws)
        for threshold, limit in product(range(2), range(2)):
            for quality in range(2):
                interval = areas.interval(quality, threshold, limit)
                assert np.isnan(interval.value) or interval.low <= interval.value <= interval.high
            test = areas.compare(0, 1, threshold, limit)
            assert np.isnan(test.difference) or test.low <= test.difference <= test.high
            assert np.isnan(test.p_value) or 2 / 31 <= test.p_value <= 1

    def test_the_p_value_is_where_the_interval_reaches_0(self) -> None:
        random = np.random.default_rng(11)
        similarity, quality = draw_pairs(random, 400)
        qualities = [quality + 0.3 * random.standard_normal(400) for _ in range(2)]
        areas = resample_areas(similarity, qualities, [0.4], [0.95], Draws(replicates=4000))
        p = areas.compare(0, 1, 0, 0).p_value
        assert 0.01 < p < 0.99
        wide, narrow = (areas.compare(0, 1, 0, 0, confidence=1 - p + by) for by in (0.005, -0.005))
        assert wide.low < 0 < wide.high
        assert not narrow.low < 0 < narrow.high

    def test_a_group_of_pairs_is_left_out_at_a_time(self) -> None:
        few = np.array(list(Draws().without(3)))
        assert few.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
        many = np.array(list(Draws().without(450)))
        assert many.shape == (200, 450)
        assert (many.sum(axis=0) == 199).all()
        assert set((many == 0).sum(axis=1)) == {2, 3}
        people = np.array(list(Draws(identities=[4, 9, 4]).without(3)))
        assert people.tolist() == [[0, 1, 0], [1, 0, 1]]
        assert not list(Draws(replicates=0).without(3))


class TestCoverage:
    @pytest.mark.parametrize(("pairs", "limit"), [(300, 0.95), (300, 0.3), (1000, 0.95)])
    def test_of_thirty_errors_and_more_intervals_hold_the_true_area(self, pairs: int, limit: float) -> None:
        random = np.random.default_rng(5)
        whole = draw_pairs(random, 1_000_000)
        threshold = float(np.quantile(whole[0], 30 / pairs))  # about thirty errors
        true = area(*fixed_curve(*whole, threshold), limit, "step")
        held = 0
        for seed in range(200):
            similarity, quality = draw_pairs(random, pairs)
            draws = Draws(replicates=300, seed=seed)
            interval = resample_areas(similarity, [quality], [threshold], [limit], draws).interval(0, 0, 0)
            held += interval.low <= true <= interval.high
        assert 0.9 <= held / 200 <= 0.99  # 95 %, three standard errors of 200 trials

    def test_intervals_hold_the_true_area(self) -> None:
        random = np.random.default_rng(5)
        true = area(*fixed_curve(*draw_pairs(random, 1_000_000), 0.4), 0.95, "step")
        held = 0
        for seed in range(200):
            similarity, quality = draw_pairs(random, 500)
            draws = Draws(replicates=300, seed=seed)
            interval = resample_areas(similarity, [quality], [0.4], [0.95], draws).interval(0, 0, 0)
            held += interval.low <= true <= interval.high
        assert 0.90 <= held / 200 <= 0.985  # 95 %, two standard errors of 200 trials and a little

    def test_people_with_many_pairs_have_to_be_drawn_whole(self) -> None:
        random = np.random.default_rng(6)
        true = area(*fixed_curve(*draw_pairs(random, 1_000_000), 0.4), 0.95, "step")
        held = {"pair": 0, "identity": 0}
        identities = np.repeat(np.arange(200), 20)
        for seed in range(100):
            similarity, quality = (np.repeat(column, 20) for column in draw_pairs(random, 200))
            for unit, people in (("pair", None), ("identity", identities)):
                draws = Draws(identities=people, replicates=200, seed=seed)
                interval = resample_areas(similarity, [quality], [0.4], [0.95], draws).interval(0, 0, 0)
                held[unit] += bool(interval.low <= true <= interval.high)
        assert held["identity"] >= 87
        assert held["pair"] < 60

    def test_p_values_of_equally_good_qualities_are_even(self) -> None:
        random = np.random.default_rng(7)
        values = []
        for seed in range(200):
            similarity, quality = draw_pairs(random, 300)
            one, two = (quality + 0.3 * random.standard_normal(300) for _ in range(2))
            values.append(paired_test(similarity, (one, two), 0.4, 0.95, Draws(replicates=200, seed=seed)).p_value)
        assert np.mean(np.array(values) < 0.05) < 0.1
        assert 0.4 < np.mean(values) < 0.6

    def test_a_better_quality_is_seen(self) -> None:
        random = np.random.default_rng(8)
        similarity, quality = draw_pairs(random, 400)
        found = paired_test(similarity, (quality, random.random(400)), 0.4, 0.95)
        assert found.difference < found.high < 0
        assert found.low < found.difference
        assert found.p_value == 2 / 1001


class TestResults:
    def test_a_quality_does_not_differ_from_itself(self) -> None:
        similarity, quality = draw_pairs(np.random.default_rng(9), 100)
        found = paired_test(similarity, (quality, 2 * quality), 0.4, 0.3, Draws(replicates=50))
        assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)

    def test_numbers_by_hand(self) -> None:
        replicates = np.array([[1.0, 3], [2, 1], [4, 1], [5, 1], [np.nan, np.nan]]).reshape(5, 2, 1, 1)
        without = np.ones((3, 2, 1, 1))  # nothing is skewed
        areas = ResampledAreas(
            values=np.array([3.0, 1.5]).reshape(2, 1, 1), replicates=replicates, without=without
        )  # fmt: skip
        assert areas.interval(0, 0, 0, confidence=0.5).low == pytest.approx(1.75)  # the first quartile of 1, 2, 4, 5
        assert areas.interval(0, 0, 0).value == 3  # of which two are below, and two above
        found = areas.compare(0, 1, 0, 0)
        assert found.difference == 1.5
        assert found.p_value == pytest.approx(2 * (1 + 1) / (4 + 1))  # one of -2, 1, 3, 4 on the other side
        # Of the same draws one is below 0.5, so that their median is far above it.
        biased = Bca.of(0.5, np.array([-2.0, 1, 3, 4]), np.ones(3))
        assert biased.bias == pytest.approx(norm.ppf(1 / 4))
        assert biased.p_value() == pytest.approx(2 * norm.cdf(norm.ppf(4 / 5) + 2 * norm.ppf(1 / 4)))
        assert areas.compare(1, 0, 0, 0).p_value == found.p_value

    def test_without_errors_nothing_is_known(self) -> None:
        areas = resample_areas([0.5, 0.6], [[1, 2], [2, 1]], [0.4], draws=Draws(replicates=10))
        interval, found = areas.interval(0, 0, 0), areas.compare(0, 1, 0, 0)
        assert np.isnan([interval.value, interval.low, interval.high]).all()
        assert np.isnan([found.difference, found.low, found.high, found.p_value]).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([], [[]], [0.4]), "no genuine pairs"),
        (([0.1, np.nan], [[1, 2]], [0.4]), "similarity of 1 of 2"),
        (([0.1, 0.2], [[1, 2], [1]], [0.4]), "quality has shape"),
        (([0.1, 0.2], [[1, np.nan]], [0.4]), "quality of 1 of 2"),
        (([0.1, 0.2], [[1, 2]], [np.nan]), "threshold of 1 of 1"),
        (([0.1, 0.2], [[1, 2]], [0.4], [0.3, 0.3]), "limits have to ascend"),
        (([0.1, 0.2], [[1, 2]], [0.4], [0.0, 0.3]), "limits have to ascend"),
        (([0.1, 0.2], [[1, 2]], [0.4], [1.1]), "limits have to ascend"),
        (([0.1, 0.2], [[1, 2]], [0.4], [0.3], Draws(identities=[1])), "identities have to be 2"),
        (([0.1, 0.2], [[1, 2]], [0.4], [0.3], Draws(identities=[0.5, 1])), "identities have to be 2"),
    ],
)
def test_what_cannot_be_resampled(arguments: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        resample_areas(*arguments)
