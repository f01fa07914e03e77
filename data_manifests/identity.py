"""What makes a data set the same data set: it enters every fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from data_manifests.image_folder import ImageFolder
from data_manifests.manifest import TEMPLATE_LISTS, Format, Manifest, ManifestError
from data_manifests.storage.atomic import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DataIdentity:
    """What a data set is known by. It holds no path of this machine.

    Attributes:
        kind: the manifest's format.
        index_sha256: SHA-256 of the .idx; of the sorted list of paths, sizes and times for a folder; of the .bin or the
            annotation for the others; of both list and folder where a set has both. None for a .rec without .idx.
        size: bytes of the .rec or .bin, of all images of a folder, or of the annotation.
        mtime_ns: modification time of the .rec; 0 for the others, whose index_sha256 covers what can change.
        content_sha256: SHA-256 of the images themselves, where it was asked for.
    """

    kind: Format
    index_sha256: str | None
    size: int
    mtime_ns: int
    content_sha256: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal of everything but the content's hash.

        The content's hash is left out, so that checking it makes nothing stale: compare it with that of an earlier
        check instead.
        """
        parts = [self.kind.value, self.index_sha256, self.size, self.mtime_ns]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_identity(manifest: Manifest, *, recheck: bool = False) -> DataIdentity:
    """Read what a data set is known by.

    Args:
        manifest: the data set's.
        recheck: also hash all of its content, which reads it whole.

    Raises:
        ManifestError: if the data are not there.
    """
    manifest.require_data()
    identity = _READERS[manifest.format](manifest)
    return replace(identity, content_sha256=hash_content(manifest)) if recheck else identity


def hash_content(manifest: Manifest) -> str:
    """SHA-256 of a data set's content: of the .rec or .bin, or of all files of a folder with their paths.

    Raises:
        ManifestError: if the data are not there.
    """
    manifest.require_data()
    if manifest.image_root is None:
        return sha256_of(manifest.data_path)
    if manifest.format is Format.WIDER_FACE:
        files = (file.relative_to(manifest.root).as_posix() for file in manifest.root.rglob("*") if file.is_file())
        return _hash_files(manifest.root, sorted(files))
    images = _hash_files(manifest.image_root, ImageFolder(manifest.image_root).paths)
    lists = _list_names(manifest)
    return _join(_hash_files(manifest.root, lists), images) if lists else images


def _of_record(manifest: Manifest) -> DataIdentity:
    """A .rec, too large to hash every time, and its .idx."""
    index, stat = manifest.data_path.with_suffix(".idx"), manifest.data_path.stat()
    return DataIdentity(
        kind=manifest.format,
        index_sha256=sha256_of(index) if index.is_file() else None,
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
    )


def _of_folder(manifest: Manifest) -> DataIdentity:
    """A folder of images."""
    folder = ImageFolder(manifest.root)
    size = sum(folder.lengths.tolist())
    return DataIdentity(kind=manifest.format, index_sha256=folder.fingerprint_parts(), size=size, mtime_ns=0)


def _of_pairs(manifest: Manifest) -> DataIdentity:
    """A .bin, or a list of pairs with its images."""
    if manifest.pairs_file is not None:
        return _of_lists(manifest)
    path = manifest.data_path
    return DataIdentity(kind=manifest.format, index_sha256=sha256_of(path), size=path.stat().st_size, mtime_ns=0)


def _of_lists(manifest: Manifest) -> DataIdentity:
    """A folder of images, and the lists beside it that say what is compared."""
    folder = ImageFolder(manifest.image_root or manifest.root)
    lists = _hash_files(manifest.root, _list_names(manifest))
    return DataIdentity(
        kind=manifest.format,
        index_sha256=_join(lists, folder.fingerprint_parts()),
        size=sum(folder.lengths.tolist()),
        mtime_ns=0,
    )


def _of_texts(manifest: Manifest) -> DataIdentity:
    """A set of photos that text files describe."""
    names = _list_names(manifest)
    size = sum((manifest.root / name).stat().st_size for name in names)
    return DataIdentity(kind=manifest.format, index_sha256=_hash_files(manifest.root, names), size=size, mtime_ns=0)


def _list_names(manifest: Manifest) -> list[str]:
    """The text files that belong to a set of images, below its root."""
    if manifest.pairs_file is not None:
        return [manifest.pairs_file]
    names = list[str]()
    for pattern in _TEXTS.get(manifest.format, ()):
        found = sorted(file.relative_to(manifest.root).as_posix() for file in manifest.root.glob(pattern))
        if not found:
            raise ManifestError(
                f"the data set {manifest.name} ({manifest.file}) has no {pattern} in {manifest.root}: "
                f"{manifest.download.strip() or 'put its annotation there'}"
            )
        names += found
    return names


def _join(*hashes: str) -> str:
    """One hash of several."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _hash_files(root: Path, names: Iterable[str]) -> str:
    """SHA-256 over the paths below the root and the hashes of files."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{sha256_of(root / name)}\n".encode())
    return digest.hexdigest()


_TEXTS = {
    Format.WIDER_FACE: ("wider_face_split/wider_face_*_bbx_gt.txt",),
    Format.TEMPLATES: TEMPLATE_LISTS,
}

_READERS: dict[Format, Callable[[Manifest], DataIdentity]] = {
    Format.RECORDIO: _of_record,
    Format.IMAGE_FOLDER: _of_folder,
    Format.VERIFICATION: _of_pairs,
    Format.WIDER_FACE: _of_texts,
    Format.TEMPLATES: _of_lists,
}
