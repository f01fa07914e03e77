"""The trainer knows a learner by its interface alone: here one that learns the mean brightness of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from training.quality.config import TrainingConfig
from training.trainer.feeding import MicroBatch
from training.trainer.ranks import Ranks
from training.trainer.run_folder import RunFolder
from training.trainer.trainer import Outcome, Trainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from training.trainer.checkpoint import Checkpoint
    from training.trainer.sampler import Work

RANKS = Ranks(device=torch.device("cpu"))
CONFIG = TrainingConfig(batch=4, epochs_one=2, epochs_two=1, threads=1, checkpoint_every=2)


class Pictures:
    """Ten pictures, each of one level."""

    def __len__(self) -> int:
        return 10

    def decode_into(self, target: np.ndarray, row: int) -> None:
        target[:] = 20 * row


@dataclass(frozen=True)
class Levels:
    level: torch.Tensor

    def change(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Levels:
        return Levels(change(self.level))


class MeanLearner:
    """One weight, moved towards the mean of what it has seen."""

    terms = ("distance",)

    def __init__(self, start: Checkpoint | None) -> None:
        self.weight = torch.zeros(1) if start is None else start.weights["weight"]
        self.gradient = torch.zeros(1)

    def begin_epoch(self, history: list[list[float]]) -> None:
        self.epochs = len(history)

    def rate(self, step: int, steps: int) -> float:
        return 1 / (1 + step // steps)

    def forward_backward(self, micro: MicroBatch[Levels]) -> torch.Tensor:
        assert torch.equal(micro.images.float().mean((1, 2, 3)), micro.targets.level)
        share = (self.weight - micro.targets.level).sum() / micro.counts[0]
        self.gradient += share
        return share[None].double()

    def optimizer_step(self, rate: float) -> None:
        self.weight = self.weight - rate * self.gradient
        self.gradient = torch.zeros(1)

    def sync_buffers(self) -> None:
        pass

    def losses(self, means: list[float]) -> dict[str, float]:
        return {"distance": means[0]}

    def curves(self, rate: float) -> dict[str, float]:
        return {"rate": rate}

    def weights(self) -> dict[str, torch.Tensor]:
        return {"weight": self.weight}

    def state(self) -> dict[str, Any]:
        return {}


def assemble(work: Work, images: torch.Tensor) -> MicroBatch[Levels]:
    flipped = torch.from_numpy(work.flipped)
    targets = Levels(torch.from_numpy(20.0 * work.rows).float())
    return MicroBatch(images=images, flipped=flipped, targets=targets, counts=(len(work.whole),), last=work.last)


def train(folder: Path, limit: int | None) -> tuple[Outcome, Trainer, list[np.ndarray]]:
    """The training that lies in a folder, and how far each picture is from the weight at its end."""
    found: list[np.ndarray] = []
    trainer = Trainer(CONFIG, Pictures(), RANKS, RunFolder(root=folder, fingerprint="0123456789ab"), MeanLearner)

    def phases() -> None:
        trainer.train(3 * trainer.epoch_steps, assemble, "the only phase")
        found.append(
            trainer.predict(Pictures(), lambda images: images[:, 0, 0, :1] - trainer.learner.weight, "pictures")
        )

    return trainer.run(phases, limit), trainer, found


def test_another_learner_is_trained_and_taken_up_again(tmp_path: Path) -> None:
    outcome, whole, (distances,) = train(tmp_path / "whole", None)
    assert (outcome, whole.step, whole.learner.epochs) == (Outcome.FINISHED, 9, 3)
    assert abs(float(whole.learner.weight) - 90) < 15
    np.testing.assert_allclose(distances[:, 0], np.arange(0, 200, 20) - whole.learner.weight.numpy(), rtol=1e-6)
    for limit in (1, 5, 6):
        outcome, _, found = train(tmp_path / "parts", limit)
        assert (outcome, found) == (Outcome.LIMITED, [])
    outcome, resumed, _ = train(tmp_path / "parts", None)
    assert outcome is Outcome.FINISHED
    assert torch.equal(resumed.learner.weight, whole.learner.weight)
    assert resumed.history == whole.history
