"""Which people are held out of a training: a function of their numbers alone, so that anyone finds the same ones.

The fold of a person is SplitMix64 of the identity, modulo the number of folds: no seed, no state, no list to keep. It
depends on nothing but the number that the data set gives the person, so an evaluation that knows "fold 0 of 5" holds
exactly the people that a training left out, without the run. About one person in N is in each of N folds.

An image of no known identity (-1) is in no fold: nobody knows whom it shows, so it can neither be promised to be
unseen nor be compared with another image of the person.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import BeforeValidator

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_FOLD = -1
"""The fold of an image whose person is not known."""

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_STEPS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST = np.uint64(31)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One of several parts of all people.

    Attributes:
        number: from 0.
        folds: into how many parts the people are divided, two or more.
    """

    number: int
    folds: int

    def __post_init__(self) -> None:
        if self.folds < 2 or not 0 <= self.number < self.folds:
            raise ValueError(f"there is no fold {self}: of N folds, two or more, the first is 0/N and the last N-1/N")

    def __str__(self) -> str:
        return f"{self.number}/{self.folds}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `K/N`; ValueError if it is anything else."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None:
            raise ValueError(f"{text!r} is not a fold: give its number and how many there are, such as 0/5")
        return cls(number=int(found[1]), folds=int(found[2]))

    def holds(self, identities: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Bool [N]: which images, int32 identities [N], show people of this fold; none of those not known."""
        held: NDArray[np.bool_] = fold_of(identities, self.folds) == self.number
        return held


def _read_fold(given: object) -> object:
    """A fold from its text; anything else stays."""
    return Fold.parse(given) if isinstance(given, str) else given


MaybeFold = Annotated[Fold | None, BeforeValidator(_read_fold)]
"""A fold, or nothing, as a setting: its text is read too."""


def fold_of(identities: NDArray[np.int32], folds: int) -> NDArray[np.int64]:
    """The fold of every image's person.

    Args:
        identities: int32 [N]; negative where the person is not known.
        folds: how many there are.

    Returns:
        int64 [N], 0 to folds - 1, and -1 where the person is not known.
    """
    found = (hash_numbers(identities.astype(np.uint64)) % np.uint64(folds)).astype(np.int64)
    return np.where(identities < 0, NO_FOLD, found)


def hash_numbers(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The first output of SplitMix64 with each number as its state, uint64 [N].

    The generator of Steele, Lea and Flood (OOPSLA 2014) with the constants of Vigna's splitmix64.c.
    """
    mixed = numbers + _INCREMENT  # arrays of uint64 wrap around
    for shift, factor in _STEPS:
        mixed = (mixed ^ (mixed >> shift)) * factor
    return mixed ^ (mixed >> _LAST)
