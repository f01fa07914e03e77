"""From named arrays to a table of the contract, and whether a table keeps the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from data_manifests.storage.embeddings import embedding_array
from data_manifests.tables.stages import EMBEDDING, Column, Status, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray


class TableError(ValueError):
    """A table breaks the contract; names the table, the column, the row and what is wrong."""


def make_table(
    table: Table, keys: NDArray[np.int32], columns: Mapping[str, NDArray[Any]], status: Sequence[str]
) -> pa.Table:
    """Build a table of the contract.

    Args:
        table: which one.
        keys: int32 [N].
        columns: name -> [N] or, for embeddings, float16 [N, D]; NaN becomes null.
        status: N texts.

    Returns:
        N rows; measures of rows whose status is not ok are null where the labeler left NaN.
    """
    arrays = []
    dimension = None
    for column in table.written(columns):
        if column.name == "key":
            arrays.append(pa.array(keys, pa.int32()))
        elif column.name == "status":
            arrays.append(pa.array(status, pa.string()).dictionary_encode())
        elif column.type == EMBEDDING:
            dimension = columns[column.name].shape[1]
            arrays.append(embedding_array(columns[column.name]))
        else:
            arrays.append(pa.array(columns[column.name], column.type, from_pandas=True))
    return pa.table(arrays, schema=table.schema(dimension, columns))


def check_table(table: Table, made: pa.Table, keys: pa.ChunkedArray) -> None:
    """Check a finished shard against the contract.

    Raises:
        TableError: if a column, a key, a status or a value is not as promised.
    """
    promised = table.written(made.column_names)
    if made.column_names != [column.name for column in promised]:
        raise TableError(f"{table.name}: columns {made.column_names} instead of {[column.name for column in promised]}")
    if not made["key"].equals(keys):
        raise TableError(f"{table.name}: its keys are not those of the index")
    if made["status"].null_count:
        raise TableError(f"{table.name}: {made['status'].null_count} rows have no status")
    for column in promised:
        _check_limits(table, column, made)
    _check_nulls(table, made)


def _check_limits(table: Table, column: Column, made: pa.Table) -> None:
    """No value lies outside the column's limits."""
    if column.limits is None or made[column.name].null_count == made.num_rows:
        return
    low, high = column.limits
    found = pc.min_max(made[column.name])
    if found["min"].as_py() < low or found["max"].as_py() > high:
        raise TableError(f"{table.name}.{column.name}: {found['min']} to {found['max']} exceeds {low} to {high}")


def _check_nulls(table: Table, made: pa.Table) -> None:
    """A row whose status is ok has every measure."""
    measures = [c.name for c in table.written(made.column_names) if c.limits is not None]
    good = made.filter(pc.equal(made["status"].cast(pa.string()), Status.OK.value))
    for name in measures:
        if good[name].null_count:
            raise TableError(f"{table.name}.{name}: {good[name].null_count} rows are null although their status is ok")
