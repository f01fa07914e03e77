"""Faces of several people: no person fills a row alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

A_ROW = 12
"""Faces that stand beside each other on a wide page."""
A_PERSON = 2
"""Faces of one person in a row at most."""
NEAR = 64
"""Times as many images as are wanted are looked at, at first."""


def first_of_people(rows: NDArray[np.int64], people: NDArray[np.int32], count: int = A_ROW) -> NDArray[np.int64]:
    """The first images of a list of which no person has more than A_PERSON.

    Args:
        rows: places of images, the most wanted first.
        people: whom every image shows, [N]; negative where nobody knows.
        count: how many are wanted; fewer where there are not so many people.
    """
    size = NEAR * count
    while True:
        head = rows[:size]
        kept: NDArray[np.int64] = head[_times_before(people[head]) < A_PERSON]
        if kept.size >= count or size >= rows.size:
            return kept[:count]
        size *= 8


def _times_before(people: NDArray[np.int32]) -> NDArray[np.int64]:
    """How often each person comes before, int64 [N]; 0 for whom nobody knows."""
    order = np.argsort(people, kind="stable")
    ordered = people[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])[: people.size]
    times = np.empty(people.size, np.int64)
    times[order] = np.arange(people.size) - np.repeat(begins, np.diff(np.r_[begins, people.size]))
    times[people < 0] = 0
    return times
