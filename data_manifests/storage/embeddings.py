"""Embeddings as they stand in a table: float16 in binary of a fixed size, and back at unit length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray


def embedding_array(embeddings: NDArray[np.float16]) -> pa.Array:
    """Embeddings as fixed-size binary: float16 [N, D] little-endian; a row of NaN is null."""
    count, dimension = embeddings.shape
    lacking = np.isnan(embeddings[:, 0])
    values = np.ascontiguousarray(np.where(lacking[:, None], np.float16(0), embeddings), dtype="<f2")
    validity = pa.py_buffer(np.packbits(~lacking, bitorder="little").tobytes()) if lacking.any() else None
    return pa.Array.from_buffers(pa.binary(2 * dimension), count, [validity, pa.py_buffer(values.tobytes())])


def embeddings_of(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """The embeddings of a column as float32 [N, D], brought to unit length again; null rows are NaN."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    width = array.type.byte_width // 2
    start = array.offset * width
    values = np.frombuffer(array.buffers()[1], "<f2")[start : start + len(array) * width]
    embeddings = values.reshape(len(array), width).astype(np.float32)
    embeddings /= np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), np.float32(1e-12))
    embeddings[array.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return embeddings
