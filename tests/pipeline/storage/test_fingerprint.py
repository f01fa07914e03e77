"""What decides an output decides its fingerprint, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage.fingerprint import DIGITS, StageSpec, changes

INDEX = StageSpec(name="index", version=1, data="d")
BLUR = StageSpec(name="blur", version=1, data="d", parameters={"edges": "matlab"}, upstream=(INDEX,))
POSE = StageSpec(name="pose", version=1, data="d", weights={"net": ("a" * 64,)}, upstream=(INDEX,))
LABELS = StageSpec(name="labels", version=1, data="d", parameters={"low": 0.35}, upstream=(INDEX, BLUR, POSE))


def test_fingerprint_is_short_hexadecimal_and_stable() -> None:
    assert len(BLUR.fingerprint) == DIGITS
    assert int(BLUR.fingerprint, 16) >= 0
    assert BLUR.fingerprint == replace(BLUR).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        replace(BLUR, version=2),
        replace(BLUR, data="e"),
        replace(BLUR, parameters={"edges": "python"}),
        replace(BLUR, weights={"net": ("b" * 64,)}),
        replace(BLUR, name="sharpness"),
        replace(BLUR, upstream=(replace(INDEX, version=2),)),
    ],
)
def test_every_field_enters(other: StageSpec) -> None:
    assert other.fingerprint != BLUR.fingerprint


def test_a_change_upstream_reaches_all_below_and_none_beside() -> None:
    blur = replace(BLUR, version=2)
    labels = replace(LABELS, upstream=(INDEX, blur, POSE))
    assert labels.fingerprint != LABELS.fingerprint
    assert POSE.fingerprint == labels.upstream[2].fingerprint


def test_closure_lists_each_stage_once_upstream_first() -> None:
    assert [s.name for s in LABELS.closure()] == ["index", "blur", "pose", "labels"]


def test_changes_name_the_field() -> None:
    before, after = LABELS.describe(), replace(LABELS, parameters={"low": 0.3}).describe()
    assert changes(before, after) == ["parameters.low: 0.35 -> 0.3"]
    new_weights = replace(POSE, weights={"net": ("b" * 64,)}).describe()
    assert changes(POSE.describe(), new_weights) == ["weights.net: aaaaaaaaaaaa -> bbbbbbbbbbbb"]


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_the_order_of_parameters_does_not_matter(parameters: dict[str, int | str]) -> None:
    turned = dict(reversed(parameters.items()))
    assert replace(BLUR, parameters=parameters).fingerprint == replace(BLUR, parameters=turned).fingerprint
    assert changes(replace(BLUR, parameters=parameters).describe(), replace(BLUR, parameters=turned).describe()) == []
