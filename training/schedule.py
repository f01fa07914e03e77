"""How the learning rate falls: a pure function of the step, so a resumed training needs no state of it."""

from __future__ import annotations

import math

from data_manifests.recipes import Recipe

RELEASED_PERIOD = 5
"""Epochs in which the released code's rate falls to 0; in the next five it rises again (T_max of its scheduler)."""


def rate_share(step: int, *, steps: int, epochs: int, recipe: Recipe) -> float:
    """The share of the highest learning rate at a step.

    Args:
        step: from 0.
        steps: in an epoch.
        epochs: in all.
        recipe: paper: one cosine over all epochs, step by step (section 4.1, "cosine annealing"). released:
            CosineAnnealingLR with T_max 5, epoch by epoch, which after 25 epochs ends high.
    """
    if recipe is Recipe.RELEASED:
        return 0.5 * (1.0 + math.cos(math.pi * (step // steps) / RELEASED_PERIOD))
    return 0.5 * (1.0 + math.cos(math.pi * step / (steps * epochs)))
