"""The folds of people are the same everywhere and for ever: fixed numbers, and what follows from the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_manifests.folds import Fold, fold_of, hash_numbers

GAMMA = 0x9E3779B97F4A7C15
PUBLISHED = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821)
"""What SplitMix64 gives from the state 1234567, as its public implementations print it."""


def plain_hash(number: int) -> int:
    """The generator in Python's whole numbers."""
    mask = 2**64 - 1
    z = (number + GAMMA) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_the_hash_is_the_published_generator() -> None:
    states = np.array([(1234567 + step * GAMMA) % 2**64 for step in range(5)], np.uint64)
    assert hash_numbers(states).tolist() == list(PUBLISHED)
    assert hash_numbers(np.zeros(1, np.uint64)).tolist() == [0xE220A8397B1DCDAF]


def test_the_folds_of_the_first_people_never_change() -> None:
    people = np.arange(20, dtype=np.int32)
    assert fold_of(people, 5).tolist() == [0, 0, 0, 3, 3, 3, 2, 2, 2, 3, 1, 3, 3, 0, 3, 1, 0, 4, 0, 1]
    assert fold_of(np.array([85741, 2**31 - 1], np.int32), 10).tolist() == [3, 7]


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=30), st.integers(2, 2**31))
def test_the_fold_is_the_hash_modulo_the_folds(people: list[int], folds: int) -> None:
    wanted = [plain_hash(person) % folds if person >= 0 else -1 for person in people]
    assert fold_of(np.array(people, np.int32), folds).tolist() == wanted


def test_the_folds_are_about_equally_large() -> None:
    counts = np.bincount(fold_of(np.arange(85742, dtype=np.int32), 5))
    # Four standard deviations of a binomial of 85,742 draws at 1/5.
    np.testing.assert_allclose(counts, 85742 / 5, atol=4 * (85742 * 0.16) ** 0.5)


@given(st.integers(2, 9), st.lists(st.integers(-2, 500), min_size=1, max_size=50))
def test_every_known_person_is_in_one_fold_and_an_unknown_one_in_none(folds: int, people: list[int]) -> None:
    identities = np.array(people, np.int32)
    held = np.stack([Fold(number=number, folds=folds).holds(identities) for number in range(folds)])
    assert (held.sum(0) == (identities >= 0)).all()


def test_a_fold_is_read_as_it_is_written() -> None:
    fold = Fold.parse("2/5")
    assert (fold.number, fold.folds) == (2, 5)
    assert str(fold) == "2/5"


@pytest.mark.parametrize(
    "text", ["", "5", "5/5", "0/1", "0/0", "-1/5", "1/5/6", " 0/5", "0/5\n", "a/b", "٣/5", "0/1e3"]
)
def test_what_is_no_fold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a fold|there is no fold"):
        Fold.parse(text)
