"""Makes the index: one row for every image, in key order, without reading a pixel."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_manifests.benchmarks.pairs import read_pairs
from data_manifests.benchmarks.templates import locate_images, read_templates
from data_manifests.image_folder import ImageFolder
from data_manifests.manifest import Format, Manifest, ManifestError, check_counts
from data_manifests.recordio.record_file import UNKNOWN_IDENTITY, RecordFile
from data_manifests.storage.parquet import write_table
from data_manifests.tables.stages import IDENTITIES, INDEX, Status
from data_manifests.verification import read_bin
from pipeline.stages.columns import check_table
from pipeline.storage.shards import plan_shards

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipeline.storage.fingerprint import StageSpec
    from pipeline.storage.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedImages:
    """The index of a data set before it is cut into shards.

    Attributes:
        table: rows of the `index` table.
        names: identity -> folder name; empty where people have none.
    """

    table: pa.Table
    names: dict[int, str]


def index_images(manifest: Manifest) -> IndexedImages:
    """Read where every image of a data set lies and whom it shows.

    What a benchmark compares is read too, so that a damaged list is known before anything is computed.

    Raises:
        ManifestError: if the counts are not those that the manifest promises.
        PairsError, TemplateError, VerificationError: if a benchmark's lists or its .bin are damaged.
    """
    manifest.require_images()
    indexed = _READERS[manifest.format](manifest)
    known = indexed.table["identity"].to_numpy()
    people = len(np.unique(known[known >= 0]))
    if difference := check_counts(manifest, images=indexed.table.num_rows, identities=people):
        raise ManifestError(difference)
    return indexed


def _index_records(manifest: Manifest) -> IndexedImages:
    """The index of a .rec file."""
    with RecordFile(manifest.data_path) as records:
        found = records.index()
    table = _make_table(found.keys, found.lengths, found.lengths > 0, identity=found.identities, offset=found.offsets)
    return IndexedImages(table=table, names={})


def _index_folder(manifest: Manifest) -> IndexedImages:
    """The index of an image folder."""
    return _describe(ImageFolder(manifest.root))


def _describe(folder: ImageFolder) -> IndexedImages:
    """The index of all images of a folder."""
    there = np.ones(len(folder), np.bool_)
    table = _make_table(folder.keys, folder.lengths, there, identity=folder.identities, path=folder.paths)
    return IndexedImages(table=table, names=folder.names)


def _index_pairs(manifest: Manifest) -> IndexedImages:
    """The index of a verification benchmark: of its .bin, or of all images of the folder that its list is about."""
    if manifest.image_root is None:
        return _index_bin(manifest)
    folder = ImageFolder(manifest.image_root)
    read_pairs(manifest, folder.paths)
    return _describe(folder)


def _index_bin(manifest: Manifest) -> IndexedImages:
    """The index of a .bin: its images have the keys 1 to 2P, and their offset is their number in its list, from 0.

    They are not found by bytes, because some forms of the file do not hold an image's bytes as they are.
    """
    images, same = read_bin(manifest.data_path)
    if difference := check_counts(manifest, pairs=len(same)):
        raise ManifestError(difference)
    keys = np.arange(1, len(images) + 1, dtype=np.int32)
    lengths = np.array([len(image) for image in images], np.int32)
    table = _make_table(keys, lengths, np.ones(len(images), np.bool_), offset=np.arange(len(images)))
    return IndexedImages(table=table, names={})


def _index_templates(manifest: Manifest) -> IndexedImages:
    """The index of a benchmark of templates: the images of its lists in their order, whether they are there or not."""
    images = read_templates(manifest).images
    root = manifest.image_root or manifest.root
    folder = ImageFolder(root)
    sizes = dict(zip(folder.paths, folder.lengths.tolist(), strict=True))
    names = locate_images(manifest, images.name, folder.paths)
    there = np.array([name in sizes for name in names])
    if not there.any():
        raise ManifestError(
            f"the data set {manifest.name} ({manifest.file}): {root} holds none of the {len(there):,} images of its "
            f"lists, of which the first is {names[0]}: {manifest.download.strip() or 'put them there'}"
        )
    if not there.all():
        first = names[int(np.argmin(there))]
        logger.warning("%s: %d of %d images are missing, the first is %s", root, (~there).sum(), len(there), first)
    lengths = np.array([sizes.get(name, 0) for name in names], np.int32)
    return IndexedImages(table=_make_table(images.key, lengths, there, path=names), names={})


def _make_table(key: NDArray[np.int32], length: NDArray[np.int32], there: NDArray[np.bool_], **more: Any) -> pa.Table:
    """The rows of an index.

    Args:
        key: int32 [N], ascending.
        length: int32 [N], stored bytes.
        there: bool [N], whether the image is where it should be.
        more: the columns identity, offset and path, [N] each; without them people are unknown, and offsets 0.
    """
    count = len(key)
    columns = {
        "key": key,
        "identity": np.full(count, UNKNOWN_IDENTITY, np.int32),
        "offset": np.zeros(count, np.int64),
        "length": length,
        "path": pa.nulls(count, pa.string()),
        "status": pc.if_else(pa.array(there), Status.OK.value, Status.MISSING.value).dictionary_encode(),
    }
    return pa.table(columns | more, schema=INDEX.schema())


_READERS: dict[Format, Callable[[Manifest], IndexedImages]] = {
    Format.RECORDIO: _index_records,
    Format.IMAGE_FOLDER: _index_folder,
    Format.VERIFICATION: _index_pairs,
    Format.TEMPLATES: _index_templates,
}


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
