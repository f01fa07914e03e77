"""Everything that decides a training of CR-FIQA."""

from __future__ import annotations

from enum import StrEnum


class Backbone(StrEnum):
    """What makes the embedding of a face."""

    IRESNET18 = "iresnet18"
    IRESNET34 = "iresnet34"
    IRESNET50 = "iresnet50"
    IRESNET100 = "iresnet100"
    MOBILEFACENET = "mobilefacenet"


class Margin(StrEnum):
    """How an image's logit of its own class is made harder."""

    ARCFACE = "arcface"
    COSFACE = "cosface"


class Target(StrEnum):
    """What the regression layer learns."""

    CERTAINTY_RATIO = "certainty_ratio"
    """CCS / (NNCCS + 1), CR-FIQA Eq. 4."""
    PLAIN_RATIO = "plain_ratio"
    """CCS / NNCCS, of CR-FIQA's released code."""
    CCS = "ccs"
    """CCS alone: CCS-FIQA, of CR-FIQA's ablation."""
