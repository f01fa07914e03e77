"""A score in order, and where thresholds may stand: against plain counting."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_manifests.recipes import Recipe
from data_manifests.tables.stages import CLASSES, Factor
from labelers.levels import NULL, blur_level, pose_level
from pipeline.label_report.picks import Kind, draw, pick_class, pick_pool
from pipeline.label_report.ranked import Ranked, Rule, Sorted
from pipeline.label_report.scores import SCORES, build_splits, find_axis, list_marks
from pipeline.pages.people import A_ROW, first_of_people
from tests.pipeline.label_report.test_report import SETTINGS

if TYPE_CHECKING:
    from random import Random

VALUES = arrays(
    np.float32, st.integers(1, 60),
    elements=st.one_of(st.just(float("nan")), st.floats(-8, 8, width=32), st.sampled_from([0.0, -0.0, 0.35, 0.7])),
)  # fmt: skip


@given(VALUES)
def test_order_is_that_of_a_stable_sort(values: np.ndarray) -> None:
    ranked = Ranked.rank(values)
    expected = np.argsort(values, kind="stable")[: (~np.isnan(values)).sum()]
    assert ranked.ranks.tolist() == expected.tolist()
    assert ranked.ascending.tolist() == values[expected].tolist()
    assert Sorted.sort(values).ascending.tolist() == ranked.ascending.tolist()
    assert ranked.images == values.size


@given(VALUES, st.lists(st.floats(-9, 9), max_size=6))
def test_counts_are_those_of_comparing(values: np.ndarray, thresholds: list[float]) -> None:
    found = Sorted.sort(values)
    compare = {Rule.BELOW: np.less, Rule.UP_TO: np.less_equal, Rule.ABOVE: np.greater, Rule.FROM: np.greater_equal}
    for rule, compared in compare.items():
        plain = [int(compared(values, np.float32(edge)).sum()) for edge in thresholds]
        assert found.count(rule, thresholds).tolist() == plain


@given(VALUES, st.integers(1, 20))
def test_bars_hold_every_value(values: np.ndarray, count: int) -> None:
    found = Sorted.sort(values)
    bars = found.bars(-1.0, 1.0, count)
    assert bars.size == count
    assert bars.sum() == found.known
    inner = (values >= -1) & (values < 1)
    if count == 2:
        assert bars.tolist() == [int((values < 0).sum()), int((values >= 0).sum())]
    assert bars.sum() >= inner.sum()


@given(VALUES, st.lists(st.floats(-9, 9), min_size=1, max_size=8))
def test_nearest_is_as_near_as_any(values: np.ndarray, targets: list[float]) -> None:
    ranked = Ranked.rank(values)
    found = ranked.nearest(targets)
    assert len(set(found.tolist())) == found.size
    known = values[~np.isnan(values)].astype(np.float64)
    if not known.size:
        assert found.size == 0
        return
    for target in targets:
        best = np.abs(known - target).min()
        assert np.abs(values[found].astype(np.float64) - target).min() == pytest.approx(best, abs=1e-6)


@given(st.integers(0, 500))
def test_a_drawing_is_bounded_and_repeated(count: int) -> None:
    rows = np.arange(count) * 3
    nobody = np.full(1500, -1, np.int32)
    drawn = draw(rows, nobody)
    assert drawn.size == min(count, A_ROW)
    assert drawn.tolist() == draw(rows, nobody).tolist() == sorted(set(drawn.tolist()))


@pytest.mark.parametrize("recipe", Recipe)
@given(
    values=arrays(np.float32, 40, elements=st.floats(0, 90, width=32)), low=st.integers(0, 300), gap=st.integers(1, 300)
)
def test_counts_of_a_split_are_those_of_the_classes(recipe: Recipe, values: np.ndarray, low: int, gap: int) -> None:
    small, large = low / 10, (low + gap) / 10
    settings = SETTINGS.model_copy(update={"recipe": recipe})
    splits = {split.factor: split for split in build_splits(settings)}
    found = Sorted.sort(values)
    codes = {
        Factor.BLUR: blur_level(values, small, large, recipe),
        Factor.POSE: pose_level(values, small, large, recipe),
    }
    for factor, made in codes.items():
        split = splits[factor]
        edge = dict(zip(split.thresholds, (small, large), strict=True))
        worst = found.count(split.worst.rule, [edge[split.worst.threshold]])[0]
        best = found.count(split.best.rule, [edge[split.best.threshold]])[0]
        assert (worst, best) == ((made == 0).sum(), (made == 2).sum())


@given(st.floats(0.01, 200), st.floats(0.001, 150))
def test_marks_hold_the_threshold_and_reach_from_end_to_end(top: float, threshold: float) -> None:
    ranked = Sorted.sort(np.array([top], np.float32))
    for score in (SCORES["sobel"], SCORES["abs_yaw_deg"]):
        axis = find_axis(score, ranked, [threshold])
        marks = list_marks(axis, [threshold])
        assert marks[0] == axis[0] == 0.0
        assert marks[-1] == axis[1] >= max(float(np.float32(top)), threshold)
        assert threshold in marks
        assert marks == sorted(set(marks))
        assert 250 <= len(marks) <= 2600


def test_marks_are_short_decimal_numbers() -> None:
    marks = list_marks((0.0, 1.0), [0.35])
    assert len(marks) == 1001
    assert [str(mark) for mark in marks[300:312:5]] == ["0.3", "0.305", "0.31"]


def test_a_middle_class_has_both_borders_and_its_middle() -> None:
    values = np.linspace(0, 1, 2001).astype(np.float32)
    split = build_splits(SETTINGS)[0]
    thresholds = SETTINGS.model_dump()
    ranked = Ranked.rank(values)
    nobody = np.full(values.size, -1, np.int32)
    kinds = pick_class(split, 1, ranked=ranked, codes=blur_level(values), people=nobody, thresholds=thresholds)
    assert set(kinds) == {Kind.RANDOM, Kind.BORDER, Kind.MIDDLE}
    border = values[kinds[Kind.BORDER]]
    assert np.allclose(np.sort(np.minimum(border - 0.35, 0.7 - border)), np.repeat(np.arange(6) * 0.0005, 2), atol=1e-6)
    assert np.abs(values[kinds[Kind.MIDDLE]] - 0.525).max() <= 0.0031
    assert values[pick_pool(ranked, (0.0, 1.0))].tolist() == pytest.approx(np.linspace(0, 1, 60), abs=2.6e-4)


def test_an_empty_class_and_one_without_scores_have_the_faces_there_are() -> None:
    values = np.full(30, np.nan, np.float32)
    pose = next(split for split in build_splits(SETTINGS) if split.factor is Factor.POSE)
    codes = np.full(30, NULL, np.int8)

    def pick() -> dict[Kind, np.ndarray]:
        ranked, nobody = Ranked.rank(values), np.full(30, -1, np.int32)
        return pick_class(pose, 0, ranked=ranked, codes=codes, people=nobody, thresholds=SETTINGS.model_dump())

    assert {kind: rows.size for kind, rows in pick().items()} == {Kind.ALL: 0}
    # As the released recipe has it, faces that were not found are profile.
    codes[:] = CLASSES[Factor.POSE].index("profile")
    assert {kind: rows.size for kind, rows in pick().items()} == {Kind.RANDOM: A_ROW}
    assert pick_pool(Ranked.rank(values), (0.0, 45.0)).size == 0


@given(st.lists(st.integers(-1, 5), max_size=2000), st.integers(1, 30), st.randoms(use_true_random=False))
def test_no_person_has_more_than_two_faces_in_a_row(people: list[int], count: int, random: Random) -> None:
    rows = list(range(len(people)))
    random.shuffle(rows)
    wanted, seen = [], Counter()
    for row in rows:
        seen[people[row]] += 1
        if people[row] < 0 or seen[people[row]] <= 2:
            wanted.append(row)
    assert first_of_people(np.array(rows, np.int64), np.array(people, np.int32), count).tolist() == wanted[:count]


def test_a_class_that_fits_into_a_row_is_shown_once_and_whole() -> None:
    values = np.concatenate([np.linspace(0.8, 0.9, A_ROW), np.linspace(0.4, 0.6, 50)]).astype(np.float32)[::-1].copy()
    split, same = build_splits(SETTINGS)[0], np.zeros(values.size, np.int32)
    given = {"ranked": Ranked.rank(values), "codes": blur_level(values), "people": same}
    clear, blurry = (pick_class(split, place, **given, thresholds=SETTINGS.model_dump()) for place in (2, 1))
    assert values[clear[Kind.ALL]].tolist() == sorted(values[values > 0.7].tolist())
    assert set(clear) == {Kind.ALL}
    # Whoever is on all pictures has two of a row.
    assert {kind: rows.size for kind, rows in blurry.items()} == {Kind.RANDOM: 2, Kind.BORDER: 2, Kind.MIDDLE: 2}
