"""Centres, anchors and their range: what is made from embeddings alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_manifests.storage.atomic import write_atomically
from data_manifests.storage.embeddings import embeddings_of
from data_manifests.storage.shard_file import READ_ERRORS, DamagedShardError, open_shard, read_columns
from data_manifests.tables.stages import ANCHOR_RANGE, ANCHORS, CENTRES, IDENTITIES, Status
from labelers.anchors.centres import Centres, CentreSums, accumulate, head_centres
from labelers.anchors.copies import find_copies
from labelers.anchors.head import load_identities, order_rows
from labelers.anchors.head_fit import require_fit
from labelers.anchors.nearest import open_search
from labelers.anchors.similarities import AnchorRange, anchor_statistics, measure_anchors, plain_ratio
from labelers.runtime.device import Device
from pipeline.stages.columns import make_table
from pipeline.stages.measure import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from labelers.anchors.nearest import CentreSearch
    from pipeline.storage.fingerprint import StageSpec
    from pipeline.storage.shards import Part
    from pipeline.storage.store import Store

_TRIED = 1000
"""People by whom it is seen whether a head is theirs; the products with MS1MV2's 85,742 rows take seconds."""


def sum_centres(store: Store, index: StageSpec, embeddings: StageSpec, advance: Callable[[int], None]) -> pa.Table:
    """Sum the unit embeddings of every person over the whole data set, copies left out.

    Returns:
        One row a person, of the `centres` table.
    """
    copies: list[Images] = []

    def blocks() -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
        for images in _whole_people(store, index, embeddings):
            repeated = find_copies(images.embeddings, images.identities)
            copies.append(images.choose(repeated))
            yield images.embeddings[~repeated], images.identities[~repeated]
            advance(len(repeated))

    return centres_table(accumulate(blocks()), copies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Keys int32 [N], identities int32 [N] and embeddings float32 [N, D] of images."""

    keys: NDArray[np.int32]
    identities: NDArray[np.int32]
    embeddings: NDArray[np.float32]

    def choose(self, rows: NDArray[np.bool_]) -> Images:
        """Some of the images."""
        return Images(keys=self.keys[rows], identities=self.identities[rows], embeddings=self.embeddings[rows])

    def join(self, after: Images) -> Images:
        """These images and then others."""
        keys, identities = np.append(self.keys, after.keys), np.append(self.identities, after.identities)
        return Images(keys=keys, identities=identities, embeddings=np.append(self.embeddings, after.embeddings, axis=0))


def _whole_people(store: Store, index: StageSpec, embeddings: StageSpec) -> Iterator[Images]:
    """All images in blocks, where every person's are in one block; they wait for that only where shards part them."""
    shards = sorted(store.present_shards(index))
    people = [store.read(index, shard, ["identity"])["identity"].to_numpy() for shard in shards]
    last = {identity: place for place, found in enumerate(people) for identity in np.unique(found).tolist()}
    waiting: Images | None = None
    for place, (shard, identities) in enumerate(zip(shards, people, strict=True)):
        keys = store.read(index, shard, ["key"])["key"].to_numpy()
        stored = store.read(embeddings, shard, ["embedding"])["embedding"]
        images = Images(keys=keys, identities=identities, embeddings=embeddings_of(stored))
        images = images if waiting is None else waiting.join(images)
        ended = np.array([last[identity] <= place or identity < 0 for identity in images.identities.tolist()], np.bool_)
        waiting = images.choose(~ended)
        yield images.choose(ended)


def centres_table(centres: Centres, copies: Sequence[Images] = ()) -> pa.Table:
    """Class centres as rows of the `centres` table, with the images that are copies."""
    repeated: dict[int, list[int]] = {}
    for images in copies:
        for identity, key in zip(images.identities.tolist(), images.keys.tolist(), strict=True):
            repeated.setdefault(identity, []).append(key)
    columns = [
        pa.array(centres.identities, pa.int32()),
        pa.array(centres.counts, pa.int32()),
        pa.array([vector.astype("<f4").tobytes() for vector in centres.sums], pa.binary()),
        pa.array([repeated.get(identity, []) for identity in centres.identities.tolist()], pa.list_(pa.int32())),
    ]
    return pa.table(columns, schema=CENTRES.schema())


def write_centre_vectors(centres: Path, vectors: Path) -> None:
    """Write the vectors of a file of the `centres` table as a plain array, which all processes of a machine share.

    For MS1MV2 they take 175 MB, which would else be there once a process.
    """
    column = _read_centres(centres, "centre")["centre"]
    dimension = len(column[0].as_py()) // np.dtype("<f4").itemsize if len(column) else 0
    sums = np.frombuffer(b"".join(column.to_pylist()), "<f4").reshape(len(column), dimension)

    def write(file: IO[bytes]) -> None:
        # As numpy.save does, whose own error on a full disk does not tell what is wrong.
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(sums))
        file.write(sums.tobytes())

    write_atomically(vectors, write)


def _read_centres(centres: Path, *columns: str) -> pa.Table:
    """Columns of a file of the `centres` table."""
    return read_columns(open_shard(centres, CENTRES.name), centres, columns)


@lru_cache(maxsize=1)
def read_search(centres: Path, vectors: Path, device: Device) -> CentreSearch:
    """The class centres of a file of the `centres` table with its vectors laid out, ready to be searched.

    Once a process: on a GPU they stay in its memory.
    """
    table = _read_centres(centres, "identity", "images")
    sums = np.load(vectors, mmap_mode="r")
    identities, counts = table["identity"].to_numpy(), table["images"].to_numpy()
    return open_search(Centres(identities=identities, counts=counts, sums=np.asarray(sums)), device)


@lru_cache(maxsize=1)
def read_copies(centres: Path) -> NDArray[np.int32]:
    """The keys of all images that a file of the `centres` table names as copies."""
    copies = _read_centres(centres, "copies")["copies"]
    keys: NDArray[np.int32] = pc.list_flatten(copies).to_numpy()
    return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareCentres:
    """Measure CCS, NNCCS and the certainty ratio of one part and stage the table.

    The device decides nothing but speed: it looks for the nearest centre, and what stands in the table is computed from
    that centre on the processor.
    """

    store: Store
    spec: StageSpec
    index: StageSpec
    embeddings: StageSpec
    centres: StageSpec
    vectors: Path
    device: str = Device.CPU.value

    def __call__(self, part: Part, advance: Callable[[int], None]) -> dict[str, float]:
        """Compare the part's embeddings with all centres."""
        figures: Counter[str] = Counter()
        with Stopwatch(figures, "open_seconds"):
            search = read_search(self.store.shard(self.centres, 0), self.vectors, Device(self.device))
            copies = read_copies(self.store.shard(self.centres, 0))
        with Stopwatch(figures, "read_seconds"):
            rows = self.store.read_once(self.index, part.shard, ("key", "identity"))
            rows = rows.slice(part.start, part.rows)
            stored = self.store.read_once(self.embeddings, part.shard, ("embedding", "status"))
            stored = stored.slice(part.start, part.rows)
            embeddings = embeddings_of(stored["embedding"])
        with Stopwatch(figures, "compute_seconds"):
            keys = rows["key"].to_numpy()
            measures = measure_anchors(embeddings, rows["identity"].to_numpy(), search, np.isin(keys, copies))
        pairs = zip(stored["status"].to_pylist(), measures.status, strict=True)
        status = [read if read != Status.OK else measured.value for read, measured in pairs]
        with Stopwatch(figures, "write_seconds"):
            table = make_table(ANCHORS, keys, measures.columns, status)
            self.store.write_part(self.spec, part, table)
        advance(part.rows)
        return dict(figures)


def summarise_anchors(store: Store, anchors: StageSpec) -> pa.Table:
    """The statistics of both kinds of anchor over the data set: one row of the `anchor_range` table."""
    columns = ["ccs", "nnccs", "certainty_ratio"]
    shards = sorted(store.present_shards(anchors))
    table = pa.concat_tables([store.read(anchors, shard, columns) for shard in shards])
    certainty = anchor_statistics(table["certainty_ratio"].to_numpy())
    plain = anchor_statistics(plain_ratio(table["ccs"].to_numpy(), table["nnccs"].to_numpy()))
    row = {**_columns("certainty_ratio", certainty), **_columns("plain_ratio", plain), "images": certainty.images}
    arrays = [pa.array([row[f.name]], f.type, from_pandas=True) for f in ANCHOR_RANGE.schema()]
    return pa.table(arrays, schema=ANCHOR_RANGE.schema())


def _columns(anchor: str, found: AnchorRange) -> dict[str, float]:
    """The statistics of one kind of anchor under their column names; NaN where no image has an anchor."""
    return {
        f"{anchor}_min": found.minimum,
        f"{anchor}_max": found.maximum,
        f"{anchor}_q001": found.low,
        f"{anchor}_q999": found.high,
    }


def head_table(
    path: Path,
    head: NDArray[np.float32],
    store: Store,
    index: StageSpec,
    embeddings: StageSpec,
) -> pa.Table:
    """A recogniser's last layer as the `centres` table.

    Args:
        path: of its file. Where it tells whose centre each row is, people of the data set may be missing, who were left
            out of the recogniser's training; else the rows of the data set's people come first.
        head: [C, D].
        store: of the data set.
        index: its people.
        embeddings: its embeddings.

    Raises:
        HeadError: if its rows are no nearer to these people than any others.
        IdentityError: if the head has fewer rows than the data set has people, or names none of them.
    """
    people = load_identities(path)
    rows = order_rows(head, _read_names(store, index)) if people is None else head
    centres = head_centres(rows, people)
    some = _some_people(store, index)
    if people is not None:  # others were left out of the recogniser's training
        some = np.intersect1d(some, people)
    sums, found = CentreSums(), np.zeros(0, np.int32)
    copies: list[Images] = []
    for images in _whole_people(store, index, embeddings):
        copies.append(images.choose(find_copies(images.embeddings, images.identities)))
        found = np.union1d(found, images.identities[images.identities >= 0])
        theirs = images.choose(np.isin(images.identities, some))
        sums.add(theirs.embeddings, theirs.identities)
    if people is None or not np.isin(found, people).any():
        centres.rows_of(found)
    if len(some):
        require_fit(path, sums.to_centres(), open_search(centres))
    return centres_table(centres, copies)


def _some_people(store: Store, index: StageSpec) -> NDArray[np.int32]:
    """The numbers of at most about a thousand people, evenly from all."""
    columns = [store.read(index, shard, ["identity"]) for shard in sorted(store.present_shards(index))]
    people: NDArray[np.int32] = np.unique(pa.concat_tables(columns)["identity"].to_numpy())
    people = people[people >= 0]
    return people[:: max(1, len(people) // _TRIED)]


def _read_names(store: Store, index: StageSpec) -> list[str]:
    """The names of the data set's people in the order of their numbers; none where they have none."""
    path = store.root / IDENTITIES.name / index.fingerprint / "shard-00000.parquet"
    if not path.is_file():
        return []
    try:
        names: list[str] = pq.read_table(path, columns=["name"])["name"].to_pylist()
    except READ_ERRORS as error:
        raise DamagedShardError(path, "the names of the people cannot be read") from error
    return names
