"""The images to score, wherever they lie, and their decoding ahead of the model."""

from __future__ import annotations

import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.identity import DataIdentity
from data_manifests.image_folder import SUFFIXES, ImageFileError, ImageFolder
from data_manifests.manifest import Format
from data_manifests.recordio.record_file import UNKNOWN_IDENTITY, RecordError, RecordFile, RecordReader
from data_manifests.storage.atomic import sha256_of
from data_manifests.verification import read_bin
from labelers.faces import decode_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from data_manifests.tables.stages import Status

logger = logging.getLogger(__name__)


class InputError(ValueError):
    """There are no images to score where they were said to be; names the place and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImages:
    """N encoded images.

    Attributes:
        place: the folder or file, for messages.
        keys: int32 [N], ascending.
        paths: of the files below the folder; None where images are no files.
        identity: what the images are known by.
        fetch: gives the encoded bytes of row 0 to N - 1, from several threads at once; raises RecordError or
            ImageFileError.
    """

    place: Path
    keys: NDArray[np.int32]
    paths: tuple[str, ...] | None
    identity: DataIdentity
    fetch: Callable[[int], bytes]

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, row: int) -> bytes | Status:
        """The encoded bytes of an image, or the status that says why there are none."""
        try:
            return self.fetch(row)
        except (RecordError, ImageFileError) as error:
            logger.debug("key %d cannot be read: %s", self.keys[row], error)
            return error.status


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImages:
    """N images that lie side by side, decoded.

    Attributes:
        start: the row of the first.
        pixels: uint8 [N, 112, 112, 3], RGB; black where the status is not ok.
        status: N of them.
    """

    start: int
    pixels: NDArray[np.uint8]
    status: list[Status]

    def __len__(self) -> int:
        return len(self.status)


def open_images(place: Path) -> StoredImages:
    """Find the images of a .rec file, a verification .bin, or a folder of image files.

    Args:
        place: a .rec (its .idx beside it, or none), keyed as it says; a .bin, keyed 1 to 2P; a folder, keyed 1 to N
            over its sorted paths; or one image.

    Raises:
        InputError: if it is none of these, or holds no image.
        ImageFolderError, RecordError, VerificationError: if it is damaged as a whole.
    """
    if place.is_dir():
        return _open_folder(place)
    if not place.is_file():
        raise InputError(f"{place}: no such file or folder; name a folder of images, an image, a .rec or a .bin")
    openers = {".rec": _open_records, ".bin": _open_pairs, **dict.fromkeys(SUFFIXES, _open_image)}
    opened = openers.get(place.suffix.lower())
    if opened is None:
        raise InputError(f"{place}: is not a folder of images, an image ({', '.join(SUFFIXES)}), a .rec or a .bin")
    images = opened(place)
    if not len(images):
        raise InputError(f"{place}: holds no image; check that it is the right file and that it is whole")
    return images


def decode_ahead(images: StoredImages, *, batch: int, threads: int) -> Iterator[DecodedImages]:
    """Read and decode in threads while the caller computes; reading and decoding run without Python's lock.

    Args:
        images: what is read.
        batch: images in one piece; the last may have fewer.
        threads: as many pieces, and one more, wait decoded or are being decoded.
    """
    waiting: deque[Future[DecodedImages]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for start in range(0, len(images), batch):
                waiting.append(pool.submit(_decode, images, start, min(start + batch, len(images))))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for piece in waiting:
                piece.cancel()


def _decode(images: StoredImages, start: int, stop: int) -> DecodedImages:
    unknown = np.full(stop - start, UNKNOWN_IDENTITY, np.int32)  # a score depends on no person
    faces, status = decode_batch(images.keys[start:stop], unknown, [images.read(row) for row in range(start, stop)])
    return DecodedImages(start=start, pixels=faces.images, status=status)


def _open_folder(place: Path) -> StoredImages:
    if records := sorted(place.glob("*.rec")):
        raise InputError(f"{place}: is a folder of records; name the file, {records[0]}")
    folder = ImageFolder(place)
    paths = folder.paths
    return StoredImages(
        place=place,
        keys=folder.keys,
        paths=paths,
        identity=DataIdentity(
            kind=Format.IMAGE_FOLDER,
            index_sha256=folder.fingerprint_parts(),
            size=sum(folder.lengths.tolist()),
            mtime_ns=0,
        ),
        fetch=lambda row: folder.read(paths[row]),
    )


def _open_image(place: Path) -> StoredImages:
    folder = ImageFolder(place.parent)
    return StoredImages(
        place=place,
        keys=np.ones(1, np.int32),
        paths=(place.name,),
        identity=DataIdentity(
            kind=Format.IMAGE_FOLDER, index_sha256=sha256_of(place), size=place.stat().st_size, mtime_ns=0
        ),
        fetch=lambda _: folder.read(place.name),
    )


def _open_records(place: Path) -> StoredImages:
    records = RecordFile(place)
    index = records.index()
    reader = RecordReader(place)
    stat = place.stat()
    return StoredImages(
        place=place,
        keys=index.keys,
        paths=None,
        identity=DataIdentity(
            kind=Format.RECORDIO,
            index_sha256=sha256_of(records.idx) if records.idx is not None else None,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
        ),
        fetch=lambda row: reader.at(int(index.offsets[row]), int(index.lengths[row])).payload,
    )


def _open_pairs(place: Path) -> StoredImages:
    encoded, _ = read_bin(place)
    return StoredImages(
        place=place,
        keys=np.arange(1, len(encoded) + 1, dtype=np.int32),
        paths=None,
        identity=DataIdentity(
            kind=Format.VERIFICATION, index_sha256=sha256_of(place), size=place.stat().st_size, mtime_ns=0
        ),
        fetch=encoded.__getitem__,
    )
