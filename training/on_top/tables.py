"""The tables that a quality on top is learned from, read shard by shard; no image is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data_manifests.storage.embeddings import embeddings_of
from data_manifests.storage.json_files import parse_json
from data_manifests.storage.shard_file import DamagedShardError, metadata_of, open_shard, read_columns

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


class StoredTablesError(ValueError):
    """The tables are not there whole, or do not belong together; names the folder and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTables:
    """Index, embeddings and anchors of one data set, each a folder of as many shards.

    Attributes:
        index: whom every image shows.
        embeddings: the recogniser's embedding and norm of every image.
        anchors: the certainty ratio of every image.
        shards: how many there are.
        made_from: what decided the embeddings, as their files say.
        fingerprint: of the anchors, which rest on the two others.
    """

    index: Path
    embeddings: Path
    anchors: Path
    shards: int
    made_from: Mapping[str, Any]
    fingerprint: str

    def read_column(self, folder: Path, name: str) -> NDArray[Any]:
        """A column of one number an image, over all shards [N]; NaN where there is none."""
        found = [_read(folder, shard, [name])[name].to_numpy() for shard in range(self.shards)]
        return np.concatenate(found)

    def read_embeddings(self, shard: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Unit embeddings [M, D] and norms [M] of the images of a shard; NaN where there are none."""
        table = _read(self.embeddings, shard, ["embedding", "norm"])
        return embeddings_of(table["embedding"]), table["norm"].to_numpy()


def open_tables(index: Path, embeddings: Path, anchors: Path) -> StoredTables:
    """Find three tables and see that they are whole, and that the third was made from the two others.

    Raises:
        StoredTablesError: if not.
    """
    folders = {"index": index, "embeddings": embeddings, "anchors": anchors}
    notes = {stage: _read_notes(stage, folder) for stage, folder in folders.items()}
    made_from = {stage: parse_json(found["made_from"]) for stage, found in notes.items()}
    for stage in ("index", "embeddings"):
        if made_from["anchors"]["upstream"].get(stage) != notes[stage]["fingerprint"]:
            raise StoredTablesError(
                f"{anchors}: was not made from {folders[stage]}: name the folders of one data set and one recogniser, "
                f"which AnchorsAll makes, with `{stage}` of fingerprint {made_from['anchors']['upstream'].get(stage)}"
            )
    return StoredTables(
        index=index,
        embeddings=embeddings,
        anchors=anchors,
        shards=int(notes["index"]["shards"]),
        made_from=made_from["embeddings"],
        fingerprint=notes["anchors"]["fingerprint"],
    )


def _read_notes(stage: str, folder: Path) -> dict[str, str]:
    """The file metadata of a table of which every shard is there."""
    first = _shard(folder, 0)
    if not first.is_file():
        raise StoredTablesError(f"{folder}: holds no table: run AnchorsAll, and name the folder of its `{stage}`")
    try:
        notes = metadata_of(open_shard(first, ""))
    except DamagedShardError as error:
        raise StoredTablesError(str(error)) from error
    if notes.get("stage") != stage:
        raise StoredTablesError(f"{folder}: holds the table {notes.get('stage')}: name the folder of `{stage}`")
    lacking = [name for n in range(int(notes["shards"])) if not (name := _shard(folder, n)).is_file()]
    if lacking:
        raise StoredTablesError(f"{folder}: lacks {lacking[0].name}: run AnchorsAll again, which makes what is missing")
    return notes


def _shard(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"shard-{number:05d}.parquet"


def _read(folder: Path, shard: int, columns: list[str]) -> Any:
    """Columns of a shard."""
    path = _shard(folder, shard)
    try:
        return read_columns(open_shard(path, ""), path, columns)
    except DamagedShardError as error:
        raise StoredTablesError(str(error)) from error
