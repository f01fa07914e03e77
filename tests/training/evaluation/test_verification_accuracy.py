"""Ten-fold accuracy against the same computed by loops, one threshold and one pair at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluation.verification import Accuracy, VerificationPairsError, measure_accuracy, split_evenly


def accuracy_by_loops(similarity: np.ndarray, same: np.ndarray, folds: np.ndarray) -> tuple[list[float], list[float]]:
    """Accuracy and threshold of every fold, by the words of the protocol."""
    thresholds = [0.01 * step for step in range(400)]
    distances = [2.0 - 2.0 * float(value) for value in similarity]
    shares, chosen = [], []
    for fold in sorted(set(folds.tolist())):
        train = [p for p in range(len(same)) if folds[p] != fold]
        test = [p for p in range(len(same)) if folds[p] == fold]
        rights = [sum((distances[p] < t) == bool(same[p]) for p in train) for t in thresholds]
        best = thresholds[rights.index(max(rights))]
        shares.append(sum((distances[p] < best) == bool(same[p]) for p in test) / len(test))
        chosen.append(best)
    return shares, chosen


def draw_pairs(seed: int, pairs: int, apart: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = rng.random(pairs) < 0.5
    return (rng.normal(0.2, 0.15, pairs) + apart * same).clip(-1, 1).astype(np.float32), same


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(10, 80), st.sampled_from([0.0, 0.3, 2.0]))
def test_equal_to_loops(seed: int, pairs: int, apart: float) -> None:
    similarity, same = draw_pairs(seed, pairs, apart)
    found = measure_accuracy(similarity, same)
    shares, chosen = accuracy_by_loops(similarity, same, split_evenly(pairs))
    np.testing.assert_allclose(found.folds, shares, rtol=1e-15)
    np.testing.assert_allclose(found.squared_distances, chosen, rtol=1e-12)
    assert found.mean == pytest.approx(np.mean(shares), rel=1e-14)
    assert found.std == pytest.approx(np.std(shares), rel=1e-9, abs=1e-15)


def test_folds_as_given_in_any_order_and_size() -> None:
    similarity, same = draw_pairs(1, 90)
    folds = np.random.default_rng(2).choice([3, 7, 100], 90, p=[0.2, 0.3, 0.5])
    shares, chosen = accuracy_by_loops(similarity, same, folds)
    found = measure_accuracy(similarity, same, folds)
    np.testing.assert_allclose(found.folds, shares, rtol=1e-15)
    np.testing.assert_allclose(found.squared_distances, chosen, rtol=1e-12)


def test_folds_are_those_of_kfold_without_shuffling() -> None:
    assert split_evenly(23).tolist() == sorted([*range(10)] * 2 + [0, 1, 2])
    assert split_evenly(6000).tolist() == [fold for fold in range(10) for _ in range(600)]


def test_threshold_as_a_similarity() -> None:
    found = Accuracy(mean=1.0, std=0.0, folds=np.ones(2), squared_distances=np.array([1.0, 1.4]))
    assert found.threshold == pytest.approx(0.4)


def test_pairs_at_the_ends_of_the_range() -> None:
    """A distance of 4 is below no threshold, one of 0 below all but the first."""
    similarity, same = np.array([1.0, -1.0] * 5, np.float32), np.array([True, False] * 5)
    found = measure_accuracy(similarity, same)
    assert (found.mean, found.std) == (1.0, 0.0)
    np.testing.assert_allclose(found.squared_distances, 0.01)


def test_wrong_input_is_named() -> None:
    similarity, same = draw_pairs(3, 30)
    with pytest.raises(VerificationPairsError, match=r"\[P\]"):
        measure_accuracy(similarity, same[1:])
    with pytest.raises(VerificationPairsError, match=r"\[P\]"):
        measure_accuracy(similarity, same, np.zeros(3, np.int32))
    with pytest.raises(VerificationPairsError, match="bool"):
        measure_accuracy(similarity, same.astype(np.int64))
    for folds, pairs in ((np.zeros(30, np.int32), 30), (None, 1), (None, 0)):
        with pytest.raises(VerificationPairsError, match="folds"):
            measure_accuracy(similarity[:pairs], same[:pairs], folds)
    similarity[4] = np.nan
    with pytest.raises(VerificationPairsError, match="pair 4:"):
        measure_accuracy(similarity, same)
