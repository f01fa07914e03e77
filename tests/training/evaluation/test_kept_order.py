"""Order statistics of the kept pairs, beside the plain way of finding them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluation.pairs.kept_order import BLOCK, KeptOrder, count_rates_kept


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=80), st.integers(1, 30), st.randoms())
def test_rejects_what_a_stable_sort_rejects(quality: list[int], rates: int, random: Any) -> None:
    starts = np.array(sorted(random.randrange(len(quality)) for _ in range(rates)))
    kept = count_rates_kept(np.array(quality, np.float32), starts)
    order = np.argsort(quality, kind="stable")
    for rate, start in enumerate(starts):
        assert np.array_equal(np.flatnonzero(kept > rate), np.sort(order[start:]))


def test_rejects_the_same_across_chunks() -> None:
    random = np.random.default_rng(1)
    quality = np.round(random.random(2_300_000, np.float32), 3)
    starts = (0.05 * np.arange(20) * len(quality)).astype(np.int64)
    kept = count_rates_kept(quality, starts)
    expected = np.empty(len(quality), np.uint8)
    expected[np.argsort(quality, kind="stable")] = np.searchsorted(starts, np.arange(len(quality)), side="right")
    assert np.array_equal(kept, expected)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7]),
    st.integers(1, 20),
    st.integers(0, 2**32 - 1),
)
def test_answers_as_the_plain_way(size: int, rates: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    distance = np.sort(random.integers(0, 50, size)).astype(np.float32)
    kept = random.integers(0, rates + 1, size).astype(np.uint8)
    order = KeptOrder.build(distance, kept, rates)
    for rate in range(rates):
        plain = distance[kept > rate]
        assert order.total(rate) == len(plain)
        for rank in {0, len(plain) // 2, len(plain) - 1} if len(plain) else ():
            assert order.select(rate, rank) == plain[rank]
        for value in np.float32([-1, 0, 7, 25, 49, 50]):
            assert order.count_below(rate, value) == np.count_nonzero(plain < value)
            assert order.count_within(rate, value) == np.count_nonzero(plain <= value)
