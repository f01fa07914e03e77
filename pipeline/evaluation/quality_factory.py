"""Opens a network that gives a quality in the process that will use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_manifests.storage.atomic import sha256_of
from data_manifests.weights.files import WeightsMismatchError

if TYPE_CHECKING:
    from labelers.labeler import Labeler
    from training.evaluation.methods.networks import QualityNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityLabelerFactory:
    """A hashable description, which travels to workers; the network does not.

    Attributes:
        network: its files.
        hashes: SHA-256 of each file, as the fingerprint has it.
        device: cpu or cuda.
    """

    network: QualityNetwork
    hashes: tuple[str, ...]
    device: str

    def open(self) -> Labeler:
        """Make sure that the files are those that were planned with, and load the network.

        Raises:
            WeightsMismatchError: if a file has changed.
        """
        from labelers.runtime.device import Device  # noqa: PLC0415 - the process that plans loads no model library
        from training.evaluation.methods.quality_labeler import open_labeler  # noqa: PLC0415

        for file, planned in zip(self.network.files, self.hashes, strict=True):
            if sha256_of(file) != planned:
                raise WeightsMismatchError(f"{file} has changed since this run began: start it again")
        return open_labeler(self.network, Device(self.device))
