"""The cache of weight files: where they lie, which hashes are known, and what can be wrong with a file.

Two small JSON files hold hashes. verified.json saves hashing a file that has not changed since (size, times), and may
be deleted at any time. first_use.json holds the hashes of files whose registry entry names none. A cache that cannot be
written costs time, and the memory of a first use, but breaks nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from data_manifests.storage.atomic import sha256_of, write_atomically
from data_manifests.storage.json_files import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from data_manifests.weights.entry import ModelEntry, WeightFile

log = logging.getLogger(__name__)

_VERIFIED = "verified.json"
FIRST_USE = "first_use.json"
"""Hashes of the files whose entry names none, in the cache's folder."""
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
    if chosen := os.environ.get("FIQA_CACHE", "").strip():
        return Path(chosen).expanduser().absolute()
    import pooch  # noqa: PLC0415 - see downloads.py

    return Path(pooch.os_cache("fiqa-factory")) / "weights"


def cached_path(entry: ModelEntry, file: WeightFile) -> Path:
    """Where a fetched file lies."""
    return cache_folder() / entry.name / file.name


def remembered_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, remembered as long as its size and times stay."""
    name, before = str(path.resolve()), _signature(path)
    known: object = None
    with contextlib.suppress(ValueError):
        known = _read(_VERIFIED).get(name)
    if isinstance(known, list) and known[:-1] == before:
        return str(known[-1])
    digest = sha256_of(path)
    if _signature(path) == before:
        _update(_VERIFIED, lambda record: record.update({name: [*before, digest]}))
    return digest


def trusted_sha256(entry: ModelEntry, file: WeightFile) -> str | None:
    """The hash that a file must have: the registry's, or that of its first use; None before that.

    Raises:
        WeightsError: if the record of first uses cannot be read.
    """
    if file.sha256 is not None:
        return file.sha256
    try:
        return _read(FIRST_USE).get(_key(entry, file))
    except ValueError as error:
        raise WeightsError(
            f"{cache_folder() / FIRST_USE} is damaged, so it is unknown which {_key(entry, file)} was trusted: delete "
            "it to trust the files that are there now, or write their sha256 into models.toml"
        ) from error


def trust(entry: ModelEntry, file: WeightFile, digest: str) -> None:
    """Record the hash of a file at its first use; one that is recorded already stays."""
    if not _update(FIRST_USE, lambda record: record.setdefault(_key(entry, file), digest)):
        log.warning("%s has sha256 %s, which %s cannot record", _key(entry, file), digest, cache_folder())


def _key(entry: ModelEntry, file: WeightFile) -> str:
    """A file's name in the record of first uses."""
    return f"{entry.name}/{file.name}"


def _signature(path: Path) -> list[int]:
    """What changes when a file's content does: size, time of content, time of any change."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _read(name: str) -> dict[str, Any]:
    """A record; empty where there is none.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        content = parse_json((cache_folder() / name).read_text(encoding="utf-8"))
    except OSError:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{name} is not a table")  # noqa: TRY004 - as other damage of JSON
    return content


def _update(name: str, change: Callable[[dict[str, Any]], object]) -> bool:
    """Change a record under its lock, a damaged one anew; False where the cache cannot be written."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".records.lock", timeout=_LOCK_SECONDS):
            record: dict[str, Any] = {}
            with contextlib.suppress(ValueError):
                record = _read(name)
            change(record)
            text = json.dumps(record, indent=1, sort_keys=True).encode()
            write_atomically(folder / name, lambda file: file.write(text))
    except OSError as error:
        log.debug("%s cannot be written: %s", folder / name, error)
        return False
    return True
