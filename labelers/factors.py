"""Occlusion, expression and lighting of faces, by a network trained on WIDER FACE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data_manifests.tables.stages import FACTORS, KEY, STATUS, Status
from labelers.labeler import Measures
from labelers.runtime.onnx import NetworkError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labelers.faces import FaceBatch
    from labelers.runtime.onnx import Network

COLUMNS = tuple(name for name in FACTORS.names if name not in (KEY.name, STATUS.name))
"""The probabilities of the `factors` table, in its order."""


class FactorsLabeler:
    """The probability of an obstructed face, an exaggerated expression and extreme lighting.

    Source: CLIB-FIQA section 4.1 (classifiers trained on WIDER FACE).
    """

    def __init__(self, network: Network, *, columns: Sequence[str] = COLUMNS) -> None:
        """Check that the network is one of factors.

        Args:
            network: gives one output [N, 3] of probabilities.
            columns: what the three are, in the network's order.

        Raises:
            NetworkError: if the output has another shape, or if other columns are named.
        """
        if network.outputs != ((len(COLUMNS),),):
            raise NetworkError(
                f"{network.path} gives {network.outputs} for a picture, expected {len(COLUMNS)} probabilities: "
                "is it a network of factors?"
            )
        if sorted(columns) != sorted(COLUMNS):
            raise NetworkError(
                f"{network.path} is said to give {', '.join(columns)}, but {', '.join(COLUMNS)} are needed: "
                "correct `output.columns` of its entry in models.toml"
            )
        self._network = network
        self._places = [tuple(columns).index(name) for name in COLUMNS]

    def __call__(self, faces: FaceBatch) -> Measures:
        """Measure every face. A network answers to any picture, so every row is ok.

        Returns:
            One float32 [N] a column, each from 0 to 1.

        Raises:
            NetworkError: if a value is no probability; names the face.
        """
        values = self._network.run(faces.images)[0]  # [N, 3]
        sound = ((values >= 0.0) & (values <= 1.0)).all(axis=1)  # False for NaN
        if not sound.all():
            row = int(np.argmin(sound))
            raise NetworkError(
                f"{self._network.path} gives {values[row].tolist()} for the image with key {faces.keys[row]}, which are"
                " not probabilities: the weights are damaged, or the network lacks its sigmoid"
            )
        columns = {name: np.ascontiguousarray(values[:, i]) for name, i in zip(COLUMNS, self._places, strict=True)}
        return Measures(columns=columns, status=[Status.OK] * len(faces))
