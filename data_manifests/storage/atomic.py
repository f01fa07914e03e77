"""Files that are whole or absent: atomic writes and the lock of a workspace."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import socket
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typing_extensions import Buffer


_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")
"""The names of temporary files and folders."""


class DiskFullError(OSError):
    """No space is left for a file; says which folder and what to do."""


@contextlib.contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turn 'no space left' into an error that names the folder and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                error.errno, f"no space is left in {folder}: free some, then run the same command again"
            ) from error
        raise


class _Disk(io.FileIO):
    """A file that remembers the system's error: what writes through it may answer with another one of its own."""

    fault: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        """Write, and keep the error."""
        try:
            return super().write(data)
        except OSError as error:
            self.fault = error
            raise


def create_beside(path: Path) -> tuple[int, Path]:
    """Create a temporary file in a file's folder, with the rights that the umask leaves of 0666.

    Returns:
        Its handle, open for reading and writing, and its path, which `remove_leftovers` knows.
    """
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with contextlib.suppress(FileExistsError):
            return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), temporary


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], object], check: Callable[[Path], None] | None = None
) -> None:
    """Write a file so that it is seen whole or not at all, whatever happens in between.

    The bytes go to a temporary file in the same folder, are flushed to the disk, checked, and renamed over
    `path`; then the folder itself is flushed.

    Args:
        path: the file to make; its folder is made when it is missing.
        write: writes the content to the open binary file.
        check: reads the temporary file back and raises if it is not right.

    Raises:
        DiskFullError: if no space is left; nothing stays behind.
    """
    with explain_full_disk(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = create_beside(path)
        disk = _Disk(handle, "w")
        try:
            with io.BufferedWriter(disk) as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if check is not None:
                check(temporary)
            temporary.replace(path)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if disk.fault is not None and not isinstance(error, KeyboardInterrupt):
                raise disk.fault from error
            raise
        sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left under a folder; call it while its lock is held."""
    for path in list(folder.rglob(".*.tmp")):
        if _TEMPORARY.fullmatch(path.name) is None:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class LockedError(RuntimeError):
    """Another run holds the lock; says who, where and since when."""


class RunLock:
    """A lock on a folder that dies with its process, however that ends.

    The holder's process number, machine, command and start stand beside the lock, so that who waits knows on whom.

    Args:
        folder: what is locked.
        otherwise: what else the user can do than wait for the holder, or stop it.
    """

    def __init__(self, folder: Path, otherwise: str = "name another folder") -> None:
        self._otherwise = otherwise
        self._folder = folder
        self._holder = folder / ".lock.json"
        self._lock = FileLock(folder / ".lock")

    def acquire(self, command: str) -> None:
        """Take the lock.

        Raises:
            LockedError: if another process holds it; names that process. Or if the folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise LockedError(self._explain()) from None
        except OSError as error:
            raise LockedError(
                f"{error.filename or self._lock.lock_file} cannot be written ({error.strerror}): see to it that you "
                f"may write there, remove what is no folder or lock, or {self._otherwise}"
            ) from error
        holder = {
            "process": os.getpid(),
            "machine": socket.gethostname(),
            "command": command,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_atomically(self._holder, lambda file: file.write(json.dumps(holder).encode()))

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def _explain(self) -> str:
        """Who holds the lock, in one sentence with the remedy."""
        folder = self._holder.parent
        try:
            holder = json.loads(self._holder.read_text())
            who = "process {process} on {machine}, since {since}, with `{command}`".format(**holder)
        except (OSError, ValueError, KeyError):
            who = "another process"
        return f"{folder} is in use by {who}: wait for it, or stop it, or {self._otherwise}"
