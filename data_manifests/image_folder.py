"""Reads face data sets that are folders of image files, one folder a person."""

from __future__ import annotations

import hashlib
import heapq
import logging
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar

import numpy as np

from data_manifests.recordio.format import UNKNOWN_IDENTITY
from data_manifests.tables.stages import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Of the files that count as images, in any case."""

SYSTEM_FOLDERS = frozenset(
    {
        "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recently-snapshot", "@recycle", "@tmp", "@__thumb",
        "__macosx", "found.000", "lost+found", "recycler", "system volume information", "~snapshot",
    }
)  # fmt: skip
"""What storage devices and operating systems put among people's files: thumbnails, bins, snapshots. In any case."""

MAX_BYTES = 1 << 29
"""No image file is larger; the same limit as RecordIO's."""


class ImageFolderError(ValueError):
    """A folder cannot be used as a data set; names the place and the remedy."""


class ImageFileError(OSError):
    """An image file is gone or cannot be read."""

    status: ClassVar[Status] = Status.MISSING


class ImageFileTooLargeError(ImageFileError):
    """A file has the name of an image and a size that no image has."""

    status: ClassVar[Status] = Status.DECODE_ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """An image file: path below the root with slashes, size in bytes, modification time in nanoseconds."""

    path: str
    size: int
    mtime_ns: int


class ImageFolder:
    """A folder whose sub-folders hold one person's images each.

    The folder directly below the root is the person, however deep below it an image lies. The people are numbered
    from 0 in the order of those folders that hold an image: first folders whose names are numbers, by value, so that
    `2` comes before `10`, then the others by the bytes of their names. Images directly in the root show an unknown
    person, identity -1: they can be measured, but have no class centre. So a plain folder of photos can be used too.
    Paths are sorted by their bytes.

    Names that start with a dot are left out, files and folders, and so are `SYSTEM_FOLDERS`. Links are followed; a
    folder that is reached twice, as in a loop, counts once: under its own name, or under the first of the links. A link
    that leads nowhere is listed like any image, and fails when it is read.

    The folder is listed on first use. A pickled one carries the root only and lists anew when asked for its keys;
    `read` needs no list.

    Attributes:
        root: the folder.
    """

    def __init__(self, root: Path | str) -> None:
        """Name the folder.

        Raises:
            NotADirectoryError: if it is none, or does not exist.
        """
        self.root = Path(root)
        if not self.root.is_dir():
            raise NotADirectoryError(f"{self.root}: no such folder; check the data set's root")

    def __getstate__(self) -> dict[str, object]:
        return {"root": self.root}

    def __len__(self) -> int:
        """The number of images."""
        return len(self._files)

    @property
    def keys(self) -> NDArray[np.int32]:
        """The images' keys, int32 [N]: 1 to N in the order of the paths."""
        return np.arange(1, len(self._files) + 1, dtype=np.int32)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The images' paths below the root, with slashes, sorted by their bytes; N of them."""
        return tuple(file.path for file in self._files)

    @cached_property
    def names(self) -> dict[int, str]:
        """The folder of every person, by number."""
        return dict(enumerate(sorted({path.split("/", 1)[0] for path in self.paths if "/" in path}, key=_place_of)))

    @cached_property
    def identities(self) -> NDArray[np.int32]:
        """The person in every image, int32 [N]; -1 for images directly in the root."""
        numbers = {name: number for number, name in self.names.items()}
        people = (numbers[path.split("/", 1)[0]] if "/" in path else UNKNOWN_IDENTITY for path in self.paths)
        return np.fromiter(people, np.int32, len(self.paths))

    @property
    def lengths(self) -> NDArray[np.int32]:
        """The sizes of the files in bytes, int32 [N]; 0 for a link that leads nowhere."""
        return np.fromiter((min(file.size, 2**31 - 1) for file in self._files), np.int32, len(self._files))

    def read(self, path: str) -> bytes:
        """The content of an image file.

        Args:
            path: below the root, as in `paths`.

        Raises:
            ImageFileError: if it is gone, is no ordinary file, or cannot be read; its `status` says what to record.
        """
        place = self.root / path
        try:
            # a pipe that bears an image's name must not keep the reader waiting
            with open(place, "rb", opener=_open_at_once) as file:
                return _read_image(file, place)
        except ImageFileError:
            raise
        except OSError as error:
            raise ImageFileError(f"{place}: {error.strerror}; bring the file back, or index the folder anew") from error

    def fingerprint_parts(self) -> str:
        """SHA-256, in hexadecimal, of the sorted list of paths, sizes and modification times in nanoseconds.

        The folders' names follow where numbers are not in the order of their bytes: such people once had other numbers.
        """
        digest = hashlib.sha256()
        for file in self._files:
            digest.update(f"{file.path}\0{file.size}\0{file.mtime_ns}\n".encode())
        names = list(self.names.values())
        if names != sorted(names):
            digest.update("\n".join(names).encode())
        return digest.hexdigest()

    @cached_property
    def _files(self) -> list[_File]:
        images = ((path, entry) for path, entry in walk_files(self.root) if path.lower().endswith(SUFFIXES))
        files = [file for path, entry in images if (file := _describe(entry, path))]
        if not files:
            raise ImageFolderError(
                f"{self.root}: no image in it; an image is a file that ends in {', '.join(SUFFIXES)}, in any case"
            )
        for file in files:
            if not _is_utf8(file.path):
                name = os.fsencode(file.path)
                raise ImageFolderError(
                    f"{self.root}: the name {name!r} is not UTF-8, so no table can hold it; rename it"
                )
        # the order of code points is that of their UTF-8 bytes
        files.sort(key=lambda file: file.path)
        return files


def _place_of(name: str) -> tuple[bool, int, str]:
    """By what people's folders are sorted: numbers by value, then names."""
    number = name.isascii() and name.isdecimal()
    return (not number, int(name) if number else 0, name)


def is_left_out(name: str) -> bool:
    """Whether a file or folder of that name is none of a person's: hidden, or a system's."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_image(file: BinaryIO, place: Path) -> bytes:
    """The content of an open file, if it is an ordinary one of a sensible size."""
    facts = os.fstat(file.fileno())
    if not stat.S_ISREG(facts.st_mode):
        raise ImageFileError(f"{place}: not an ordinary file; remove it from the data set")
    if facts.st_size > MAX_BYTES:
        raise ImageFileTooLargeError(f"{place}: {facts.st_size} bytes are no image; remove the file")
    return file.read(facts.st_size)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def walk_files(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file below a folder by its path with slashes, in no order; none where there is no folder.

    Links to folders are followed after all real folders, each folder once; `is_left_out` says what is passed over.

    Raises:
        ImageFolderError: if a folder cannot be listed.
    """
    seen: set[tuple[int, int]] = set()
    folders, links = [""] if root.is_dir() else [], list[str]()
    while folders or links:
        below = folders.pop() if folders else heapq.heappop(links)
        place = root / below
        try:
            facts = place.stat()
            if (facts.st_dev, facts.st_ino) in seen:
                logger.warning("%s: left out, because it links to a folder that is listed already", place)
                continue
            seen.add((facts.st_dev, facts.st_ino))
            with os.scandir(place) as opened:
                entries = [entry for entry in opened if not is_left_out(entry.name)]
        except OSError as error:
            raise ImageFolderError(
                f"{place}: cannot be listed ({error.strerror}); make it readable, or move it out of the data set"
            ) from error
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if not _is_folder(entry):
                yield path, entry
            elif entry.is_symlink():
                heapq.heappush(links, path)
            else:
                folders.append(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is, or links to, a folder; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _describe(entry: os.DirEntry[str], path: str) -> _File | None:
    """Size and time of an image file; zeros for a link that leads nowhere, None for pipes and the like."""
    try:
        facts = entry.stat()
    except OSError:
        return _File(path=path, size=0, mtime_ns=0)
    if not stat.S_ISREG(facts.st_mode):
        return None
    return _File(path=path, size=facts.st_size, mtime_ns=facts.st_mtime_ns)
