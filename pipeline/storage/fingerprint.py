"""What decides a stage's output, as a short name: the fingerprint in every output path."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_manifests.tables.stages import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

DIGITS = 12
"""Hexadecimal digits of a fingerprint: 48 bits, so that among a million outputs two meet with odds of 1 in 500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """One stage for one data set under given settings: everything that decides its output, and nothing else.

    Attributes:
        name: the stage's folder and table.
        version: the labeler's version; a change of its output raises it.
        data: digest of the data set's identity.
        parameters: the significant settings.
        weights: model -> sha256 of each weight file.
        upstream: the stages whose output is read.
    """

    name: str
    version: int
    data: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    upstream: tuple[StageSpec, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The plain description that is hashed, kept with the output, and compared by `plan`."""
        return {
            "stage": self.name,
            "version": self.version,
            "schema": SCHEMA_VERSION,
            "data": self.data,
            "parameters": dict(self.parameters),
            "weights": {model: list(hashes) for model, hashes in self.weights.items()},
            "upstream": {spec.name: spec.fingerprint for spec in self.upstream},
        }

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the description."""
        return digest(self.describe())[:DIGITS]

    def closure(self) -> tuple[StageSpec, ...]:
        """This stage and all it rests on, each once, upstream first."""
        found: dict[str, StageSpec] = {}
        for parent in self.upstream:
            for spec in parent.closure():
                found[spec.name] = spec
        found[self.name] = self
        return tuple(found.values())


def digest(description: Mapping[str, Any]) -> str:
    """SHA-256 of a description in canonical JSON."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name each field in which two descriptions differ.

    >>> changes({"parameters": {"low": 0.35}}, {"parameters": {"low": 0.3}})
    ['parameters.low: 0.35 -> 0.3']
    """
    lines = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += changes(old, new, f"{prefix}{name}.")
        elif old != new:
            lines.append(f"{prefix}{name}: {_short(old)} -> {_short(new)}")
    return lines


def _short(value: Any) -> str:
    """A value in a line: hashes are cut to twelve digits."""
    if value is None:
        return "(none)"
    if isinstance(value, list):
        return ", ".join(_short(v) for v in value)
    text = str(value)
    return text[:DIGITS] if len(text) == hashlib.sha256().digest_size * 2 else text
