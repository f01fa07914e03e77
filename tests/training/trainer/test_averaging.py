"""The average of weights against plain arithmetic, and that a network gets its own weights back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.trainer.averaging import WeightAverage


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)


def train(model: nn.Module, average: WeightAverage, steps: int) -> list[torch.Tensor]:
    """Change the weights as a training would; the first filter after every step."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for _ in range(steps):
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimiser.step()
        average.update()
        seen.append(model[0].weight.detach().clone())
    return seen


def test_every_step_has_the_share_that_the_decay_gives_it() -> None:
    model = network()
    expected = model[0].weight.detach().clone()
    average = WeightAverage(model, 0.6)
    seen = train(model, average, 25)
    for number, weight in enumerate(seen, 1):
        share = max(0.4, 9 / (10 + number))
        expected = (1 - share) * expected + share * weight
    with average.in_place():
        torch.testing.assert_close(model[0].weight, expected)
    assert model[0].weight.equal(seen[-1])


def test_late_steps_are_pytorchs_own_average() -> None:
    model = network()
    average = WeightAverage(model, 0.5, {"steps": 100, "averages": model.state_dict()})
    peer = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    peer.update_parameters(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimiser.step()
        average.update()
        peer.update_parameters(model)
    with average.in_place():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value, peer.module.state_dict()[name])


def test_what_was_evaluated_and_failed_has_its_weights_back_and_goes_on_from_its_state() -> None:
    model = network()
    average = WeightAverage(model, 0.9)
    train(model, average, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyError), average.in_place():
        raise KeyError
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    again = WeightAverage(model, 0.9, average.state())
    for each in (average, again):
        each.update()
    assert all(one.equal(other) for one, other in zip(average.averages, again.averages, strict=True))
