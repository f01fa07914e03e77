"""Where a run keeps its confidences, so that a crash leaves either the whole right table or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.storage.atomic import sync_folder
from training.quality.calibration import Confidences, read_confidence, write_confidence

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from training.quality.data import TrainingSet


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
    path: Path, data: TrainingSet, js: NDArray[np.float32], rho: NDArray[np.float32], notes: Mapping[str, str]
) -> None:
    """Write the table outside its folder and move it there: what a crash leaves must not lie among the Parquet.

    Args:
        path: the Parquet file.
        data: what was learned from; every row of its labels becomes a row.
        js: float32 [M], of the images that were learned from.
        rho: float32 [M], confidence.
        notes: file metadata.

    Raises:
        ConfidenceError: if a value is not a number.
        DiskFullError: if no space is left.
    """
    values = np.full((2, len(data.labels)), np.nan, np.float32)  # [2, N]
    values[:, data.rows] = js, rho
    staged = path.parent.with_name(f"{path.name}.staged")
    found = Confidences(keys=data.labels.keys, js=values[0], rho=values[1], status=data.status())
    write_confidence(staged, found, notes)
    path.parent.mkdir(exist_ok=True)
    staged.replace(path)
    sync_folder(path.parent)
