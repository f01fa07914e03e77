"""The state of an optimiser, taken up again on any device and in any memory layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

_COUNTER = "step"


def load_state(optimiser: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Put the moments of every parameter back; the settings of the groups stay those of this process.

    A fused kernel walks through parameter, gradient and moments side by side in memory, whatever their strides say.
    PyTorch gives moments back in the layout in which they were saved, and a training may go on in another one.

    Args:
        optimiser: new, over the same parameters in the same order.
        saved: of its `state_dict`.
    """
    # The groups too say where a kernel runs (`fused`); what was begun elsewhere has nothing to say there.
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": saved["state"], "param_groups": groups})
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if name != _COUNTER:
                state[name] = torch.empty_like(parameter).copy_(value)
