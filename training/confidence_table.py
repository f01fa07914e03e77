"""The table `confidence`: how far quality and factors of every training image agreed after the first phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.files import sync_folder, write_atomically
from data_manifests.tables import KEY, STATUS, Column, Status, Table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from training.data import TrainingSet

CONFIDENCE = Table(
    name="confidence",
    text="How far the quality of every training image is justified by its factors, after the first phase of training.",
    columns=(
        KEY,
        Column(
            name="js", type=pa.float32(), limits=(0.0, 1.0),
            text="Jensen-Shannon divergence of predicted quality and merged factors, natural logarithm",
            source="CLIB-FIQA Eq. 9",
        ),
        Column(
            name="confidence", type=pa.float32(), limits=(0.5, 1.0),
            text="rho, by which beta of the soft mapping is multiplied in the second phase", source="CLIB-FIQA Eq. 8",
        ),
        STATUS,
    ),
)  # fmt: skip

NAME = "confidence"
"""Of the folder in the run, which holds Parquet and nothing else."""


class ConfidenceError(RuntimeError):
    """The confidences of a run are not there, or not those it was trained with."""


def write_confidence(
    run: Path, data: TrainingSet, js: NDArray[np.float32], rho: NDArray[np.float32], metadata: Mapping[str, str]
) -> None:
    """Write one row for every row of the labels; those that are not learned from have nulls and their cause.

    Args:
        run: the run's folder.
        data: M images of N rows of labels.
        js: float32 [M].
        rho: float32 [M].
        metadata: text that is kept in the file.
    """
    size = len(data.labels)
    taken = np.zeros(size, np.bool_)
    taken[data.rows] = True
    columns = {"key": data.labels.keys}
    arrays = [pa.array(columns["key"])]
    for values in (js, rho):
        full = np.full(size, np.nan, np.float32)
        full[data.rows] = values
        arrays.append(pa.array(full, mask=~taken))
    causes = data.labels.status.cast(pl.String)
    status = causes.zip_with(pl.Series(~taken), pl.repeat(Status.OK.value, size, eager=True))
    arrays.append(status.to_arrow().cast(pa.string()).dictionary_encode())
    table = pa.table(arrays, schema=CONFIDENCE.schema()).replace_schema_metadata(dict(metadata))
    # Polars opens the folder as a whole, so what a crash leaves half written must not lie in it.
    staged = run / f"{NAME}.staged"
    write_atomically(staged, lambda file: pq.write_table(table, file, compression="zstd"))
    folder = run / NAME
    folder.mkdir(exist_ok=True)
    staged.replace(folder / f"{NAME}.parquet")
    sync_folder(folder)


def read_confidence(run: Path, data: TrainingSet, metadata: Mapping[str, str]) -> NDArray[np.float32] | None:
    """Rho of the M images, float32 [M]; None where there is no table, or where it was made from something else.

    Args:
        run: the run's folder.
        data: what is learned from.
        metadata: what the file must say of itself.
    """
    path = run / NAME / f"{NAME}.parquet"
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        return None
    found = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    if any(found.get(name) != value for name, value in metadata.items()):
        return None
    keys = table["key"].to_numpy()
    if not np.array_equal(keys, data.labels.keys):
        return None
    rho: NDArray[np.float32] = table["confidence"].to_numpy()[data.rows]
    return rho if np.isfinite(rho).all() else None
