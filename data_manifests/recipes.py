"""The two named readings of the papers."""

from __future__ import annotations

from enum import StrEnum


class Recipe(StrEnum):
    """Whose rules decide where a paper and its released code differ."""

    PAPER = "paper"
    """The printed equations."""
    RELEASED = "released"
    """What the authors' public code computes."""
