"""Copies are found wherever a person's images lie: in one shard, or parted by shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from data_manifests.tables.stages import TABLES
from pipeline.stages.anchors import sum_centres
from pipeline.stages.columns import embedding_array
from pipeline.storage.fingerprint import StageSpec
from pipeline.storage.store import Store

if TYPE_CHECKING:
    from pathlib import Path


def make_table(stage: str, **columns: pa.Array) -> pa.Table:
    """A table of a stage, with nulls in the columns that are not given."""
    rows = len(columns["key"])
    schema = TABLES[stage].schema(dimension=8)
    return pa.table([columns.get(f.name, pa.nulls(rows, f.type)) for f in schema], schema=schema)


def test_copies_are_found_across_shards(tmp_path: Path) -> None:
    embeddings = np.random.default_rng(0).standard_normal((12, 8)).astype(np.float16)
    embeddings[9], embeddings[11], embeddings[5] = embeddings[0], embeddings[4], embeddings[4]
    identities = np.array([3, 1, 1, 7, 3, 3, 7, -1, 1, 3, 7, 3], np.int32)
    tables = []
    for name, cuts in (("parted", (4, 8)), ("whole", ())):
        store = Store(root=tmp_path / name)
        index, stage = (StageSpec(name=stage, version=1, data="") for stage in ("index", "embeddings"))
        pieces = np.split(np.arange(12), cuts)
        for number, rows in enumerate(pieces):
            keys = pa.array(rows + 1, pa.int32())
            people = make_table("index", key=keys, identity=pa.array(identities[rows]))
            store.write_shard(index, number, people, len(pieces))
            found = make_table("embeddings", key=keys, embedding=embedding_array(embeddings[rows]))
            store.write_shard(stage, number, found, len(pieces))
        tables.append(sum_centres(store, index, stage, lambda _: None).to_pydict())
    assert tables[0] == tables[1]
    assert (tables[0]["identity"], tables[0]["images"]) == ([1, 3, 7], [3, 2, 3])
    assert tables[0]["copies"] == [[], [6, 10, 12], []]
