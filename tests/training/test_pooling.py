"""The pooling of trainings on a GPU gives what PyTorch's own gives, and so does its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.clip.backbone import build_clip, find_clip_config
from training.clip.pooling import HalvingPool, speed_up_pools


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 5, 7, 9), (3, 4, 2, 2)])
def test_means_and_gradient_are_pytorchs(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(shape, generator=generator, dtype=torch.float64).to(memory_format=torch.channels_last)
    found, wanted = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    ours, theirs = HalvingPool()(found), nn.AvgPool2d(2)(wanted)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-15)
    gradient = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    ours.backward(gradient)
    theirs.backward(gradient)
    torch.testing.assert_close(found.grad, wanted.grad, rtol=0, atol=1e-15)


def test_the_layout_stays() -> None:
    maps = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    halved = HalvingPool()(maps)
    assert halved.is_contiguous(memory_format=torch.channels_last)
    halved.sum().backward()
    assert maps.grad is not None
    assert maps.grad.is_contiguous(memory_format=torch.channels_last)


def test_every_pool_of_a_tower_is_replaced_and_the_weights_keep_their_names() -> None:
    plain, fast = (build_clip(find_clip_config("test-resnet"), seed=0).get_submodule("visual") for _ in range(2))
    speed_up_pools(fast)
    assert not [m for m in fast.modules() if isinstance(m, nn.AvgPool2d) and m.kernel_size != 1]
    assert [module for module in fast.modules() if isinstance(module, HalvingPool)]
    assert fast.state_dict().keys() == plain.state_dict().keys()
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(fast(images), plain(images), rtol=1e-5, atol=1e-6)


def test_other_pools_stay() -> None:
    network = nn.Sequential(nn.AvgPool2d(3), nn.AvgPool2d(2, stride=1), nn.AvgPool2d(2, padding=1))
    speed_up_pools(network)
    assert all(isinstance(module, nn.AvgPool2d) for module in network)
