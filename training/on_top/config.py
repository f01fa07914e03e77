"""What decides a quality on top. Loads no model library, so that a plan can read it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from data_manifests.folds import MaybeFold  # noqa: TC001 - pydantic reads it when the program runs


class Target(StrEnum):
    """What is told from an embedding and its norm."""

    RATIO = "ratio"
    """The certainty ratio (CR-FIQA Eq. 4)."""
    RANK = "rank"
    """The share of the images learned from whose certainty ratio is smaller; of equal ones half count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnTopConfig:
    """What decides a quality on top, beside the tables.

    Attributes:
        target: what is learned: ratio (the certainty ratio) or rank (its rank among the images learned from).
        folds: into how many parts the people are divided to choose the penalty of the regression.
        held_out: leave out all images of one in N people, and measure the result on them: K/N, with K from 0 to N - 1.
    """

    target: Target = Target.RATIO
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    held_out: MaybeFold = None

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        held_out = "" if self.held_out is None else str(self.held_out)
        return {"target": self.target.value, "folds": self.folds, "held_out": held_out}
