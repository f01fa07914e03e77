"""Weight files: found, verified against the registry, fetched when they are missing."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from data_manifests.weights.cache import (
    FIRST_USE,
    WeightsError,
    WeightsMismatchError,
    WeightsMissingError,
    WeightsUnreachableError,
    cache_folder,
    cached_path,
    remembered_sha256,
    trust,
    trusted_sha256,
)
from data_manifests.weights.downloads import SourceError, fetch_file, hold_downloads, open_clip_url
from data_manifests.weights.entry import OpenClipSource, RepositorySource
from data_manifests.weights.registry import load_registry, model_folders

if TYPE_CHECKING:
    from data_manifests.weights.downloads import RemoteSource
    from data_manifests.weights.entry import ModelEntry, Source, WeightFile

__all__ = [
    "WeightsError",
    "WeightsMismatchError",
    "WeightsMissingError",
    "WeightsUnreachableError",
    "cache_folder",
    "fetch",
    "find",
    "sha256_of_entry",
]

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds this project's packages: paths of a repository source start here."""


def find(entry: ModelEntry) -> tuple[Path, ...]:
    """The verified files of a network, in the entry's order.

    Looked for in the folders of FIQA_MODELS, then in the cache, where networks share a file that they have in common,
    then in this project. The first file of that name counts: one with another content is an error, not passed over.

    Raises:
        WeightsMissingError: if a file is nowhere.
        WeightsMismatchError: if a file has another size or hash than the entry says.
    """
    return tuple(_find_file(entry, file) for file in entry.files)


def sha256_of_entry(entry: ModelEntry) -> tuple[str, ...]:
    """The hashes of a network's files, for fingerprints; a file is needed only where the entry names no hash.

    Raises:
        WeightsError: if such a file is missing or has changed since its first use.
    """
    return tuple(file.sha256 or remembered_sha256(_find_file(entry, file)) for file in entry.files)


def fetch(entry: ModelEntry) -> tuple[Path, ...]:
    """Find a network's files, and fetch into the cache those that are missing or spoilt there.

    One process downloads at a time; another one waits, and finds what the first has brought.

    Args:
        entry: the network.

    Raises:
        WeightsMismatchError: if a file of FIQA_MODELS, or what a source gives, is not what the entry says.
        WeightsUnreachableError: if no source gave a file.
        DiskFullError: if no space is left.
        WeightsError: if the cache cannot be written.
    """
    return tuple(_fetch_file(entry, file) for file in entry.files)


def _find_file(entry: ModelEntry, file: WeightFile) -> Path:
    """One file of a network, verified."""
    places = _places(entry, file)
    for path in places:
        if path.is_file():
            _verify(path, entry, file)
            return path
    looked = ", ".join(str(place) for place in places)
    fetching = f"run `python -m pipeline weights fetch {entry.name}`, or name the folder that holds it in FIQA_MODELS"
    remedy = fetching if file.sources else _bring_yourself(entry)
    raise WeightsMissingError(f"{file.name} of the network {entry.name} is in none of {looked}: {remedy}")


def _bring_yourself(entry: ModelEntry) -> str:
    """What to do where the registry names no source."""
    notes = " ".join(entry.notes.split())
    return "it cannot be fetched; put it into a folder, and name that folder in FIQA_MODELS" + (
        f". Its entry in models.toml says: {notes}" if notes else ""
    )


def _places(entry: ModelEntry, file: WeightFile) -> list[Path]:
    """Where a file may lie, in order."""
    places = [path for folder in model_folders() for path in (folder / entry.name / file.name, folder / file.name)]
    places += _cached_paths(entry, file)
    places += [ROOT / source.path for source in file.sources if isinstance(source, RepositorySource)]
    return places


def _cached_paths(entry: ModelEntry, file: WeightFile) -> list[Path]:
    """Where a file may lie in the cache: in its network's folder, or in that of another network with the same file."""
    content = (file.name, file.sha256)
    others = load_registry().entries.values() if file.sha256 else ()
    sharing = [other for other in others if any((mine.name, mine.sha256) == content for mine in other.files)]
    return list(dict.fromkeys(cached_path(one, file) for one in (entry, *sharing)))


def _verify(path: Path, entry: ModelEntry, file: WeightFile) -> None:
    """Compare a file with what the entry says, or with its first use."""
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        raise _mismatch(path, entry, file, f"expected {file.bytes} bytes, found {size}")
    found, expected = remembered_sha256(path), trusted_sha256(entry, file)
    if expected is None:
        trust(entry, file, found)
    elif found != expected:
        since = "" if file.sha256 else " since its first use"
        raise _mismatch(path, entry, file, f"expected sha256 {expected}{since}, found {found}")


def _mismatch(path: Path, entry: ModelEntry, file: WeightFile, difference: str) -> WeightsMismatchError:
    """The error for a file that is there but wrong, with the remedy that fits its place."""
    if path in _cached_paths(entry, file):
        remedy = f"`python -m pipeline weights fetch {entry.name}` replaces it"
    elif any(path.is_relative_to(folder) for folder in model_folders()):
        remedy = "put the right file there, remove it, or leave its folder out of FIQA_MODELS"
    else:
        remedy = "restore it, or install this project anew"
    if file.sha256 is None:
        remedy += (
            f"; if it was changed on purpose, take {entry.name}/{file.name} out of {cache_folder() / FIRST_USE},"
            " or write its sha256 into the network's entry in models.toml"
        )
    return WeightsMismatchError(f"{path} is not {file.name} of the network {entry.name}: {difference}; {remedy}", path)


def _fetch_file(entry: ModelEntry, file: WeightFile) -> Path:
    """Find one file, or fetch it from the first source that gives it."""
    with contextlib.suppress(WeightsMissingError):
        return _find_or_discard(entry, file)
    with hold_downloads() as folder:
        with contextlib.suppress(WeightsMissingError):
            return _find_or_discard(entry, file)
        _bring_from_any(entry, file, folder)
    return _find_file(entry, file)


def _bring_from_any(entry: ModelEntry, file: WeightFile, folder: Path) -> None:
    """Bring a file from the first source that gives it."""
    if not file.sources:
        raise WeightsUnreachableError(f"{file.name} of the network {entry.name} is not here: {_bring_yourself(entry)}")
    errors: list[SourceError | WeightsMismatchError] = []
    for source in file.sources:
        try:
            return fetch_file(entry, file, _remote(source), folder)
        except (SourceError, WeightsMismatchError) as error:
            log.warning("%s of %s: %s", file.name, entry.name, error)
            errors.append(error)
    message = (
        f"{file.name} of the network {entry.name} cannot be fetched: "
        f"{'; '.join(map(str, errors))}. Put that right and run "
        f"`python -m pipeline weights fetch {entry.name}` again, or put the file into a folder and name that "
        "folder in FIQA_MODELS"
    )
    mismatch = any(isinstance(error, WeightsMismatchError) for error in errors)
    raise WeightsMismatchError(message) if mismatch else WeightsUnreachableError(message)


def _remote(source: Source) -> RemoteSource:
    """Where to download from."""
    match source:
        case RepositorySource():
            raise SourceError(f"{source.path} is not part of this installation")
        case OpenClipSource():
            return open_clip_url(source)
    return source


def _find_or_discard(entry: ModelEntry, file: WeightFile) -> Path:
    """Find a file; one that is spoilt in the cache counts as missing, and is replaced by what comes."""
    try:
        return _find_file(entry, file)
    except WeightsMismatchError as error:
        if error.path not in _cached_paths(entry, file):
            raise
        log.warning("%s", error)
        raise WeightsMissingError(str(error)) from error
