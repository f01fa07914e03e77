"""What a check of `doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check went."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check.

    Attributes:
        verdict: how it went.
        subject: what was looked at.
        text: what was found, and the remedy where it is bad.
    """

    verdict: Verdict
    subject: str
    text: str
