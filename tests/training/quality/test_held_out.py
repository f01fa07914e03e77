"""What is said of people held out: rank correlation and balanced accuracy, against SciPy and by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from data_manifests.tables.stages import Factor
from training.dataset.training_set import LabelledImages, Labels
from training.quality.held_out import Agreement, EvaluationPoint, balanced_accuracy, compare, explain_chance, spearman

LEVELS = st.sampled_from([np.float32(value) for value in (0.1, 0.25, 0.5, 0.75, 0.9, 0.9000001)])


class NoImages:
    """Images that nobody may look at: only labels are compared."""

    def read(self, row: int) -> bytes:
        raise AssertionError(row)


def labelled(quality: list[float], classes: list[list[int]], people: list[int]) -> LabelledImages:
    """A set of these images, and of one before them that is not in it."""
    count = len(quality)
    labels = Labels(
        keys=np.arange(count + 1, dtype=np.int32),
        identities=np.array([99, *people], np.int32),
        quality=np.array([0.0, *quality], np.float32),
        classes=np.array([[0] * 5, *classes], np.int8),
        readable=np.ones(count + 1, np.bool_),
        status=pl.Series(["ok"] * (count + 1)),
        fingerprint="",
        content="",
    )
    rows = np.arange(1, count + 1)
    return LabelledImages(
        labels=labels, rows=rows, quality=labels.quality[rows], classes=labels.classes[rows], images=NoImages()
    )


@given(st.integers(2, 40).flatmap(lambda n: st.tuples(arrays(np.float32, n, elements=LEVELS),
                                                      arrays(np.float32, n, elements=LEVELS))))  # fmt: skip
def test_the_rank_correlation_is_scipys(pair: tuple[np.ndarray, np.ndarray]) -> None:
    score, quality = pair
    found = spearman(score, quality)
    if len(set(score)) == 1 or len(set(quality)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(score, quality).statistic, abs=1e-9)
    unlabelled = np.full(3, np.nan, np.float32)
    again = spearman(np.concatenate([score, score[:2], score[:1]]), np.concatenate([quality, unlabelled]))
    assert again == found


def test_too_little_to_rank_says_nothing() -> None:
    nothing = np.array([], np.float32)
    assert spearman(nothing, nothing) is None
    assert spearman(np.array([0.1, 0.2], np.float32), np.array([0.4, np.nan], np.float32)) is None


def test_balanced_accuracy_by_hand() -> None:
    told = np.array([0, 0, 1, 2, 2, 2, 0])
    right = np.array([0, 1, 1, 2, 2, 0, -1], np.int8)
    # Recalls: 1 of 2, 1 of 2, 2 of 2.
    assert balanced_accuracy(told, right, 3) == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    # No image has the middle class: the mean is over the two others.
    assert balanced_accuracy(told, np.where(right == 1, -1, right), 3) == pytest.approx((0.5 + 1.0) / 2)


@pytest.mark.parametrize("right", [[-1, -1, -1], [1, 1, -1], [0, 0, 0]])
def test_one_class_alone_cannot_be_balanced(right: list[int]) -> None:
    assert balanced_accuracy(np.array([0, 1, 1]), np.array(right, np.int8), 2) is None


def test_every_number_is_held_against_its_own_label() -> None:
    """Each factor is told right for another share of the images, and the score is the first of the numbers."""
    count, random = 60, np.random.default_rng(0)
    sizes = {Factor.BLUR: 3, Factor.OCCLUSION: 2, Factor.POSE: 3, Factor.EXPRESSION: 2, Factor.LIGHTING: 2}
    classes = np.stack([np.arange(count) % size for size in sizes.values()], axis=1)
    quality = random.random(count).astype(np.float32)
    wrong = {factor: 6 * place for place, factor in enumerate(sizes)}  # images told wrong, as many of every class
    columns = [-quality[:, None], random.random((count, 5))]
    for place, (factor, size) in enumerate(sizes.items()):
        told = classes[:, place].copy()
        told[: wrong[factor]] = (told[: wrong[factor]] + 1) % size
        columns.append(np.eye(size)[told])
    numbers = np.concatenate(columns, axis=1).astype(np.float32)
    data = labelled(quality.tolist(), classes.tolist(), (np.arange(count) // 7).tolist())
    found = compare(numbers, data, tuple(Factor))
    assert found.spearman == pytest.approx(-1.0)
    assert found.balanced_accuracy == pytest.approx({f.value: 1 - wrong[f] / count for f in sizes})
    assert (found.images, found.people) == (60, 9)
    assert list(compare(numbers, data, (Factor.POSE, Factor.BLUR)).balanced_accuracy) == ["blur", "pose"]
    assert compare(numbers, data, ()).balanced_accuracy == {}


def test_what_is_not_known_is_said_so_and_has_no_curve() -> None:
    found = Agreement(images=1200, people=3, spearman=None, balanced_accuracy={"blur": 0.5, "pose": None})
    assert str(found) == (
        "people held out (3, with 1,200 images): Spearman of score and quality unknown; "
        "balanced accuracy of blur 0.500, pose unknown"
    )
    assert found.curves() == {"held_out/blur": 0.5}
    assert "accuracy" not in str(Agreement(images=2, people=1, spearman=0.5, balanced_accuracy={}))


def test_every_moment_has_words() -> None:
    assert len({moment.words for moment in EvaluationPoint}) == len(EvaluationPoint)


def test_a_score_that_follows_nothing_is_told() -> None:
    rng = np.random.default_rng(5)
    quality = rng.random(1000, np.float32)
    told = explain_chance(rng.random(1000, np.float32), quality)
    assert "Spearman of score and quality is 0.0" in told
    assert "(up to 0.10)" in told
    assert "is 0.00," in explain_chance(np.full(1000, 0.5, np.float32), quality)
    assert explain_chance(quality + rng.random(1000, np.float32), quality) == ""
    assert explain_chance(rng.random(29, np.float32), quality[:29]) == ""
    assert explain_chance(quality, np.full(1000, 0.5, np.float32)) == ""
    assert "(up to 0.43)" in explain_chance(-quality[:50], quality[:50])
