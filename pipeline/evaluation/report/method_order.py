"""The methods of an evaluation, by kind and in the order in which every table and figure shows them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from training.evaluation.methods.kinds import ANCHORED, BASELINES, FLOOR, MethodKind

if TYPE_CHECKING:
    from collections.abc import Iterable


class Kind(StrEnum):
    """What a method is, in the order in which kinds are shown."""

    METHOD = "method"
    BASELINE = "baseline"
    REFERENCE = "reference"
    """One of anchors, which knows who is on the images: no quality that is there for a new face."""
    RANDOM = "random"
    FLOOR = "floor"

    @property
    def competes(self) -> bool:
        """Whether it can be the best: references, `random` and `floor` are shown for comparison only."""
        return self in {Kind.METHOD, Kind.BASELINE}


MEANINGS: dict[str, str] = {
    MethodKind.NORM: "length of the recogniser's embedding",
    MethodKind.CCS: "similarity to the person's class centre",
    MethodKind.NNCCS: "similarity to the nearest other class centre; no quality, as CR-FIQA Figure 2 shows",
    MethodKind.CERTAINTY_RATIO: "how certainly the recogniser tells the person from others (CR-FIQA Eq. 4)",
    MethodKind.CPBD: "sharpness (CPBD)",
    MethodKind.SOBEL: "mean gradient of the lightness",
    MethodKind.RANDOM: "random numbers; an area near 1",
    FLOOR: "the similarity of the pair itself: no quality of images can reject better",
}
"""What the methods are that need no training, and the lower bound."""


def explain(method: str) -> str:
    """What a method is that needs no training; nothing for others."""
    name, _, behind = method.partition(" (")
    meaning = MEANINGS.get(name, "")
    if not meaning or not behind:
        return meaning
    called = " or what the command calls it" if kind_of(method) is Kind.REFERENCE else ""
    return f"{meaning}; in brackets the recogniser{called}"


def kind_of(method: str) -> Kind:
    """The kind, which the name decides: `parse_methods` gives a baseline's name to nothing else.

    A baseline that differs between recognisers may have one after it: `norm (fr_feature)`.
    """
    name = method.partition(" (")[0]
    if name == FLOOR:
        return Kind.FLOOR
    if name == MethodKind.RANDOM:
        return Kind.RANDOM
    if name in ANCHORED:
        return Kind.REFERENCE
    return Kind.BASELINE if name in list(BASELINES) else Kind.METHOD


def order(methods: Iterable[str]) -> tuple[str, ...]:
    """Methods without repetition: first those that are evaluated, then baselines, references, `random`, `floor`."""
    kinds = list(Kind)
    return tuple(sorted(dict.fromkeys(methods), key=lambda name: kinds.index(kind_of(name))))
