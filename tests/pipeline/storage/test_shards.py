"""Shards and parts cover every row once, within their limits."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage.shards import MAX_PART_ROWS, MAX_SHARDS, MIN_SHARD_ROWS, cut, plan_parts, plan_shards


@given(st.integers(0, 50_000_000))
def test_shards_cover_all_images_in_order(images: int) -> None:
    shards = plan_shards(images)
    assert shards[0].start == 0
    assert shards[-1].stop == images
    assert all(a.stop == b.start for a, b in pairwise(shards))
    assert 1 <= len(shards) <= MAX_SHARDS
    assert len(shards) == 1 or min(map(len, shards)) >= MIN_SHARD_ROWS


@given(st.integers(1, 100_000))
def test_parts_cover_a_shard_and_stay_small(rows: int) -> None:
    parts = plan_parts(3, rows)
    assert [p.start for p in parts] == [0, *[p.stop for p in parts[:-1]]]
    assert parts[-1].stop == rows
    assert all(0 < p.rows <= MAX_PART_ROWS for p in parts)
    assert {p.shard for p in parts} == {3}


def test_sizes_known() -> None:
    assert len(plan_shards(256)) == 1
    assert len(plan_shards(10_743)) == 10
    assert len(plan_shards(5_822_653)) == 96
    assert len(plan_parts(0, 60_653)) == 60


@given(st.integers(0, 10_000), st.integers(1, 200))
def test_pieces_differ_by_at_most_one(count: int, pieces: int) -> None:
    sizes = [len(r) for r in cut(count, pieces)]
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
