"""How the learning rate falls: a pure function of the step, so a resumed training needs no state of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from data_manifests.recipes import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

RELEASED_PERIOD = 5
"""Epochs in which the released code's rate falls to 0; in the next five it rises again (T_max of its scheduler)."""


def rate_share(step: int, *, steps: int, epochs: int, recipe: Recipe, warm_up: float = 0.0) -> float:
    """The share of the highest learning rate at a step.

    Args:
        step: from 0.
        steps: in an epoch.
        epochs: in all.
        recipe: paper: one cosine over all epochs, step by step (section 4.1, "cosine annealing"). released:
            CosineAnnealingLR with T_max 5, epoch by epoch, which after 25 epochs ends high.
        warm_up: share of all steps in which the rate first rises in a straight line; the cosine then falls over the
            rest. It is neither in the paper nor in the released rule, which takes none; random weights need it.

    Raises:
        ValueError: if the released rule is asked to warm up.
    """
    if recipe is Recipe.RELEASED:
        if warm_up:
            raise ValueError("the released rate has no warm-up: warm_up must be 0, or the rule `schedule` paper")
        return 0.5 * (1.0 + math.cos(math.pi * (step // steps) / RELEASED_PERIOD))
    every = steps * epochs
    rising = round(warm_up * every)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, every - rising)))


def step_share(step: int, *, drops: Sequence[int], rising: int = 0) -> float:
    """The share of the highest learning rate where it is divided by ten at some steps (CR-FIQA section IV).

    Args:
        step: from 0.
        drops: the steps at which it falls.
        rising: steps in which it first rises in a straight line; CR-FIQA has none.
    """
    warm = min(1.0, (step + 1) / (rising + 1))
    return warm * 0.1 ** sum(step >= drop for drop in drops)
