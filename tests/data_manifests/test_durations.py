"""Times as a person says them."""

from __future__ import annotations

import pytest

from data_manifests.durations import describe_time_left, describe_time_taken


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (5300, "88 min"), (7530, "2 h 6 min")],
)
def test_time_left_reads_well(seconds: float, text: str) -> None:
    assert describe_time_left(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.42, "0.4 s"), (10, "10 s"), (7530, "2 h 6 min")])
def test_time_taken_has_a_digit_more_where_it_is_short(seconds: float, text: str) -> None:
    assert describe_time_taken(seconds) == text
