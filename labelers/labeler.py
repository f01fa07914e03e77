"""What a labeler gives back: named columns and one status an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from data_manifests.tables.stages import Status
    from labelers.faces import FaceBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Measures of N images.

    Attributes:
        columns: name -> array [N] or, for an embedding, [N, D]; NaN where nothing was measured.
        status: one Status an image; rows that are not ok hold NaN.
        notes: counts worth a line in the stage's receipt, such as how many crops lie far from the template.
    """

    columns: Mapping[str, NDArray[Any]]
    status: list[Status]
    notes: Mapping[str, int] = field(default_factory=dict)


class LabelerError(ValueError):
    """A labeler cannot be opened or used, whichever images it is given; says what to do."""


class Labeler(Protocol):
    """Measures faces.

    An instance holds its model, is used by one process, and gives the same output for the same input; its version
    stands in labelers/versions.py.
    """

    def __call__(self, faces: FaceBatch) -> Measures:
        """Measure every face of the batch, in its order."""
        ...
