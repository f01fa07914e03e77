"""Which photos an alignment still has to do, and which crops nobody wants any more."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.benchmarks.templates import locate_images, read_template_images
from data_manifests.image_folder import SUFFIXES, ImageFolder, walk_files
from data_manifests.storage.atomic import sha256_of
from data_manifests.storage.parquet import write_table
from data_manifests.tables.alignment import ALIGNMENT, LANDMARKS
from pipeline.alignment.crops import JPEG_SUFFIXES, MADE_FROM, AlignError, AlignFolder, Encoding, read_facts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from data_manifests.manifest import Manifest

_UNREAD_SUFFIXES = (".tif", ".tiff", ".heic", ".heif", ".avif", ".gif", ".jfif", ".jp2", ".cr2", ".nef", ".arw", ".dng")
"""Photos that `ImageFolder` does not take."""

_LONGEST_NAME = 240
"""Bytes of a file's name: file systems take 255, and a temporary file's name is some longer."""

_KEY = ["path", "bytes", "mtime_ns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """How far an alignment is.

    Attributes:
        listing: every photo in order: path, crop, bytes, mtime_ns, and for given landmarks these and their score.
        done: rows of the table that hold for photos of the listing as they are now.
        todo: rows of the listing that are not among them.
        stale: crops below the folder that earlier runs made, or may have made, and that belong to no photo any more.
        finished: whether the table says all this, and nothing waits.
    """

    listing: pl.DataFrame
    done: pl.DataFrame
    todo: pl.DataFrame
    stale: tuple[str, ...]
    finished: bool

    def join(self, made_from: str) -> pa.Table:
        """The whole table, when every photo is done.

        Raises:
            AlignError: if photos changed or came while the others were aligned.
        """
        if len(self.todo):
            raise AlignError(f"{len(self.todo):,} photos came or changed in the meantime: run the same command again")
        ordered = self.listing.select("path").join(self.done, on="path", how="inner", maintain_order="left")
        schema = ALIGNMENT.schema()
        columns = ordered.select(ALIGNMENT.names).to_arrow(compat_level=pl.CompatLevel.oldest())
        plain = columns.cast(schema.set(schema.get_field_index("status"), pa.field("status", pa.string())))
        status = plain["status"].combine_chunks().dictionary_encode()
        table = plain.set_column(plain.num_columns - 1, schema.field("status"), status)
        return table.replace_schema_metadata({MADE_FROM: made_from})

    def write_plan(self, folder: AlignFolder) -> str:
        """Write what is to be done where every process can read it; returns the name of the plan."""
        table = self.todo.drop("bytes", "mtime_ns").to_arrow()
        digest = hashlib.sha256(json.dumps(table.to_pydict()).encode()).hexdigest()[:12]
        write_table(folder.plan(digest), table)
        return digest


def survey(folder: AlignFolder, listing: pl.DataFrame, made_from: str) -> Survey:
    """Compare the photos with what earlier runs left.

    Args:
        folder: where the results lie.
        listing: see `Survey`.
        made_from: the settings; rows that were made from others do not count.

    Raises:
        AlignError: if a table of an earlier run cannot be read.
    """
    tables = [path for path in (folder.table, *folder.parts()) if path.is_file()]
    there = pl.Series(sorted(path for path, _ in walk_files(folder.crops)), dtype=pl.String)
    whole = pl.col("crop").is_null() | (pl.col("crop").is_in(there.implode()) & (pl.col("crop") == pl.col("wanted")))
    wanted = listing.select(*_KEY, pl.col("crop").alias("wanted"))
    rows = _read_rows(tables, made_from).unique("path", keep="last", maintain_order=True)
    done = rows.join(wanted, on=_KEY, how="inner").filter(whole).drop("wanted")
    todo = listing.join(done.select("path"), on="path", how="anti", maintain_order="left")
    recorded = [*tables, *folder.plans()]
    crops = {crop for path in recorded for crop in _read(path, ["crop"])["crop"].drop_nulls()}
    stale = tuple(sorted(crops - set(listing["crop"])))
    settled = tables == [folder.table] and not folder.plans() and len(_read(folder.table, ["path"])) == len(listing)
    return Survey(
        listing=listing, done=done, todo=todo, stale=stale, finished=settled and not stale and todo.is_empty()
    )


def set_aside(folder: AlignFolder, made_from: str) -> None:
    """Let tables that were made from other settings speak no more: from now on their crops may be replaced.

    They are kept as plans until the run has ended, because they name crops that it may have to remove.
    """
    for path in (folder.table, *folder.parts()):
        if path.is_file() and _settings_of(path) != made_from:
            path.rename(folder.plan(f"{path.stem}-{sha256_of(path)[:12]}"))


def list_folder(photos: Path, encoding: Encoding) -> pl.DataFrame:
    """The photos of a folder, in the order of their paths.

    Raises:
        ImageFolderError: if it holds none, or a name is not UTF-8.
        AlignError: if a name is too long, or two photos would have one crop.
    """
    paths = ImageFolder(photos).paths
    return _describe(photos, paths, name_crops(paths, encoding))


def list_templates(manifest: Manifest, photos: Path) -> pl.DataFrame:
    """The photos of a benchmark of templates with their landmarks; crops are called as they are.

    Raises:
        ManifestError, TemplateError: if the lists are not there or are damaged.
        AlignError: if a name of the lists is no image below the folder.
    """
    images = read_template_images(manifest.model_copy(update={"images_folder": photos.name}))
    names = locate_images(manifest, images.name, ImageFolder(photos).paths)
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.suffix.lower() not in SUFFIXES:
            raise AlignError(f"the lists of {manifest.name} name {name!r}, which is no image below {photos}: mend them")
    points = {name: images.landmarks.reshape(-1, 10)[:, number] for number, name in enumerate(LANDMARKS)}
    listing = _describe(photos, names, names)
    given = pl.DataFrame(points | {"score": images.score})
    return pl.concat([listing, given], how="horizontal").unique("path", keep="first", maintain_order=True)


def name_crops(paths: Sequence[str], encoding: Encoding) -> list[str]:
    """The path of every photo's crop: the photo's own, with the suffix of the encoding.

    Where two photos would have one crop, as `a.png` and `a.jpg`, the suffix is appended instead: `a.png.jpg`.

    >>> name_crops(["p/a.JPG", "p/b.png"], Encoding.JPEG)
    ['p/a.JPG', 'p/b.jpg']

    Raises:
        AlignError: if a name is too long, or two crops would still have one name.
    """
    own, suffix = (JPEG_SUFFIXES, ".jpg") if encoding is Encoding.JPEG else ((".png",), ".png")
    wanted = [p if p.lower().endswith(own) else f"{p.rpartition('.')[0]}{suffix}" for p in paths]
    count = Counter(wanted)
    crops = [w if count[w] == 1 or w == p else f"{p}{suffix}" for p, w in zip(paths, wanted, strict=True)]
    owners: dict[str, str] = {}
    for path, crop in zip(paths, crops, strict=True):
        if (other := owners.setdefault(crop, path)) != path:
            raise AlignError(f"{other} and {path} would both have the crop {crop}: rename one of them")
        if len(os.fsencode(crop.rpartition("/")[2])) > _LONGEST_NAME:
            raise AlignError(f"the name of {path} is longer than {_LONGEST_NAME} bytes: rename the photo")
    return crops


def count_unread(photos: Path) -> Counter[str]:
    """How many files below a folder look like photos of a format that is not read, by their suffix."""
    suffixes = (PurePosixPath(name).suffix.lower() for name, _ in walk_files(photos))
    return Counter(suffix for suffix in suffixes if suffix in _UNREAD_SUFFIXES)


def _describe(photos: Path, paths: Sequence[str], crops: Sequence[str]) -> pl.DataFrame:
    """Photos with their crops, and their files' sizes and times."""
    facts = [read_facts(photos / path) for path in paths]
    return pl.DataFrame(
        {
            "path": paths,
            "crop": crops,
            "bytes": [fact["bytes"] for fact in facts],
            "mtime_ns": [fact["mtime_ns"] for fact in facts],
        },
        schema={"path": pl.String, "crop": pl.String, "bytes": pl.Int64, "mtime_ns": pl.Int64},
    )


def _read_rows(paths: Sequence[Path], made_from: str) -> pl.DataFrame:
    """The rows of those tables that were made from these settings."""
    empty = pl.DataFrame(pl.from_arrow(ALIGNMENT.schema().empty_table())).with_columns(pl.col("status").cast(pl.String))
    fitting = [path for path in paths if _settings_of(path) == made_from]
    return pl.concat([empty, *(_read(path, ALIGNMENT.names) for path in fitting)])


def _settings_of(path: Path) -> str | None:
    """The settings that a table was made from."""
    try:
        found: bytes | None = (pq.read_metadata(path).metadata or {}).get(MADE_FROM.encode())
    except pa.ArrowException as error:
        raise AlignError(f"{path} is damaged ({error}): remove it, and its photos are aligned again") from error
    return found.decode() if found else None


def _read(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """Columns of a table; text is plain text."""
    try:
        frame = pl.DataFrame(pl.from_arrow(pq.read_table(path, columns=list(columns))))
    except pa.ArrowException as error:
        raise AlignError(f"{path} is damaged ({error}): remove it, and its photos are aligned again") from error
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String))
