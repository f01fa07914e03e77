"""Every image once an epoch, however the batches are shared out, and the same batches from any step on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.trainer.sampler import Sampler, part_of

samplers = st.builds(
    Sampler, images=st.integers(1, 600), batch=st.integers(1, 70), seed=st.integers(0, 2**32)
)  # fmt: skip


@given(samplers, st.integers(0, 30))
def test_every_row_stands_in_one_batch_of_an_epoch(sampler: Sampler, number: int) -> None:
    epoch = sampler.epoch(number)
    rows = np.concatenate([epoch.batch(step) for step in range(sampler.steps)])
    assert sorted(rows) == list(range(sampler.images))


@given(samplers)
def test_batches_are_full_but_the_last_two_which_are_alike(sampler: Sampler) -> None:
    sizes = np.diff(sampler.bounds())
    assert len(sizes) == sampler.steps == -(-sampler.images // sampler.batch)
    assert (sizes[:-2] == sampler.batch).all()
    assert sizes.max() <= sampler.batch
    assert abs(sizes[-1] - sizes[-2:][0]) <= 1
    assert sampler.smallest == sizes.min()
    assert 2 * sampler.smallest >= min(sampler.batch, 2 * sampler.images)


@given(st.integers(1, 300), st.integers(1, 12), st.data())
def test_parts_are_contiguous_and_differ_by_one_at_most(count: int, parts: int, data: st.DataObject) -> None:
    rows = np.arange(count)
    if count < parts:
        with pytest.raises(ValueError, match="cannot be cut"):
            part_of(rows, data.draw(st.integers(0, parts - 1)), parts)
        return
    cut = [part_of(rows, part, parts) for part in range(parts)]
    assert np.concatenate(cut).tolist() == rows.tolist()
    assert {len(part) for part in cut} <= {count // parts, count // parts + 1}


@given(st.integers(24, 300), st.integers(24, 70), st.integers(1, 4), st.integers(1, 3), st.data())
def test_the_ranks_share_every_batch_and_resume_anywhere(
    images: int, batch: int, ranks: int, parts: int, data: st.DataObject
) -> None:
    sampler = Sampler(images=images, batch=batch, seed=data.draw(st.integers(0, 99)))
    shares = [replace(sampler, rank=rank, ranks=ranks, parts=parts) for rank in range(ranks)]
    end = 2 * sampler.steps
    work = [list(share.work(0, end)) for share in shares]
    assert {len(items) for items in work} == {end * parts}
    for step in range(end):
        items = [w for own in work for w in own[step * parts : (step + 1) * parts]]
        number, place = divmod(step, sampler.steps)
        expected = sampler.epoch(number).batch(place)
        assert np.concatenate([w.rows for w in items]).tolist() == expected.tolist()
        assert all(w.whole.tolist() == expected.tolist() for w in items)
        assert [w.last for w in items] == ([False] * (parts - 1) + [True]) * ranks
        for w in items:
            assert (w.flipped == sampler.epoch(number).flipped[w.rows]).all()
    start = data.draw(st.integers(0, end))
    later = list(shares[0].work(start, end))
    for expected_work, found in zip(work[0][start * parts :], later, strict=True):
        assert found.rows.tolist() == expected_work.rows.tolist()
        assert found.flipped.tolist() == expected_work.flipped.tolist()


def test_epochs_and_seeds_differ_and_half_of_the_images_are_mirrored() -> None:
    sampler = Sampler(images=4000, batch=256, seed=3)
    first, second = sampler.epoch(0), sampler.epoch(1)
    other = Sampler(images=4000, batch=256, seed=4).epoch(0)
    for one, two in ((first, second), (first, other)):
        assert (one.order == two.order).mean() < 0.01
        assert 0.4 < (one.flipped == two.flipped).mean() < 0.6
    assert 0.45 < first.flipped.mean() < 0.55


def test_the_stream_is_the_one_that_runs_were_begun_with() -> None:
    """A change here would make every run that waits to go on see other batches."""
    epoch = Sampler(images=10, batch=4, seed=323).epoch(2)
    assert epoch.order.tolist() == ORDER
    assert epoch.flipped.astype(int).tolist() == FLIPPED
    assert epoch.bounds == (0, 4, 7, 10)


ORDER = [6, 2, 4, 0, 8, 1, 3, 7, 9, 5]
FLIPPED = [0, 0, 0, 0, 1, 1, 0, 1, 0, 1]


def test_too_small_a_batch_for_the_processes_is_an_error() -> None:
    with pytest.raises(ValueError, match="raise the batch"):
        Sampler(images=9, batch=8, seed=0, ranks=3, parts=2)


@pytest.mark.parametrize("wrong", [{"images": 0}, {"batch": 0}, {"seed": -1}])
def test_impossible_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        Sampler(**{"images": 4, "batch": 2, "seed": 0, **wrong})


def test_every_process_knows_what_the_others_compute_at_the_same_time() -> None:
    samplers = [Sampler(images=23, batch=9, seed=1, rank=rank, ranks=2, parts=2) for rank in range(2)]
    for works in zip(*(sampler.work(1, 7) for sampler in samplers), strict=True):
        together = np.concatenate([work.rows for work in works])
        for work in works:
            np.testing.assert_array_equal(work.together, together)
            np.testing.assert_array_equal(together[work.first : work.first + len(work.rows)], work.rows)
