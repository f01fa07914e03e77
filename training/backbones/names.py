"""Which networks there are. Loads no PyTorch, so that a plan can read settings."""

from __future__ import annotations

from enum import StrEnum


class Backbone(StrEnum):
    """What makes the embedding of a face."""

    IRESNET18 = "iresnet18"
    IRESNET34 = "iresnet34"
    IRESNET50 = "iresnet50"
    IRESNET100 = "iresnet100"
    MOBILEFACENET = "mobilefacenet"
    """As wide as ArcFace's code has it: twice the paper's."""
    MOBILEFACENET_SMALL = "mobilefacenet_small"
    """As wide as the paper has it."""
