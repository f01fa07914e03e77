"""A checkpoint comes back bit for bit, or it is skipped: torn, changed, foreign or poisoned ones are never believed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from data_manifests.storage import atomic as files
from data_manifests.storage.atomic import sha256_of
from training.trainer.checkpoint import SEAL, STATE, WEIGHTS, Checkpoint, CheckpointError, CheckpointFolder

if TYPE_CHECKING:
    from collections.abc import Callable


def make_checkpoint(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    convolution = torch.randn(8, 3, 5, 5, generator=generator).to(memory_format=torch.channels_last)
    state = {
        "optimiser": {"state": {0: {"exp_avg": convolution * 2, "step": torch.tensor(float(step))}}},
        "history": [[0.1, 1 / 3]],
        "source": "",
        "ranks": [{"sums": torch.tensor([1 / 7], dtype=torch.float64), "random": {"cpu": torch.get_rng_state()}}],
    }
    return Checkpoint(step=step, weights={"model.w": convolution, "model.s": torch.tensor(2.0)}, state=state)


@pytest.fixture
def three_steps(tmp_path: Path) -> CheckpointFolder:
    folder = CheckpointFolder(root=tmp_path / "checkpoints", run="run-a", keep=3)
    for step in (10, 20, 30):
        folder.save(make_checkpoint(step))
    return folder


def folder_of(folder: CheckpointFolder, step: int) -> Path:
    return folder.root / f"step-{step:09d}"


def test_everything_comes_back_bit_for_bit(three_steps: CheckpointFolder) -> None:
    found, expected = three_steps.load(), make_checkpoint(30)
    assert found is not None
    assert found.step == 30
    assert found.weights.keys() == expected.weights.keys()
    for name, tensor in expected.weights.items():
        assert torch.equal(found.weights[name], tensor)
    moments = found.state["optimiser"]["state"][0]["exp_avg"]
    wanted = expected.state["optimiser"]["state"][0]["exp_avg"]
    assert torch.equal(moments, wanted)
    # Other strides would be summed in another order.
    assert moments.stride() == wanted.stride()
    assert found.state["history"] == [[0.1, 1 / 3]]
    assert torch.equal(found.state["ranks"][0]["sums"], torch.tensor([1 / 7], dtype=torch.float64))
    assert found.weights_sha256 == sha256_of(folder_of(three_steps, 30) / WEIGHTS)


def test_no_checkpoint_yet_is_no_error(tmp_path: Path) -> None:
    assert CheckpointFolder(root=tmp_path / "none", run="r").load() is None
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "notes.txt").write_text("x")
    assert CheckpointFolder(root=tmp_path / "some", run="r").load() is None


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(root=tmp_path, run="r", keep=2)
    for step in (1, 2, 3, 10, 1_000_000):
        folder.save(make_checkpoint(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000010", "step-001000000"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("name", [WEIGHTS, STATE, SEAL])
@pytest.mark.parametrize("damage", [_cut, _flip, _empty, Path.unlink])
def test_a_torn_checkpoint_gives_way_to_the_one_before(
    three_steps: CheckpointFolder, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], None]
) -> None:
    damage(folder_of(three_steps, 30) / name)
    with caplog.at_level(logging.WARNING):
        found = three_steps.load()
    assert found is not None
    assert found.step == 20
    assert "step-000000030" in caplog.text


@pytest.mark.parametrize("content", ["[]", "null", '{"format": "other"}', '{"format": "fiqa-checkpoint-1"}', "{"])
def test_a_strange_seal_is_skipped(three_steps: CheckpointFolder, content: str) -> None:
    (folder_of(three_steps, 30) / SEAL).write_text(content)
    found = three_steps.load()
    assert found is not None
    assert found.step == 20


def test_when_none_can_be_used_one_error_says_why(three_steps: CheckpointFolder) -> None:
    _cut(folder_of(three_steps, 10) / STATE)
    (folder_of(three_steps, 20) / SEAL).unlink()
    _flip(folder_of(three_steps, 30) / WEIGHTS)
    with pytest.raises(CheckpointError) as caught:
        three_steps.load()
    text = str(caught.value)
    assert "state.pt is not as it was written" in text
    assert "never finished" in text
    assert "another output folder" in text


def test_a_checkpoint_of_another_run_is_skipped_and_left_alone(three_steps: CheckpointFolder) -> None:
    other = CheckpointFolder(root=three_steps.root, run="run-b", keep=1)
    with pytest.raises(CheckpointError, match="belongs to the run run-a"):
        other.load()
    other.save(make_checkpoint(5))
    other.save(make_checkpoint(6))
    found = other.load()
    assert found is not None
    assert found.step == 6
    mine = three_steps.load()
    assert mine is not None
    assert mine.step == 30


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(three_steps: CheckpointFolder, tmp_path: Path) -> None:
    folder, target = folder_of(three_steps, 30), tmp_path / "ran"
    torch.save({"optimiser": _Touch(target)}, folder / STATE)
    seal = json.loads((folder / SEAL).read_text())
    seal["sha256"][STATE] = sha256_of(folder / STATE)
    (folder / SEAL).write_text(json.dumps(seal))
    found = three_steps.load()
    assert found is not None
    assert found.step == 20
    assert not target.exists()
    torch.load(folder / STATE, weights_only=False)
    assert target.exists()  # so the poison was real


@pytest.mark.parametrize("survived", range(4))
def test_a_crash_at_any_point_of_saving_leaves_the_last_one(
    three_steps: CheckpointFolder, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """The process ends while the n-th file is flushed to the disk; the three files and the folder make four."""
    flushed = 0
    flush = files.os.fsync

    def end_here(handle: int) -> None:
        nonlocal flushed
        if flushed == 2 * survived:  # every file is flushed, and then its folder
            raise KeyboardInterrupt
        flushed += 1
        flush(handle)

    monkeypatch.setattr(files.os, "fsync", end_here)
    with pytest.raises(KeyboardInterrupt):
        three_steps.save(make_checkpoint(40))
    monkeypatch.undo()
    found = three_steps.load()
    assert found is not None
    assert found.step == (40 if survived == 3 else 30)
    three_steps.save(make_checkpoint(50))
    assert len(list(three_steps.root.iterdir())) == 3
