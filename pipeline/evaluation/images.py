"""The images of a benchmark as the stages' tables have them, whole and in key order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from data_manifests.storage.embeddings import embeddings_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.storage.fingerprint import StageSpec
    from pipeline.storage.store import Store
    from training.on_top.scorer import OnTopScorer


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkImages:
    """N images.

    Attributes:
        index: their rows of the index.
        keys: int32 [N], ascending.
        identities: int32 [N], below 0 where the person is not known.
        paths: below the folder of images [N]; None where they are no files.
    """

    index: pa.Table
    keys: NDArray[np.int32]
    identities: NDArray[np.int32]
    paths: tuple[str, ...] | None


def read_images(store: Store, index: StageSpec) -> BenchmarkImages:
    """Read the index of a benchmark."""
    table = _read(store, index, None)
    files = table["path"].null_count < table.num_rows
    return BenchmarkImages(
        index=table,
        keys=table["key"].to_numpy(),
        identities=table["identity"].to_numpy(),
        paths=tuple(path or "" for path in table["path"].to_pylist()) if files else None,
    )


def read_measure(store: Store, stage: StageSpec, column: str) -> NDArray[np.float64]:
    """A measure of all images, float64 [N]; NaN where there is none."""
    values: NDArray[np.float64] = _read(store, stage, [column])[column].cast(pa.float64()).to_numpy()
    return values


def score_embeddings(store: Store, stage: StageSpec, scorer: OnTopScorer) -> NDArray[np.float64]:
    """The quality of all images on top of their recogniser, float64 [N]; NaN where there is no embedding."""
    found = []
    for shard in sorted(store.present_shards(stage)):
        table = store.read(stage, shard, ["embedding", "norm"])
        found.append(scorer.score(embeddings_of(table["embedding"]), table["norm"].to_numpy()))
    return np.concatenate(found)


def read_embeddings(store: Store, stage: StageSpec) -> NDArray[np.float32]:
    """The unit embeddings of all images, float32 [N, D]; NaN where there is none."""
    shards = sorted(store.present_shards(stage))
    stored = (store.read(stage, shard, ["embedding"])["embedding"] for shard in shards)
    return np.concatenate([embeddings_of(column) for column in stored])


def _read(store: Store, stage: StageSpec, columns: list[str] | None) -> pa.Table:
    """All shards of a stage as one table."""
    shards = sorted(store.present_shards(stage))
    tables = [store.read(stage, shard, columns) for shard in shards]
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()
