"""Micro-batches travel one ahead, and arrive as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from training.quality.objective import Targets
from training.trainer.cores import share_of_cores
from training.trainer.feeding import MicroBatch, send_ahead

if TYPE_CHECKING:
    from collections.abc import Iterator


def draw(number: int, *, rho: bool) -> MicroBatch:
    source = torch.Generator().manual_seed(number)
    targets = Targets(
        quality=torch.rand(4, generator=source),
        classes=torch.randint(-1, 2, (4, 5), generator=source),
        rho=torch.rand(4, generator=source) if rho else None,
    )
    images = torch.randint(0, 256, (4, 112, 112, 3), dtype=torch.uint8, generator=source)
    return MicroBatch(
        images=images, flipped=images[:, 0, 0, 0] > 99, targets=targets, counts=(number,), last=number % 2 == 1
    )


@pytest.mark.parametrize("rho", [False, True])
def test_one_travels_while_the_one_before_is_learned(rho: bool) -> None:
    taken: list[int] = []

    def source() -> Iterator[MicroBatch]:
        for number in range(4):
            taken.append(number)
            yield draw(number, rho=rho)

    ahead = []
    for number, micro in enumerate(send_ahead(source(), torch.device("cpu"))):
        ahead.append(len(taken))
        wanted = draw(number, rho=rho)
        assert (micro.counts, micro.last) == (wanted.counts, wanted.last)
        for name in ("images", "flipped"):
            assert torch.equal(getattr(micro, name), getattr(wanted, name))
        assert torch.equal(micro.targets.quality, wanted.targets.quality)
        assert torch.equal(micro.targets.classes, wanted.targets.classes)
        assert (micro.targets.rho is None) is not rho
        assert not rho or torch.equal(micro.targets.rho, wanted.targets.rho)
    assert ahead == [2, 3, 4, 4]


def test_nothing_to_send_is_nothing() -> None:
    assert list(send_ahead([], torch.device("cpu"))) == []


@pytest.mark.parametrize(
    ("cores", "processes", "threads"), [(1, "1", 1), (6, "1", 6), (6, "2", 3), (2, "8", 1), (96, "8", 8), (96, "4", 8)]
)
def test_readers_share_the_cores(monkeypatch: pytest.MonkeyPatch, cores: int, processes: str, threads: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert share_of_cores() == threads
