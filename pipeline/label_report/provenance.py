"""How a label set was made: stages with their times, networks, settings and versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.storage.receipts import read_receipts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config.job import Job

_DIGITS = 12
"""Digits of a hash that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLine:
    """One stage.

    Attributes:
        name: of the stage.
        fingerprint: of its output.
        images: how many were computed, over all runs.
        seconds: how long that took.
        processes: the most that computed at a time.
        finished: when the last run ended, in UTC.
    """

    name: str
    fingerprint: str
    images: int
    seconds: float
    processes: int
    finished: str

    @property
    def speed(self) -> float | None:
        """Images a second."""
        return self.images / self.seconds if self.seconds and self.images else None


def list_stages(job: Job) -> Iterator[StageLine]:
    """The stages that labels rest on, upstream first, by their receipts."""
    for spec in job.stages["labels"].closure():
        runs = read_receipts(job.store, spec)
        worked = [run for run in runs if run["rows_computed"]] or runs
        yield StageLine(
            name=spec.name,
            fingerprint=spec.fingerprint,
            images=sum(run["rows_computed"] for run in worked),
            seconds=sum(run["wall_seconds"] for run in worked),
            processes=max((run["processes"] for run in worked), default=0),
            finished=max((run["finished"] for run in runs), default="")[:16].replace("T", " "),
        )


def list_notes(job: Job) -> dict[str, dict[str, str]]:
    """What the labels rest on: heading -> name -> text."""
    labels = job.stages["labels"]
    newest: dict[str, Any] = next(reversed(read_receipts(job.store, labels)), {})
    settings = {**job.stages["blur"].parameters, **job.stages["centres"].parameters, **labels.parameters}
    networks = {}
    for role, entry in job.models.items():
        stage = {"recognition": "embeddings"}.get(role, role)
        hashes = job.stages[stage].weights.get(entry.name, ())
        networks[role] = f"{entry.name}, SHA-256 " + ", ".join(value[:_DIGITS] for value in hashes)
    notes = {
        "Networks": networks,
        "Settings": {name: str(value) for name, value in settings.items()},
        "Versions": {name: str(value) for name, value in newest.get("versions", {}).items()},
        "Machine": {name: str(value) for name, value in newest.get("machine", {}).items()},
    }
    return {heading: entries for heading, entries in notes.items() if entries}
