"""The faces of a page: rows are asked for first, and then read together, from the labels and from the images."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from data_manifests.tables.stages import CLASSES, IDENTITIES, STATUS_TEXT, Status
from labelers.faces import DecodeError
from pipeline.label_report.labels_table import LabelTable, take_rows
from pipeline.label_report.scores import ABSOLUTE_YAW, SCORES, SHOWN
from pipeline.pages.pictures import Picture, embed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.config.job import Job

logger = logging.getLogger(__name__)

_LONGEST = 160
"""Letters of a path or a name that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceBook:
    """Pictures by the place of their row in the labels.

    Attributes:
        pictures: row -> picture, without a caption.
        values: row -> score -> value; None for null.
    """

    pictures: Mapping[int, Picture]
    values: Mapping[int, Mapping[str, Any]]

    def show_all(self, rows: Iterable[int], score: str = "quality") -> list[Picture]:
        """The pictures of some rows, each with one of its scores below it."""
        return [self.show(int(row), score) for row in rows]

    def show(self, row: int, score: str) -> Picture:
        """One picture with a score below it."""
        value = self.values[row].get(SCORES[score].source)
        caption = "" if value is None else SCORES[score].show(abs(value) if score == ABSOLUTE_YAW else value)
        return replace(self.pictures[row], caption=caption)


def read_faces(job: Job, labels: LabelTable, rows: NDArray[np.int64], *, small: bool) -> FaceBook:
    """Read the rows and the images of a page.

    An image that cannot be read or decoded now has its cause instead of a picture.

    Args:
        job: says where images lie.
        labels: what is known of them.
        rows: places in the labels.
        small: make every picture small, where the page would be too large.
    """
    known = labels.take(rows)
    index = take_rows(pl.scan_parquet(job.store.folder(job.stages["index"]), glob=False), rows)
    names = _read_names(job, index)
    stored = _read_images(job, index)
    pictures, values = {}, {}
    places = zip(known.iter_rows(named=True), index.iter_rows(named=True), stored, strict=True)
    for row, place, encoded in places:
        source, missing = _embed(encoded, small=small)
        facts = tuple(_list_facts(row, place, names))
        pictures[row["row"]] = Picture(source=source, caption="", facts=facts, missing=missing)
        values[row["row"]] = row
    return FaceBook(pictures=pictures, values=values)


def _read_images(job: Job, index: pl.DataFrame) -> list[bytes | Status]:
    """The stored images, or why they cannot be read now."""
    try:
        return job.source.read(index.to_arrow())
    except (OSError, ValueError) as error:
        logger.warning("the page of %s has no pictures: %s", job.name, error)
        return [Status.MISSING] * index.height


def _embed(encoded: bytes | Status, *, small: bool) -> tuple[str, str]:
    """A picture as a data URI, or nothing and why."""
    if isinstance(encoded, Status):
        return "", STATUS_TEXT[encoded]
    try:
        return embed(encoded, small=small), ""
    except DecodeError:
        return "", STATUS_TEXT[Status.DECODE_ERROR]


def _read_names(job: Job, index: pl.DataFrame) -> dict[int, str]:
    """The folders of the people, where they have names."""
    folder = job.store.root / IDENTITIES.name / job.stages["index"].fingerprint
    if not folder.is_dir():
        return {}
    wanted = index["identity"].unique()
    found = pl.scan_parquet(folder, glob=False).filter(pl.col("identity").is_in(wanted.implode())).collect()
    return dict(zip(found["identity"], found["name"], strict=True))


def _list_facts(
    row: Mapping[str, Any], place: Mapping[str, Any], names: Mapping[int, str]
) -> Iterable[tuple[str, str]]:
    """What is known of one image: quality and classes first, then every score."""
    yield "image", str(row["key"])
    yield "quality", "none" if row["quality"] is None else SCORES["quality"].show(row["quality"])
    classes = [row[factor.value] or f"{factor.value} not known" for factor in CLASSES]
    yield "classes", ", ".join(classes)
    for score in SHOWN:
        if score.column != "quality" and score.column in row:
            value = row[score.column]
            yield score.title, "none" if value is None else score.show(value)
    if row["status"] != Status.OK:
        yield "status", str(row["status"])
    person = row["identity"]
    if person is not None and person >= 0:
        yield "person", _shorten(f"{names[person]} ({person})" if person in names else str(person))
    if place["path"] is not None:
        yield "file", _shorten(place["path"])


def _shorten(text: str) -> str:
    """A name that cannot fill a page."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
