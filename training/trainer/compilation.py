"""Whether a network is compiled while it is trained. Loads no PyTorch, so that a plan can read settings."""

from __future__ import annotations

import shutil
from enum import StrEnum
from typing import TYPE_CHECKING

from labelers.runtime.device import Device

if TYPE_CHECKING:
    from torch import nn

WORTH_IMAGES = 2_000_000
"""An RN50 takes one to two minutes to compile on 16 cores, for each of the two or three sizes of batches, and is then
faster by 0.1 ms an image on an H100."""


class Compilation(StrEnum):
    """Whether torch.compile compiles the model, and its mode."""

    AUTO = "auto"
    """By the default mode on a GPU that is to see two million images or more; else not."""
    NO = "no"
    DEFAULT = "default"
    REDUCE_OVERHEAD = "reduce-overhead"
    """By CUDA graphs: for batches so small that a GPU waits for the processor to start its kernels."""


def compile_network(network: nn.Module, asked: Compilation, *, device: str, images: int) -> bool:
    """Let a network be compiled when it is called first, if that is asked for.

    Args:
        network: on its device.
        asked: the mode.
        device: where it is trained.
        images: how many it is to see in all, each as often as it is seen.

    Returns:
        Whether it will be compiled.
    """
    mode = asked
    if asked is Compilation.AUTO:
        worth = device == Device.CUDA and images >= WORTH_IMAGES and has_compiler()
        mode = Compilation.DEFAULT if worth else Compilation.NO
    if mode is Compilation.NO:
        return False
    # Batches have two or three sizes, and each gets code, and with reduce-overhead CUDA graphs, of its own.
    network.compile(mode=mode.value, dynamic=False)
    return True


def has_compiler() -> bool:
    """Whether there is a C compiler, without which PyTorch cannot start what it compiled for a GPU."""
    return any(shutil.which(name) for name in ("cc", "gcc", "clang"))
