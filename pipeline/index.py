"""Makes the index: one row for every record, in key order, without reading a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from data_manifests.image_folder import ImageFolder
from data_manifests.manifest import Format, Manifest, ManifestError, check_counts
from data_manifests.parquet import write_table
from data_manifests.recordio import RecordFile
from data_manifests.tables import IDENTITIES, INDEX, Status
from pipeline.columns import check_table
from pipeline.shards import plan_shards

if TYPE_CHECKING:
    from pipeline.fingerprint import StageSpec
    from pipeline.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedImages:
    """The index of a data set before it is cut into shards.

    Attributes:
        table: rows of the `index` table.
        names: identity -> folder name; empty for RecordIO.
    """

    table: pa.Table
    names: dict[int, str]


def index_images(manifest: Manifest) -> IndexedImages:
    """Read where every image of a data set lies and whom it shows.

    Raises:
        ManifestError: if the counts are not those that the manifest promises.
    """
    read = _index_records if manifest.format is Format.RECORDIO else _index_folder
    indexed = read(manifest)
    known = indexed.table["identity"].to_numpy()
    people = len(np.unique(known[known >= 0]))
    if difference := check_counts(manifest, images=indexed.table.num_rows, identities=people):
        raise ManifestError(difference)
    return indexed


def _index_records(manifest: Manifest) -> IndexedImages:
    """The index of a .rec file."""
    with RecordFile(manifest.data_path) as records:
        found = records.index()
    count = len(found.keys)
    status = np.where(found.lengths > 0, Status.OK.value, Status.MISSING.value)
    columns = {
        "key": pa.array(found.keys, pa.int32()),
        "identity": pa.array(found.identities, pa.int32()),
        "offset": pa.array(found.offsets, pa.int64()),
        "length": pa.array(found.lengths, pa.int32()),
        "path": pa.nulls(count, pa.string()),
        "status": pa.array(status).dictionary_encode(),
    }
    return IndexedImages(table=pa.table(columns, schema=INDEX.schema()), names={})


def _index_folder(manifest: Manifest) -> IndexedImages:
    """The index of an image folder."""
    folder = ImageFolder(manifest.root)
    count = len(folder)
    columns = {
        "key": pa.array(folder.keys, pa.int32()),
        "identity": pa.array(folder.identities, pa.int32()),
        "offset": pa.array(np.zeros(count, np.int64)),
        "length": pa.array(folder.lengths, pa.int32()),
        "path": pa.array(folder.paths, pa.string()),
        "status": pa.array([Status.OK.value] * count).dictionary_encode(),
    }
    return IndexedImages(table=pa.table(columns, schema=INDEX.schema()), names=folder.names)


def write_index(store: Store, spec: StageSpec, indexed: IndexedImages, limit: int) -> None:
    """Write the index in shards, and the names of a folder's identities before it.

    Args:
        store: where tables lie.
        spec: the index stage.
        indexed: the whole index.
        limit: keep the first images only; 0 keeps all.
    """
    table = indexed.table.slice(0, limit) if limit else indexed.table
    store.remember(spec)
    if indexed.names:
        rows = {"identity": list(indexed.names), "name": list(indexed.names.values())}
        names = pa.table(rows, schema=IDENTITIES.schema())
        write_table(store.root / IDENTITIES.name / spec.fingerprint / "shard-00000.parquet", names)
    shards = plan_shards(table.num_rows)
    for number, piece in enumerate(shards):
        shard = table.slice(piece.start, len(piece)).combine_chunks()
        check_table(INDEX, shard, shard["key"])
        store.write_shard(spec, number, shard, len(shards))
