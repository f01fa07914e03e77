"""The request of an evaluation: the parameters of the command line, read and checked."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from training.evaluation.pairs.ranked_pairs import Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class EvaluationError(ValueError):
    """An evaluation cannot be made as requested; says what to do."""


class TemplateWeight(StrEnum):
    """What unit embeddings are multiplied with before they are pooled (InsightFace's IJB evaluation)."""

    NORM = "norm"
    """The norm of the embedding: features are then pooled as the network gives them."""
    DETECTOR = "detector"
    """The detector's score of the face, from the benchmark's list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """The parameters of one evaluation.

    Attributes:
        benchmarks: names of manifests, or paths of TOML files.
        recognisers: networks of models.toml; none stands for each benchmark's own.
        methods: as `parse_methods` reads them.
        protocols: which pairs are rejected, and when the threshold is set.
        fmrs: false match rates.
        replicates: bootstrap draws.
        fewest_impostors: a threshold above which fewer impostor pairs lie is left out; 0: none is.
        fewest_errors: methods are not ranked or compared by fewer wrong pairs; 0: they always are.
        correlate: whether qualities are compared with the measures of the factory.
        limit: the first images of every benchmark only; 0 for all.
        workspace: the folder of all outputs.
        template_weights: what the unit embeddings of a template's images are multiplied with before they are pooled.

    Raises:
        EvaluationError: if a number cannot be, or a name stands twice.
    """

    benchmarks: tuple[str, ...]
    recognisers: tuple[str, ...]
    methods: str
    protocols: tuple[Protocol, ...]
    fmrs: tuple[float, ...]
    replicates: int
    fewest_impostors: int
    correlate: bool
    limit: int
    workspace: Path
    template_weights: tuple[TemplateWeight, ...] = ()
    fewest_errors: int = 0

    def __post_init__(self) -> None:
        if not self.benchmarks:
            raise EvaluationError("no benchmark is named: give --benchmarks with names or paths of manifests")
        if not self.fmrs or not all(math.isfinite(fmr) and 0 < fmr <= 1 for fmr in self.fmrs):
            raise EvaluationError(
                "--fmrs: give false match rates over 0 and at most 1, separated by commas, such as 0.01"
            )
        if not self.protocols:
            raise EvaluationError(f"--protocols: give one or more of {', '.join(Protocol)}")
        if self.replicates < 0:
            raise EvaluationError(f"--replicates {self.replicates}: give a number of draws, or 0 for no intervals")
        if self.fewest_impostors < 0:
            raise EvaluationError(f"--fewest-impostors {self.fewest_impostors}: give a number of pairs, or 0 for any")
        if self.fewest_errors < 0:
            raise EvaluationError(f"--fewest-errors {self.fewest_errors}: give a number of pairs, or 0 for any")
        require_once("recognisers", self.recognisers)
        require_once("false match rates", self.fmrs)
        require_once("protocols", self.protocols)
        require_once("template weights", self.template_weights)


def read_protocols(words: str) -> tuple[Protocol, ...]:
    """Protocols separated by commas.

    Raises:
        EvaluationError: if there is none of that name.
    """
    unknown = [word for word in split(words) if word not in list(Protocol)]
    if unknown:
        raise EvaluationError(f"--protocols: {unknown[0]!r} is none: give one or more of {', '.join(Protocol)}")
    return tuple(Protocol(word) for word in split(words))


def read_weights(words: str) -> tuple[TemplateWeight, ...]:
    """Weights of the images of templates, separated by commas.

    Raises:
        EvaluationError: if there is none of that name.
    """
    unknown = [word for word in split(words) if word not in list(TemplateWeight)]
    if unknown:
        allowed = f"give {', '.join(TemplateWeight)}, both or none"
        raise EvaluationError(f"--template-weights: {unknown[0]!r} is none: {allowed}")
    return tuple(TemplateWeight(word) for word in split(words))


def read_rates(words: str) -> tuple[float, ...]:
    """False match rates separated by commas.

    Raises:
        EvaluationError: if one is no number.
    """
    try:
        return tuple(float(word) for word in split(words))
    except ValueError as error:
        raise EvaluationError(f"--fmrs: {error}: give numbers separated by commas, such as 0.01,0.001") from None


def split(words: str) -> tuple[str, ...]:
    """Words separated by commas."""
    return tuple(word.strip() for word in words.split(",") if word.strip())


def require_once(what: str, names: Sequence[object]) -> None:
    """Refuse a name that stands twice.

    Raises:
        EvaluationError: names it.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise EvaluationError(f"two of the {what} are {twice[0]}: leave one out, or give it another name")
