"""Where tables lie, and how they are written so that nothing half-written is ever seen.

<workspace>/<data set>/<stage>/<fingerprint>/shard-00042.parquet    the tables, and nothing but Parquet
<workspace>/<data set>/<stage>/current                              link to the fingerprint last asked for
<workspace>/<data set>/_staging/<stage>/<fingerprint>/              parts of shards that are not whole yet
<workspace>/<data set>/_receipts/<stage>/<fingerprint>/             what made it, every run's figures, hashes of shards
<workspace>/<data set>/_damaged/                                    files that were not what they should be, set aside

Whatever is read back is untrusted until it was compared: `Store.read` compares stage, fingerprint, schema, rows and
keys of every shard that it reads.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from data_manifests.storage.atomic import sync_folder
from data_manifests.storage.json_files import DamagedFileError, read_json, write_json
from data_manifests.storage.parquet import write_table
from data_manifests.storage.shard_file import DamagedShardError, open_shard, read_columns
from data_manifests.tables.scores import STAGE_TABLES
from data_manifests.tables.stages import IDENTITIES, INDEX
from pipeline.storage.footers import Footer, Stamp, count_rows, read_footer, stamp_of
from pipeline.storage.seals import SEALS, Seal, append_seal, read_seals
from pipeline.storage.shards import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pyarrow as pa

    from pipeline.storage.fingerprint import StageSpec

logger = logging.getLogger(__name__)

STAGING = "_staging"
DAMAGED = "_damaged"
RECEIPTS = "_receipts"
QUALITY_MODEL = "quality_model"
"""Folder of the runs of TrainQuality."""
CURRENT = "current"
EVALUATION = "evaluation"
"""The folder of evaluations, beside those of data sets."""
PAGE = "index.html"
"""What a person opens, in the folder of a report or an evaluation."""
_SHARD = re.compile(r"shard-(\d{5})\.parquet")
_PART = re.compile(r"shard-(\d{5})-rows-(\d+)-(\d+)\.parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The folder of one data set in the workspace."""

    root: Path

    def folder(self, spec: StageSpec) -> Path:
        """Where the shards of a stage lie."""
        return self.root / spec.name / spec.fingerprint

    def staging(self, spec: StageSpec) -> Path:
        """Where parts wait until their shard is whole."""
        return self.root / STAGING / spec.name / spec.fingerprint

    def receipts(self, spec: StageSpec) -> Path:
        """Where the stage's description and the figures of its runs lie."""
        return self.root / RECEIPTS / spec.name / spec.fingerprint

    def shard(self, spec: StageSpec, number: int) -> Path:
        """The file of one shard."""
        return self.folder(spec) / _shard_name(number)

    def part(self, spec: StageSpec, part: Part) -> Path:
        """The staged file of one part. Its rows stand in its name, so that another cut is never mistaken for it."""
        return self.staging(spec) / f"shard-{part.shard:05d}-rows-{part.start}-{part.stop}.parquet"

    def listed_shards(self, spec: StageSpec) -> frozenset[int]:
        """The numbers of the files that are called shards, by one listing of the folder, whatever they hold."""
        return frozenset(int(m.group(1)) for m in _listing(self.folder(spec), _SHARD))

    def present_shards(self, spec: StageSpec) -> frozenset[int]:
        """The numbers of the shards that are there and sound, at the cost of a footer each."""
        judge = self._judge(spec)
        return frozenset(number for number in self.listed_shards(spec) if not judge(number))

    def present_parts(self, spec: StageSpec) -> frozenset[Part]:
        """The parts that wait in staging, whole."""
        found = (tuple(map(int, m.groups())) for m in _listing(self.staging(spec), _PART))
        parts = (Part(shard=shard, start=start, stop=stop) for shard, start, stop in found)
        return frozenset(part for part in parts if count_rows(self.part(spec, part)) == part.rows)

    def shard_count(self, spec: StageSpec) -> int | None:
        """How many shards the stage has when it is whole, as its first shard says; None where there is no sound one."""
        return self._footers(spec)(0).shards or None

    def rows(self, spec: StageSpec, number: int) -> int:
        """The rows of a sound shard, from its footer; 0 where it is none."""
        return self._footers(spec)(number).rows

    def is_complete(self, spec: StageSpec) -> bool:
        """Whether every shard of the stage is there and sound, and no other file that is called one."""
        count = self.shard_count(spec)
        wanted = frozenset(range(count or 0))
        return bool(count) and self.listed_shards(spec) == wanted == self.present_shards(spec)

    def fault(self, spec: StageSpec, number: int) -> str:
        """What is wrong with a shard, as its footer and size tell; empty where nothing is."""
        return self._judge(spec)(number)

    def _judge(self, spec: StageSpec) -> Callable[[int], str]:
        """Tells what is wrong with a shard of a stage; the fingerprints are computed once for all shards."""
        footer_of, seals, index = self._footers(spec), self.seals(spec), _index_of(spec)
        index_footer_of = self._footers(index) if index else None

        def judge(number: int) -> str:
            footer = footer_of(number)
            if footer.why:
                return footer.why
            if number >= footer.shards:
                return f"there are only {footer.shards} shards"
            rows = index_footer_of(number).rows if index_footer_of else 0
            if rows and rows != footer.rows:
                return f"it has {footer.rows:,} rows instead of {rows:,}"
            seal = seals.get(number)
            if seal is not None and seal.bytes != footer.bytes:
                return f"it has {footer.bytes:,} bytes instead of {seal.bytes:,}"
            return ""

        return judge

    def seals(self, spec: StageSpec) -> dict[int, Seal]:
        """Size and hash of every shard, as they were when it was written; of older shards there is none."""
        return read_seals(self.receipts(spec) / SEALS)

    def _footers(self, spec: StageSpec) -> Callable[[int], Footer]:
        """Reads the footer of a shard of a stage; once a process, as long as the file stays as it is."""
        folder, fingerprint = self.folder(spec), spec.fingerprint

        def read(number: int) -> Footer:
            path = folder / _shard_name(number)
            return read_footer(path, spec.name, fingerprint, stamp_of(path))

        return read

    def read(self, spec: StageSpec, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read columns of one shard, after comparing that it is the one: the only way in which a stage is read.

        Raises:
            DamagedShardError: if stage, fingerprint, schema, rows, or keys are not those that they must be.
        """
        path = self.shard(spec, number)
        if why := self.fault(spec, number):
            raise DamagedShardError(path, why)
        index = _index_of(spec)
        if index is None:
            return read_columns(open_shard(path, spec.name, spec.fingerprint), path, columns)
        wanted = None if columns is None else ["key", *(name for name in columns if name != "key")]
        table = read_columns(open_shard(path, spec.name, spec.fingerprint), path, wanted)
        if not table["key"].equals(_recall_keys(self, index, number)):
            raise DamagedShardError(path, "its keys are not those of the index")
        return table if columns is None else table.select(columns)

    def read_once(self, spec: StageSpec, number: int, columns: tuple[str, ...]) -> pa.Table:
        """Read columns of one shard, and keep them: the parts of a shard follow each other, and each would read it."""
        return _recall(_Kept(self, spec, stamp_of(self.shard(spec, number))), number, columns)

    def write_shard(self, spec: StageSpec, number: int, table: pa.Table, shards: int) -> None:
        """Write one shard whole or not at all; the same rows give the same bytes."""
        metadata = {
            "stage": spec.name,
            "fingerprint": spec.fingerprint,
            "shards": str(shards),
            "made_from": json.dumps(spec.describe(), sort_keys=True),
        }
        path = self.shard(spec, number)
        digest = write_table(path, table.replace_schema_metadata(metadata))
        seal = Seal(shard=number, rows=table.num_rows, bytes=path.stat().st_size, sha256=digest)
        append_seal(self.receipts(spec) / SEALS, seal)

    def write_part(self, spec: StageSpec, part: Part, table: pa.Table) -> None:
        """Stage one part."""
        write_table(self.part(spec, part), table)

    def drop_staging(self, spec: StageSpec) -> None:
        """Remove what waits in staging for this fingerprint."""
        shutil.rmtree(self.staging(spec), ignore_errors=True)

    def current(self, stage: str) -> str | None:
        """The fingerprint that the stage's `current` link names, if there is one."""
        link = self.root / stage / CURRENT
        return link.readlink().name if link.is_symlink() else None

    def point_current(self, spec: StageSpec) -> None:
        """Make `current` name this fingerprint, in one step; an index takes the names of its people along."""
        self._point(spec.name, spec.fingerprint)
        if spec.name == INDEX.name and (self.root / IDENTITIES.name / spec.fingerprint).is_dir():
            self._point(IDENTITIES.name, spec.fingerprint)

    def _point(self, stage: str, fingerprint: str) -> None:
        """Switch a stage's link."""
        folder = self.root / stage
        if (folder / CURRENT).exists() and not (folder / CURRENT).is_symlink():
            self.set_aside(folder / CURRENT, "no link to the folder last asked for")
        temporary = folder / f".{CURRENT}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(fingerprint, target_is_directory=True)
        temporary.replace(folder / CURRENT)
        sync_folder(folder)

    def remember(self, spec: StageSpec) -> None:
        """Keep the stage's description with its receipts."""
        write_json(self.receipts(spec) / "made_from.json", spec.describe())

    def recall(self, stage: str, fingerprint: str) -> dict[str, Any] | None:
        """The description of an output made earlier; None where it is not known."""
        try:
            description = read_json(self.root / RECEIPTS / stage / fingerprint / "made_from.json")
        except (OSError, DamagedFileError):
            return None
        return description if isinstance(description.get("parameters"), dict) else None

    def set_aside(self, path: Path, why: str) -> None:
        """Move a file or folder that is not what it should be out of the way, and say so; nothing is removed."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        place = self.root / DAMAGED / f"{self._name_aside(path)}.{stamp}"
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
        logger.warning("%s is damaged (%s): it was moved to %s, and is made again", path, why, place)

    def times_set_aside(self, path: Path) -> int:
        """How many files of that path were set aside."""
        return len(list((self.root / DAMAGED).glob(f"{self._name_aside(path)}.*")))

    def _name_aside(self, path: Path) -> str:
        """What tells a file among those that were set aside."""
        return "-".join(path.relative_to(self.root).parts)


def _shard_name(number: int) -> str:
    """The name of a shard's file."""
    return f"shard-{number:05d}.parquet"


def _listing(folder: Path, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """The names in a folder that match; none where the folder is missing."""
    try:
        with os.scandir(folder) as entries:
            return [match for entry in entries if (match := pattern.fullmatch(entry.name))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _index_of(spec: StageSpec) -> StageSpec | None:
    """The index whose rows and keys a stage must have; None for those that have no row for every image."""
    table = STAGE_TABLES.get(spec.name)
    if table is None or not table.per_image:
        return None
    return next((parent for parent in spec.upstream if parent.name == INDEX.name), None)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A shard's file: the same as another of its path and stamp, so that what was read of it is found again."""

    store: Store
    spec: StageSpec = field(compare=False)
    stamp: Stamp
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.store.folder(self.spec))


@lru_cache(maxsize=4)
def _recall(kept: _Kept, number: int, columns: tuple[str, ...]) -> pa.Table:
    return kept.store.read(kept.spec, number, columns)


def _recall_keys(store: Store, index: StageSpec, number: int) -> pa.ChunkedArray:
    """The keys of a shard of the index."""
    return store.read_once(index, number, ("key",))["key"]
