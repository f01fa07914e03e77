"""Parts are computed once each, whatever becomes of the others or of the processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from labelers.runtime import device
from labelers.runtime.denormals import flushes_denormals
from labelers.runtime.device import VISIBLE, ProviderError
from pipeline.execution.dispatch import run_parts
from pipeline.storage.shards import Part
from tests.pipeline.noting import Note

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.execution.contract import PartOutcome

PARTS = [Part(shard=0, start=i, stop=i + 1) for i in range(12)]


def outcomes(work: Note, processes: int) -> dict[int, PartOutcome]:
    return {o.part.start: o for o in run_parts(work, PARTS, processes, lambda _: None)}


@pytest.mark.parametrize("processes", [1, 2])
def test_every_part_is_done_once(tmp_path: Path, processes: int) -> None:
    shown: list[int] = []
    found = list(run_parts(Note(folder=tmp_path), PARTS, processes, shown.append))
    assert sorted((o.part for o in found), key=lambda p: p.start) == PARTS
    assert all(10**7 < o.peak_bytes < 10**11 for o in found)
    assert len(list(tmp_path.iterdir())) == len(PARTS)
    assert shown[-1] == len(PARTS)
    assert shown == sorted(shown)


@pytest.mark.parametrize("processes", [1, 2])
def test_denormals_are_zero_where_parts_are_computed_and_only_there(tmp_path: Path, processes: int) -> None:
    assert all(o.figures["flushes"] for o in outcomes(Note(folder=tmp_path), processes).values())
    assert not flushes_denormals()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_part_that_fails_does_not_stop_the_others(tmp_path: Path, processes: int) -> None:
    found = outcomes(Note(folder=tmp_path, fails=(3, 7)), processes)
    assert {start for start, o in found.items() if o.error} == {3, 7}
    assert "part 3 is bad" in found[3].error


def test_processes_are_spread_over_the_gpus_that_are_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "5, 3,8")
    monkeypatch.setattr(device, "_count_gpus", lambda: 3)
    work = Note(folder=tmp_path, seconds=0.2)
    found = [o.figures for o in run_parts(work, PARTS, 4, lambda _: None, gpus=2)]
    by_process = {f["process"]: f["gpu"] for f in found}
    assert sorted(by_process.values()) == [3, 3, 5, 5]
    assert all(by_process[f["process"]] == f["gpu"] for f in found)


def test_more_gpus_than_there_are_is_an_error_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_count_gpus", lambda: 1)
    with pytest.raises(ProviderError, match=r"asked for 2 GPU\(s\), and CUDA shows 1"):
        list(run_parts(Note(folder=tmp_path), PARTS, 4, lambda _: None, gpus=2))
    assert not list(tmp_path.iterdir())


def test_a_part_that_kills_its_process_is_given_up_alone(tmp_path: Path) -> None:
    found = outcomes(Note(folder=tmp_path, kills=(2,)), 2)
    assert set(found) == set(range(12))
    assert [start for start, o in found.items() if o.error] == [2]
    assert "out of memory" in found[2].error


def test_a_process_killed_once_costs_nothing_but_its_part(tmp_path: Path) -> None:
    found = outcomes(Note(folder=tmp_path, seconds=0.1, kills_once=(5,)), 2)
    assert set(found) == set(range(12))
    assert not [o for o in found.values() if o.error]
    again = len(list(tmp_path.iterdir())) - len(PARTS)
    assert 1 <= again <= 2
