"""The line of a training: losses, speed, and the time that is left."""

from __future__ import annotations

import logging

import pytest

from training.trainer.progress import TrainingProgress


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_speed_and_time_left_do_not_count_pauses_and_what_was_done_before() -> None:
    clock = Clock()
    with TrainingProgress(total=110, done=10, clock=clock) as meter:
        for _ in range(4):
            clock.now += 2.0
            meter.advance(64)
        clock.now += 500.0
        meter.resume()
        clock.now += 2.0
        meter.advance(64)
        assert meter.speed == pytest.approx(32.0)
        text = meter.text("phase one, epoch 1 of 25", {"total": 1.5, "quality": 0.25})
    assert text == ("phase one, epoch 1 of 25, step 15 of 110, total 1.5000, quality 0.2500, 32 images/s, 3 min left")


def test_plain_lines_come_every_ten_seconds_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), TrainingProgress(total=24, clock=clock) as meter:
        for _ in range(24):
            clock.now += 1.0
            meter.advance(8)
            meter.show("phase one", {})
    steps = [record.getMessage().split(",")[1].strip() for record in caplog.records]
    assert steps == ["step 10 of 24", "step 20 of 24", "step 24 of 24"]


def test_one_process_of_several_speaks(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), TrainingProgress(total=2, shown=False, clock=clock) as meter:
        for _ in range(2):
            clock.now += 60.0
            meter.advance(8)
            meter.show("phase one", {})
            meter.note("confidence")
    assert not caplog.records
