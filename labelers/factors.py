"""Occlusion, expression and lighting by a network with one probability for each."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from data_manifests.tables import Status
from labelers.measures import Measures
from labelers.onnx import NetworkError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from labelers.faces import FaceBatch
    from labelers.onnx import Network


class Probability(StrEnum):
    """The columns of the `factors` table, in the order of a factor network's output."""

    OBSTRUCTED = "p_obstructed"
    EXAGGERATED = "p_exaggerated"
    EXTREME_LIGHTING = "p_extreme_lighting"


class FactorsLabeler:
    """The probability of the worse class of three factors, for every face."""

    version: ClassVar[int] = 1

    def __init__(self, network: Network) -> None:
        wanted = ((len(Probability),),)
        if network.outputs != wanted:
            raise NetworkError(
                f"{network.path} gives {network.outputs} for a picture, expected {wanted} ({', '.join(Probability)}):"
                " is it a factor network?"
            )
        self._network = network

    def __call__(self, faces: FaceBatch) -> Measures:
        """Judge every face.

        Returns:
            `p_obstructed`, `p_exaggerated` and `p_extreme_lighting`, float32 [N] in 0 to 1; every status is ok, since
            the network has an answer for every picture.

        Raises:
            NetworkError: if a value is no probability; names the face.
        """
        probabilities = self._network.run(faces.images)[0]  # [N, 3]
        self._check(probabilities, faces.keys)
        return Measures(
            columns={name.value: np.ascontiguousarray(probabilities[:, row]) for row, name in enumerate(Probability)},
            status=[Status.OK] * len(faces),
        )

    def _check(self, probabilities: NDArray[np.float32], keys: NDArray[np.int32]) -> None:
        """Refuse what is not in 0 to 1, NaN included."""
        wrong = ~((probabilities >= 0.0) & (probabilities <= 1.0)).all(axis=1)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise NetworkError(
                f"{self._network.path} gives {probabilities[row].tolist()} for the image with key {keys[row]},"
                " expected probabilities: its weights are damaged, or its export lacks the sigmoid"
            )
