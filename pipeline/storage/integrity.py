"""Finds what is damaged in a data set's folder, and sets it aside so that the run that follows makes it again."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from data_manifests.storage.atomic import sha256_of
from data_manifests.storage.json_files import write_json
from data_manifests.storage.shard_file import DamagedShardError
from data_manifests.tables.scores import STAGE_TABLES
from data_manifests.tables.stages import IDENTITIES, INDEX
from pipeline.storage.footers import count_rows
from pipeline.storage.seals import SEALS, Seal, append_seal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pipeline.storage.fingerprint import StageSpec
    from pipeline.storage.store import Store

logger = logging.getLogger(__name__)

CHECKED = "checked.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A file that is not what it should be.

    Attributes:
        spec: its stage.
        path: the file.
        why: what is wrong with it.
        is_readable: whether an earlier version would have read it without a word, so that what rests on it is doubted.
    """

    spec: StageSpec
    path: Path
    why: str
    is_readable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a comparison of contents found.

    Attributes:
        shards: whose content was compared.
        unknown: that were written without a hash, so that there is nothing to compare with.
        faults: what is damaged.
    """

    shards: int
    unknown: int
    faults: tuple[Fault, ...]


def mend(store: Store, specs: Iterable[StageSpec]) -> None:
    """Set aside what sizes and footers tell to be damaged; call it while the folder's lock is held."""
    for spec in specs:
        for place in (store.folder(spec), store.receipts(spec), store.staging(spec)):
            for path in (place.parent.parent, place.parent, place):
                if path.exists() and not path.is_dir():
                    store.set_aside(path, "a file in place of a folder")
        for fault in find_faults(store, spec):
            store.set_aside(fault.path, fault.why)


def find_faults(store: Store, spec: StageSpec) -> Iterator[Fault]:
    """What is damaged in a stage, by sizes and footers."""
    for number in sorted(store.listed_shards(spec)):
        if why := store.fault(spec, number):
            yield Fault(spec=spec, path=store.shard(spec, number), why=why)
    if spec.name == INDEX.name:
        names = store.root / IDENTITIES.name / spec.fingerprint / "shard-00000.parquet"
        if names.exists() and count_rows(names) is None:
            yield Fault(spec=spec, path=names, why="no whole Parquet file")
            # The index writes the names of its people, so it has to be made again.
            yield from (
                Fault(spec=spec, path=store.shard(spec, n), why="made again with the names of its people")
                for n in sorted(store.present_shards(spec))
            )


def compare(store: Store, specs: Iterable[StageSpec], *, record: bool) -> Checked:
    """Compare the content of every shard with what was written, and its keys with those of the index.

    Args:
        store: of the data set.
        specs: the stages.
        record: keep the hash of a shard that has none, to compare later; and when this was.
    """
    faults, compared, unknown = [], 0, 0
    for spec in specs:
        found = list(find_faults(store, spec))
        sound = sorted(store.present_shards(spec))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            hashes = list(pool.map(sha256_of, [store.shard(spec, number) for number in sound]))
        seals = store.seals(spec)
        for number, digest in zip(sound, hashes, strict=True):
            seal, path = seals.get(number), store.shard(spec, number)
            if seal is not None and seal.sha256 != digest:
                found.append(Fault(spec=spec, path=path, why="its content is not what was written", is_readable=True))
            elif why := _compare_keys(store, spec, number):
                found.append(Fault(spec=spec, path=path, why=why, is_readable=True))
            elif seal is None and record:
                _record(store, spec, number, digest)
        known = sum(number in seals for number in sound)
        compared, unknown = compared + known, unknown + len(sound) - known
        if record and sound:
            when = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(store.receipts(spec) / CHECKED, {"when": when, "shards": known, "unknown": len(sound) - known})
        faults += found
    return Checked(shards=compared, unknown=unknown, faults=tuple(faults))


def recheck(store: Store, specs: Iterable[StageSpec]) -> Checked:
    """Compare all contents, and set aside what is damaged, with all that was made from values that may be wrong.

    Call it while the folder's lock is held.
    """
    specs = tuple(specs)
    mend(store, specs)
    checked = compare(store, specs, record=True)
    doubted = {fault.spec.fingerprint for fault in checked.faults if fault.is_readable}
    for fault in checked.faults:
        if fault.path.exists():
            store.set_aside(fault.path, fault.why)
    for spec in specs:
        below = [parent for parent in spec.closure()[:-1] if parent.fingerprint in doubted]
        for number in sorted(store.listed_shards(spec)) if below else ():
            store.set_aside(store.shard(spec, number), f"made from {below[0].name} whose values were changed")
    logger.info("recheck: %d shards hold what was written", checked.shards - len(checked.faults))
    if checked.unknown:
        logger.info("recheck: %d shards were written without a hash; it is recorded now", checked.unknown)
    return checked


def _compare_keys(store: Store, spec: StageSpec, number: int) -> str:
    """What is wrong with the keys of a shard; empty where nothing is."""
    try:
        if STAGE_TABLES[spec.name].per_image:
            store.read(spec, number, ["key"])
    except DamagedShardError as error:
        return error.why
    return ""


def _record(store: Store, spec: StageSpec, number: int, digest: str) -> None:
    """Keep the hash of a shard that has none."""
    size = store.shard(spec, number).stat().st_size
    seal = Seal(shard=number, rows=store.rows(spec, number), bytes=size, sha256=digest)
    append_seal(store.receipts(spec) / SEALS, seal)
