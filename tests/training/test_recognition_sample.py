"""A softmax over a sample of the classes: what is drawn, what is computed of it, and what stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.tasks.recognition import describe_settings
from training.backbones.names import Backbone
from training.recognition.config import Margin, RecognitionConfig
from training.recognition.head import ClassHead, sample_classes
from training.recognition.learner import RecognitionLearner, Targets
from training.trainer.checkpoint import Checkpoint
from training.trainer.feeding import MicroBatch
from training.trainer.ranks import Ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALONE = Ranks(device=torch.device("cpu"))
LABELS = torch.tensor([0, 7, 7, 29])


def draw(step: int = 0, seed: int = 1, share: float = 0.1, rank: int = 0, ranks: int = 1) -> NDArray[np.int64]:
    return sample_classes(np.array([3, 3, 250, 990]), 1000, share, seed=seed, step=step, rank=rank, ranks=ranks)


def test_a_sample_holds_the_batch_and_others_by_chance() -> None:
    rows = draw()
    assert len(rows) == 100
    assert (np.diff(rows) > 0).all()
    assert {3, 250, 990} <= set(rows.tolist())
    assert np.array_equal(rows, draw())
    assert len(set(rows) & set(draw(step=1))) < 40
    assert len(set(rows) & set(draw(seed=2))) < 40
    drawn = np.bincount(np.concatenate([draw(step=step) for step in range(200)]), minlength=1000)
    others = np.delete(drawn, [3, 250, 990])
    assert drawn[[3, 250, 990]].tolist() == [200] * 3
    # Binomial: 200 draws of 97 in 997, mean 19.5, standard deviation 4.2.
    assert others.mean() == pytest.approx(200 * 97 / 997)
    assert others.std() == pytest.approx(4.2, abs=0.5)


def test_every_process_samples_its_own_classes() -> None:
    parts = [draw(rank=rank, ranks=3) for rank in range(3)]
    assert [len(part) for part in parts] == [33, 33, 33]
    assert 3 in parts[0]
    assert 250 in parts[0]
    assert 990 - 666 in parts[2]
    assert draw(share=1e-6).tolist() == [3, 250, 990]
    assert len(draw(share=1e-6, rank=1, ranks=3)) == 1
    assert np.array_equal(draw(share=1.0), np.arange(1000))


@pytest.mark.parametrize("margin", Margin)
def test_loss_is_that_of_the_chosen_columns_and_the_nearest_is_of_all(margin: Margin) -> None:
    torch.manual_seed(0)
    head = ClassHead(classes=30, dimension=8, margin=margin, size=0.3, scale=16.0, ranks=ALONE).double()
    vectors = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    sample = torch.tensor([0, 2, 7, 11, 20, 29])
    found = head(vectors, LABELS, sample)
    found.loss.mean().backward()
    cosines = functional.normalize(vectors.detach()) @ functional.normalize(head.weight.detach()).T
    own = cosines.gather(1, LABELS[:, None])
    hard = (own.acos() + 0.3).cos() if margin is Margin.ARCFACE else own - 0.3
    logits = 16.0 * cosines.scatter(1, LABELS[:, None], hard)[:, sample]
    expected = functional.cross_entropy(logits, torch.searchsorted(sample, LABELS), reduction="none")
    torch.testing.assert_close(found.loss.detach(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.ccs, own[:, 0])
    others = cosines.scatter(1, LABELS[:, None], -torch.inf)
    torch.testing.assert_close(found.nnccs, others.amax(1))
    assert not torch.equal(others.argmax(1), others[:, sample].argmax(1))
    assert head.weight.grad is None
    assert head.sampled is not None
    assert head.sampled.weight.grad is not None
    assert head.sampled.weight.grad.abs().sum(1).min() > 0


def test_a_sample_of_all_is_the_whole_softmax() -> None:
    torch.manual_seed(0)
    head = ClassHead(classes=30, dimension=8, margin=Margin.ARCFACE, size=0.5, scale=64.0, ranks=ALONE)
    vectors = torch.randn(4, 8)
    whole, sampled = head(vectors, LABELS), head(vectors, LABELS, torch.arange(30))
    for name in ("loss", "ccs", "nnccs"):
        torch.testing.assert_close(getattr(sampled, name), getattr(whole, name), rtol=0, atol=1e-6)


def test_what_takes_no_part_stays_and_the_rest_moves_as_by_sgd() -> None:
    """Two steps of two parts; beside it SGD by hand on the sampled rows, momentum and weight decay included."""
    torch.set_num_threads(1)
    config = RecognitionConfig(backbone=Backbone.MOBILEFACENET, sample_rate=0.2, accumulation=2, threads=1)
    learner = RecognitionLearner(config, 30, ALONE, None)
    images = torch.randint(0, 256, (4, 112, 112, 3), dtype=torch.uint8)
    weight, momentum = learner.head.weight.detach().clone(), torch.zeros(30, 512)
    for sample in (torch.tensor([0, 2, 7, 29]), torch.tensor([0, 3, 7, 11, 29])):
        for part in range(2):
            targets = Targets(labels=LABELS, first=0, sample=sample)
            flipped = torch.zeros(4, dtype=torch.bool)
            learner.forward_backward(
                MicroBatch(images=images, flipped=flipped, targets=targets, counts=(8,), last=part == 1)
            )
        assert learner.head.sampled is not None
        gradient = learner.head.sampled.weight.grad
        assert gradient is not None
        momentum[sample] = 0.9 * momentum[sample] + gradient + 5e-4 * weight[sample]
        weight[sample] -= 0.1 * momentum[sample]
        learner.optimizer_step(1.0)
        assert learner.head.sampled is None
        torch.testing.assert_close(learner.head.weight.detach(), weight, rtol=0, atol=1e-6)
        torch.testing.assert_close(learner.state()["momentum"]["head.weight"], momentum, rtol=0, atol=1e-6)
    untouched = [row for row in range(30) if row not in {0, 2, 3, 7, 11, 29}]
    fresh = RecognitionLearner(config, 30, ALONE, None)
    assert torch.equal(learner.head.weight[untouched], fresh.head.weight[untouched])
    start = Checkpoint(step=2, weights=learner.weights(), state=learner.state())
    again = RecognitionLearner(config, 30, ALONE, start)
    assert torch.equal(again.state()["momentum"]["head.weight"], learner.state()["momentum"]["head.weight"])


def test_a_run_over_all_classes_keeps_its_name() -> None:
    config = RecognitionConfig(threads=1)
    assert config.fingerprint("0" * 12) == "59232364dfef"
    assert RecognitionConfig(threads=1, sample_rate=0.5).fingerprint("0" * 12) != "59232364dfef"
    assert "sample_rate" not in describe_settings({"sample_rate": 1.0})
    assert describe_settings({"sample_rate": 0.1})["sample_rate"] == 0.1
    with pytest.raises(ValueError, match="sample_rate must be above 0"):
        RecognitionConfig(sample_rate=0.0)
