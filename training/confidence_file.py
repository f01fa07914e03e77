"""Where a run keeps its confidences, so that a crash leaves either the whole right table or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.files import sync_folder
from training.calibration import read_confidence, write_confidence

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


def read_made_from(path: Path, keys: NDArray[np.int32], notes: Mapping[str, str]) -> NDArray[np.float32] | None:
    """The confidence of the given images, float32 [M]; None if there is no table, or it was made from something else.

    Raises:
        ConfidenceError: if the table says that it is the right one and lacks an image.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    if any(metadata.get(name.encode(), b"").decode() != text for name, text in notes.items()):
        return None
    return read_confidence(path, keys)


def write_aside(
    path: Path, keys: NDArray[np.int32], js: NDArray[np.float32], rho: NDArray[np.float32], notes: Mapping[str, str]
) -> None:
    """Write the table outside its folder and move it there: what a crash leaves must not lie among the Parquet."""
    staged = path.parent.with_name(f"{path.name}.staged")
    write_confidence(staged, keys, js, rho, notes)
    path.parent.mkdir(exist_ok=True)
    staged.replace(path)
    sync_folder(path.parent)
