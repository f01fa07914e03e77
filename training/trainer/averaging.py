"""An exponential average of a network's weights: what is evaluated and saved in place of the last step's."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class WeightAverage:
    """The average of a network's weights and batch statistics over the steps so far.

    The first steps count for less than the decay says, as in TensorFlow's ExponentialMovingAverage: of n steps the last
    has the share max(1 - decay, 9 / (10 + n)), so that the random weights of the beginning are soon forgotten.

    Args:
        network: on its device, and in its final memory layout.
        decay: from 0 to below 1.
        start: what `state` gave; None to begin.
    """

    def __init__(self, network: nn.Module, decay: float, start: Mapping[str, Any] | None = None) -> None:
        self._decay = decay
        # The tensors of a state dict share the memory of the network's own.
        self._weights = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
        self._averages = {name: value.clone() for name, value in self._weights.items()}
        self._steps = 0
        if start is not None:
            self._steps = start["steps"]
            for name, value in self._averages.items():
                value.copy_(start["averages"][name])

    @property
    def averages(self) -> list[Tensor]:
        """Of every weight and buffer."""
        return list(self._averages.values())

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of a step in."""
        self._steps += 1
        share = max(1 - self._decay, 9 / (10 + self._steps))
        torch._foreach_lerp_(self.averages, list(self._weights.values()), share)

    @contextlib.contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """For a while the network has the averages."""
        kept = [value.clone() for value in self._weights.values()]
        self._fill(self.averages)
        try:
            yield
        finally:
            self._fill(kept)

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        return {"steps": self._steps, "averages": dict(self._averages)}

    def _fill(self, values: list[Tensor]) -> None:
        """Give the network values."""
        torch._foreach_copy_(list(self._weights.values()), values)
