"""A training in another memory layout, or compiled, moves its weights as one that is neither."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import torch

from training.quality.config import Terms, TrainingConfig
from training.quality.learner import QualityLearner
from training.quality.model import ModelConfig
from training.quality.objective import Targets
from training.trainer.checkpoint import Checkpoint, CheckpointFolder
from training.trainer.compilation import Compilation
from training.trainer.feeding import MicroBatch
from training.trainer.ranks import Ranks

if TYPE_CHECKING:
    from pathlib import Path

BATCH, HALF = 8, 3
PROCESSOR = torch.device("cpu")


def build(start: Checkpoint | None, *, channels_last: bool) -> QualityLearner:
    """A learner whose optimiser runs the kernel that a GPU has, which PyTorch has for processors too."""
    torch.set_num_threads(1)
    model = ModelConfig(tower="test-resnet", pretrained="")
    config = TrainingConfig(model=model, batch=BATCH, learning_rate=1e-3, channels_last=channels_last)
    learner = QualityLearner(config, Ranks(device=PROCESSOR), start)
    for group in learner._optimiser.param_groups:
        group["fused"] = True
    return learner


def draw(step: int, terms: int) -> MicroBatch:
    """A batch that depends on the step alone."""
    source = torch.Generator().manual_seed(step)
    targets = Targets(
        quality=torch.rand(BATCH, generator=source),
        classes=torch.randint(0, 2, (BATCH, 5), generator=source),
        rho=None,
    )
    images = torch.randint(0, 256, (BATCH, 112, 112, 3), dtype=torch.uint8, generator=source)
    flipped = torch.rand(BATCH, generator=source) < 0.5
    return MicroBatch(images=images, flipped=flipped, targets=targets, counts=(BATCH,) * terms, last=True)


def train(learner: QualityLearner, start: int, stop: int) -> torch.Tensor:
    """Take the steps, and return all weights that are trained, one after the other."""
    for step in range(start, stop):
        learner.forward_backward(draw(step, len(learner.objective.names)))
        learner.optimizer_step(1.0)
    return torch.cat([weight.detach().flatten() for weight in learner.networks.parameters()])


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_training_goes_on_in_the_other_layout(tmp_path: Path, channels_last: bool) -> None:
    folder = CheckpointFolder(root=tmp_path, run="0123456789ab")
    learner = build(None, channels_last=channels_last)
    middle = train(learner, 0, HALF)
    folder.save(Checkpoint(step=HALF, weights=learner.weights(), state=learner.state()))
    wanted = train(learner, HALF, 2 * HALF)
    same, other = (
        train(build(folder.load(), channels_last=layout), HALF, 2 * HALF)
        for layout in (channels_last, not channels_last)
    )
    assert torch.equal(same, wanted)
    # Convolutions of the two layouts differ in their last bits. Moments of wrong weights would give steps that have
    # little to do with the right ones.
    assert (other - wanted).norm() < 0.05 * (wanted - middle).norm()


def test_a_checkpoint_does_not_say_where_the_optimiser_runs() -> None:
    learner = build(None, channels_last=True)
    weights = train(learner, 0, 1)
    begun = Checkpoint(step=1, weights=learner.weights(), state=learner.state())
    assert {group["fused"] for group in begun.state["optimiser"]["param_groups"]} == {True}
    model = ModelConfig(tower="test-resnet", pretrained="")
    resumed = QualityLearner(TrainingConfig(model=model, batch=BATCH), Ranks(device=PROCESSOR), begun)
    assert {group["fused"] for group in resumed._optimiser.param_groups} == {False}
    assert torch.equal(train(resumed, 1, 1), weights)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: there is no g++")
def test_a_compiled_model_learns_the_same() -> None:
    """On a processor reduce-overhead is compiled like default; its CUDA graphs need a GPU."""
    torch.set_num_threads(1)
    model = ModelConfig(tower="test-vit", pretrained="")
    settings = {"model": model, "terms": Terms(confidence=False), "batch": BATCH, "learning_rate": 1e-3}
    plain, compiled = (
        QualityLearner(TrainingConfig(compiled=compilation, **settings), Ranks(device=PROCESSOR), None)
        for compilation in (Compilation.NO, Compilation.REDUCE_OVERHEAD)
    )
    torch._dynamo.utils.counters.clear()
    start = train(plain, 0, 0)
    found, wanted = train(compiled, 0, 2), train(plain, 0, 2)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]
    assert not torch.equal(found, wanted)
    assert (found - wanted).norm() < 0.01 * (wanted - start).norm()
    # What is saved has the names that it has without.
    assert compiled.weights().keys() == plain.weights().keys()
