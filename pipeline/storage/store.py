"""Where tables lie, and how they are written so that nothing half-written is ever seen.

<workspace>/<data set>/<stage>/<fingerprint>/shard-00042.parquet    the tables, and nothing but Parquet
<workspace>/<data set>/<stage>/current                              link to the fingerprint last asked for
<workspace>/<data set>/_staging/<stage>/<fingerprint>/              parts of shards that are not whole yet
<workspace>/<data set>/_receipts/<stage>/<fingerprint>/             what made it, and every run's figures
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.storage.atomic import sync_folder, write_atomically
from data_manifests.storage.parquet import write_table
from data_manifests.tables.stages import IDENTITIES, INDEX
from pipeline.storage.shards import Part

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.storage.fingerprint import StageSpec

STAGING = "_staging"
RECEIPTS = "_receipts"
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
        return self.folder(spec) / f"shard-{number:05d}.parquet"

    def part(self, spec: StageSpec, part: Part) -> Path:
        """The staged file of one part. Its rows stand in its name, so that another cut is never mistaken for it."""
        return self.staging(spec) / f"shard-{part.shard:05d}-rows-{part.start}-{part.stop}.parquet"

    def present_shards(self, spec: StageSpec) -> frozenset[int]:
        """The numbers of the shards that are there, by one listing of the folder."""
        return frozenset(int(m.group(1)) for m in _listing(self.folder(spec), _SHARD))

    def present_parts(self, spec: StageSpec) -> frozenset[Part]:
        """The parts that wait in staging."""
        found = (tuple(map(int, m.groups())) for m in _listing(self.staging(spec), _PART))
        return frozenset(Part(shard=shard, start=start, stop=stop) for shard, start, stop in found)

    def shard_count(self, spec: StageSpec) -> int | None:
        """How many shards the stage has when it is whole, as its first shard says; None where that is missing."""
        metadata = self.metadata(spec)
        return int(metadata["shards"]) if metadata else None

    def metadata(self, spec: StageSpec, number: int = 0) -> dict[str, str]:
        """The file metadata of a shard as text; empty where the shard is missing."""
        return read_metadata(self.shard(spec, number))

    def is_complete(self, spec: StageSpec) -> bool:
        """Whether every shard of the stage is there."""
        present = self.present_shards(spec)
        if 0 not in present:
            return False
        count = self.shard_count(spec)
        return count is not None and present >= frozenset(range(count))

    def write_shard(self, spec: StageSpec, number: int, table: pa.Table, shards: int) -> None:
        """Write one shard whole or not at all; the same rows give the same bytes."""
        metadata = {
            "stage": spec.name,
            "fingerprint": spec.fingerprint,
            "shards": str(shards),
            "made_from": json.dumps(spec.describe(), sort_keys=True),
        }
        write_table(self.shard(spec, number), table.replace_schema_metadata(metadata))

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
        path = self.root / RECEIPTS / stage / fingerprint / "made_from.json"
        try:
            description: dict[str, Any] = json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return description


def _listing(folder: Path, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """The names in a folder that match; none where the folder is missing."""
    try:
        with os.scandir(folder) as entries:
            return [match for entry in entries if (match := pattern.fullmatch(entry.name))]
    except FileNotFoundError:
        return []


def read_metadata(path: Path) -> dict[str, str]:
    """The key-value metadata of a Parquet file as text; empty where there is no such file."""
    try:
        raw: Mapping[bytes, bytes] = pq.read_metadata(path).metadata or {}
    except FileNotFoundError:
        return {}
    return {k.decode(): v.decode() for k, v in raw.items() if k != b"ARROW:schema"}


def read_columns(folder: Path, number: int, columns: list[str] | None = None) -> pa.Table:
    """Read columns of one shard."""
    return pq.read_table(folder / f"shard-{number:05d}.parquet", columns=columns, use_threads=False, memory_map=True)


@lru_cache(maxsize=2)
def recall_columns(folder: Path, number: int, columns: tuple[str, ...]) -> pa.Table:
    """Read columns of one shard, and keep them: the parts of a shard follow each other, and each would read it anew.

    What a fingerprint's shard holds never changes, so what is kept never grows old.
    """
    return read_columns(folder, number, list(columns))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
