"""The cache of weight files: where they lie, which hashes are known, and what can be wrong with a file."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pooch
from filelock import FileLock

from data_manifests.storage.atomic import sha256_of, write_atomically

if TYPE_CHECKING:
    from data_manifests.weights.entry import Entry, WeightFile

log = logging.getLogger(__name__)

_LOCK_SECONDS = 10.0


class WeightsError(RuntimeError):
    """A network's files cannot be had; says which, why and what to do."""


class WeightsMissingError(WeightsError):
    """A file is nowhere; says where it was looked for."""


class WeightsUnreachableError(WeightsError):
    """No source gave a file; says what each of them answered."""


class WeightsMismatchError(WeightsError):
    """A file is not what the registry says; says which, what was expected and what was found.

    Attributes:
        path: the file, where it lies on this machine.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


def cache_folder() -> Path:
    """Where fetched files lie: FIQA_CACHE, or `weights` in the user's cache folder for this project."""
    chosen = os.environ.get("FIQA_CACHE", "").strip()
    return Path(chosen).expanduser().absolute() if chosen else Path(pooch.os_cache("fiqa-factory")) / "weights"


def cached_path(entry: Entry, file: WeightFile) -> Path:
    """Where a fetched file lies."""
    return cache_folder() / entry.name / file.name


def known_hashes() -> HashRecord:
    """The record of hashes in the cache."""
    return HashRecord(folder=cache_folder())


@dataclass(frozen=True, slots=True, kw_only=True)
class HashRecord:
    """Two small JSON files.

    verified.json saves hashing a file that has not changed since (path, size, times), and may be deleted at any time.
    first_use.json holds the hashes of files whose registry entry names none. A folder that cannot be written costs
    time, and the memory of a first use, but breaks nothing.
    """

    folder: Path

    def sha256(self, path: Path) -> str:
        """The SHA-256 of a file's content, remembered as long as its size and times stay."""
        name, before = str(path.resolve()), _signature(path)
        known = _read(self._verified).get(name)
        if isinstance(known, list) and known[:-1] == before and isinstance(known[-1], str):
            return known[-1]
        digest = sha256_of(path)
        if _signature(path) == before:
            self._add(self._verified, {name: [*before, digest]})
        return digest

    def trusted(self, entry: Entry, file: WeightFile) -> str | None:
        """The hash that a file must have: the registry's, or that of its first use; None before that.

        Raises:
            WeightsError: if the record of first uses cannot be read.
        """
        if file.sha256 is not None:
            return file.sha256
        try:
            value = _read(self._first_use, strict=True).get(_key(entry, file))
        except ValueError as error:
            raise WeightsError(
                f"{self._first_use} is damaged, so it is unknown which {_key(entry, file)} was trusted: delete it to "
                "trust the files that are there now, or write their sha256 into models.toml"
            ) from error
        return value if isinstance(value, str) else None

    def trust(self, entry: Entry, file: WeightFile, digest: str) -> None:
        """Record the hash of a file at its first use; one that is recorded already stays."""
        if not self._add(self._first_use, {_key(entry, file): digest}):
            log.warning("%s has sha256 %s, which %s cannot record", _key(entry, file), digest, self.folder)

    def _add(self, path: Path, news: dict[str, Any]) -> bool:
        """Add to a record under its lock; False where the folder cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".records.lock", timeout=_LOCK_SECONDS):
                present = _read(path)
                if path == self._verified:
                    content = {name: value for name, value in present.items() if Path(name).exists()} | news
                else:
                    content = news | present
                text = json.dumps(content, indent=1, sort_keys=True).encode()
                write_atomically(path, lambda file: file.writelines([text]))
        except OSError as error:
            log.debug("%s cannot be written: %s", path, error)
            return False
        return True

    @property
    def _verified(self) -> Path:
        return self.folder / "verified.json"

    @property
    def _first_use(self) -> Path:
        return self.folder / "first_use.json"


def _key(entry: Entry, file: WeightFile) -> str:
    """A file's name in the record of first uses."""
    return f"{entry.name}/{file.name}"


def _signature(path: Path) -> list[int]:
    """What changes when a file's content does: size, time of content, time of any change."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _read(path: Path, *, strict: bool = False) -> dict[str, Any]:
    """A record; empty where there is none, and where it is damaged unless `strict`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except ValueError:
        if strict:
            raise
        return {}
    if isinstance(content, dict):
        return content
    if strict:
        raise ValueError("not a table")
    return {}
