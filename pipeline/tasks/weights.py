"""Brings the weight files of a model to this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import luigi
from luigi.parameter import ParameterVisibility

from data_manifests.weights.files import WeightsError, fetch, find

if TYPE_CHECKING:
    from data_manifests.weights.entry import ModelEntry


class ModelParameter(luigi.Parameter):
    """Carries an entry of models.toml; Luigi's pages show its name."""

    def serialize(self, x: ModelEntry) -> str:
        """The text that stands for the entry."""
        return x.name


class Weights(luigi.Task):
    """Finds, or fetches, and verifies the weight files of one model."""

    retry_count = 1  # fetching has its own tries
    priority = 1  # what cannot be fetched is said before other stages are made

    model = luigi.Parameter()
    hashes = luigi.Parameter()
    entry: ModelEntry = ModelParameter(significant=False, visibility=ParameterVisibility.PRIVATE)

    @classmethod
    def of(cls, entry: ModelEntry, hashes: tuple[str, ...]) -> Weights:
        """The task for one entry."""
        return cls(model=entry.name, hashes=",".join(h[:12] for h in hashes), entry=entry)

    def complete(self) -> bool:
        """Whether the verified files are at hand."""
        try:
            find(self.entry)
        except WeightsError:
            return False
        return True

    def run(self) -> None:
        """Fetch what is missing; a failure says where it was looked for and what to do."""
        fetch(self.entry)
