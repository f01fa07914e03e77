"""What a training learns from, and what it is held against: labels as arrays, and the images where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from data_manifests.tables.stages import CLASSES, Factor, Status
from training.dataset.images import TrainingDataError, decode_face, open_source
from training.dataset.labels import Labels, read_labels

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from data_manifests.folds import Fold
    from training.dataset.images import Images, Source

_PROBE = 1000
"""Images on which it is seen whether anything was learned: a rank correlation of 0.1 is not chance on so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """M images with their labels; it holds no open file and no pixel, so it travels to another process as it is.

    Attributes:
        labels: all N rows of the table.
        rows: int64 [M], the rows of the labels whose images these are, ascending.
        quality: float32 [M], NaN for null.
        classes: int8 [M, 5], -1 for null.
        images: where the M images lie.
    """

    labels: Labels
    rows: NDArray[np.int64]
    quality: NDArray[np.float32]
    classes: NDArray[np.int8]
    images: Images

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def people(self) -> int:
        """How many people the images show, as far as it is known whom they show."""
        found = np.unique(self.labels.identities[self.rows])
        return int((found >= 0).sum())

    def decode_into(self, target: NDArray[np.uint8], row: int) -> None:
        """Decode one image.

        Args:
            target: uint8 [112, 112, 3], gets the RGB picture.
            row: 0 to M - 1.

        Raises:
            TrainingDataError: if the image cannot be read although the labels say that it could be.
        """
        decode_face(lambda: self.images.read(row), target, lambda why: self._changed(row, why))

    def counts(self) -> dict[str, dict[str, int]]:
        """How many of the M images have each label."""
        found = {"quality": {"labelled": int(np.isfinite(self.quality).sum())}}
        for place, factor in enumerate(Factor):
            codes = self.classes[:, place]
            found[factor.value] = {name: int((codes == code).sum()) for code, name in enumerate(CLASSES[factor])}
        return found

    def _changed(self, row: int, why: str) -> str:
        return (
            f"key {self.labels.keys[self.rows[row]]} cannot be used, though the labels say it can: {why}; if the "
            "images have changed since, label them anew"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet(LabelledImages):
    """The M images that are learned from.

    Attributes:
        left_out: cause -> number of rows that are not learned from.
        held_out: the images of people who were held out, with labels to hold a model against; None where nobody was.
        probe: some of the images that are learned from: whether the quality was learned at all is seen on them; None
            where it is not used.
    """

    left_out: dict[str, int]
    held_out: LabelledImages | None = None
    probe: LabelledImages | None = None

    def status(self) -> pa.Array:
        """Why each of the N rows of the labels is learned from or not, as text [N].

        It is `ok`, or `held_out`, or what the labels say of an image that cannot be read, or `no_label`.
        """
        learned, held = np.zeros((2, len(self.labels)), np.bool_)
        learned[self.rows] = True
        if self.held_out is not None:
            held[self.held_out.rows] = True
        told = (
            pl.when(pl.Series(learned))
            .then(pl.lit(Status.OK.value))
            .when(pl.Series(held))
            .then(pl.lit(Status.HELD_OUT.value))
            .when(pl.Series(self.labels.readable))
            .then(pl.lit(Status.NO_LABEL.value))
            .otherwise(self.labels.status.cast(pl.String))
        )
        return pl.select(told).to_series().to_arrow()


def load_training_set(
    labels: Path,
    images: Path,
    *,
    quality: bool = True,
    factors: Collection[Factor] = tuple(Factor),
    held_out: Fold | None = None,
) -> TrainingSet:
    """Join labels and images.

    Left out, and counted, is what cannot be read, what lacks every label that the training uses, and of the rest the
    images of the people who are held out. An image of nobody known is never held out.

    Args:
        labels: a folder of the `labels` table.
        images: a .rec file (its .idx beside it), or an image folder.
        quality: whether the training uses the quality.
        factors: the factors that it uses.
        held_out: the people who are left out.

    Raises:
        TrainingDataError: if labels and images do not belong together, nothing is left to learn from, or nobody is
            there to be held out.
        RecordError, ImageFolderError: if the images' index is damaged.
    """
    table = read_labels(labels)
    used = [place for place, factor in enumerate(Factor) if factor in factors]
    labelled = (table.classes[:, used] >= 0).any(axis=1)
    if quality:
        labelled |= np.isfinite(table.quality)
    usable = table.readable & labelled
    held = np.zeros(len(table), np.bool_) if held_out is None else usable & held_out.holds(table.identities)
    rows = np.flatnonzero(usable & ~held)
    if not len(rows):
        raise TrainingDataError(f"{labels}: no row has an image that can be read and a label to learn from")
    if held_out is not None and not held.any():
        raise TrainingDataError(
            f"{labels}: nobody of fold {held_out} has an image to learn from; hold out another fold"
        )
    source = open_source(images)
    found = _match(source, table)
    return TrainingSet(
        labels=table,
        rows=rows,
        quality=table.quality[rows],
        classes=table.classes[rows],
        images=source.choose(found[rows]),
        left_out={
            "unreadable": int((~table.readable).sum()),
            "unlabelled": int((table.readable & ~labelled).sum()),
            "held out": int(held.sum()),
        },
        held_out=None if held_out is None else _take(table, np.flatnonzero(held), source, found),
        probe=_take(table, _spread(rows[np.isfinite(table.quality[rows])]), source, found) if quality else None,
    )


def _spread(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Some of the rows, evenly spread; all where there are few."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, _PROBE).astype(np.int64))] if len(rows) else rows


def _take(table: Labels, rows: NDArray[np.int64], source: Source, found: NDArray[np.int64]) -> LabelledImages:
    """The images of some rows of the labels."""
    return LabelledImages(
        labels=table,
        rows=rows,
        quality=table.quality[rows],
        classes=table.classes[rows],
        images=source.choose(found[rows]),
    )


def _match(source: Source, table: Labels) -> NDArray[np.int64]:
    """Int64 [N]: where every row of the labels lies. That the people agree tells that both belong together."""
    found = np.minimum(np.searchsorted(source.keys, table.keys), len(source.keys) - 1)
    other = np.flatnonzero((source.keys[found] != table.keys) | (source.identities[found] != table.identities))
    if len(other):
        key = table.keys[other[0]]
        raise TrainingDataError(
            f"{source.place}: does not belong to the labels, which have a person {table.identities[other[0]]} under "
            f"the key {key}; name the images that were labelled"
        )
    return found
