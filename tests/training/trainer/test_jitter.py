"""Moved faces against padding and cutting, and that a batch is moved alike however it is shared out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.trainer.jitter import draw_shifts, shift
from training.trainer.sampler import Sampler


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_a_move_is_padding_and_cutting(down: int, right: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (9, 12, 3), np.uint8)
    padded = np.pad(image, ((5, 5), (5, 5), (0, 0)), mode="edge")
    moved = image[None].copy()
    shift(moved, np.array([[down, right]]))
    assert (moved[0] == padded[5 - down : 14 - down, 5 - right : 17 - right]).all()


@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_move_every_image_as_one_would(ranks: int) -> None:
    def moves(rank: int, of: int, parts: int) -> dict[tuple[int, int], list[int]]:
        sampler = Sampler(images=50, batch=13, seed=4, rank=rank, ranks=of, parts=parts)
        return {
            (work.step, int(row)): moved.tolist()
            for work in sampler.work(0, 6)
            for row, moved in zip(work.rows, draw_shifts(work, 2, seed=4), strict=True)
        }

    one = moves(0, 1, 1)
    shared = {place: moved for rank in range(ranks) for place, moved in moves(rank, ranks, 2).items()}
    assert shared == one
    values = np.array(list(one.values()))
    assert (values.min(), values.max()) == (-2, 2)
    assert len({tuple(moved) for moved in one.values()}) > 15
    # An image is moved elsewhere each time that it is seen.
    assert any(one[4, row] != moved for (step, row), moved in one.items() if (4, row) in one and step < 4)
