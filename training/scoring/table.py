"""Scores of images, and the Parquet file that holds them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_manifests.storage.parquet import write_table
from data_manifests.tables.scores import SCORES, name_class, name_level
from data_manifests.tables.stages import CLASSES, QUALITY_CLASSES, SCHEMA_VERSION, Factor, Status
from training.quality.scorer import OUTPUT_SIZES
from training.scoring.inputs import decode_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.scoring.inputs import DecodedImages, StoredImages
    from training.scoring.models import ScoringModel

NUMBERS = ("quality", *map(name_level, QUALITY_CLASSES), *(name_class(c) for f in Factor for c in CLASSES[f]))
"""The column of every number that a model gives, in the model's order."""

EXPORTED = "exported"
"""Stands in the file's metadata where an ONNX file does not tell what its score is taken from."""


class ScoreError(RuntimeError):
    """A model gives no score for an image that can be read; names both and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a model says of N images.

    Attributes:
        images: which images.
        values: float32 [N, 18], columns as in `NUMBERS`; NaN where the status is not ok, or the model gives none.
        status: N of them.
    """

    images: StoredImages
    values: NDArray[np.float32]
    status: list[Status]

    def to_table(self) -> pa.Table:
        """The table `scores`, without file metadata."""
        return make_table(self.images.keys, self.images.paths, self.values, self.status)


def make_table(
    keys: NDArray[np.int32], paths: Sequence[str] | None, values: NDArray[np.float32], status: Sequence[Status]
) -> pa.Table:
    """The table `scores` of N images.

    Args:
        keys: int32 [N].
        paths: of the files [N]; None where the images are no files.
        values: float32 [N, 18], see `Scores`.
        status: N of them.
    """
    columns: dict[str, Any] = {
        "key": pa.array(keys),
        "path": pa.array(list(paths) if paths else [None] * len(status), pa.string()),
        "status": pa.array([each.value for each in status]).dictionary_encode(),
    }
    for name, column in zip(NUMBERS, values.T, strict=True):
        columns[name] = pa.array(column, mask=np.isnan(column))
    for factor, classes in CLASSES.items():
        first = NUMBERS.index(name_class(classes[0]))
        shares = values[:, first : first + len(classes)]
        codes = pa.array(shares.argmax(axis=1).astype(np.int8), mask=np.isnan(shares[:, 0]))
        columns[factor.value] = pa.DictionaryArray.from_arrays(codes, list(classes), ordered=True)
    return pa.table([columns[name] for name in SCORES.names], schema=SCORES.schema())


def score_images(
    images: StoredImages,
    model: ScoringModel,
    *,
    batch: int,
    threads: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Score images; every one is a row, also those that cannot be read.

    Args:
        images: N of them.
        model: which scores them.
        batch: images in a run of the model; it changes the last bits of the scores.
        threads: which read and decode while the model runs.
        advance: is told after every run how many images it brought.

    Raises:
        ScoreError: if the model gives something that is not a number.
    """
    parts, status = [], list[Status]()
    for piece in decode_ahead(images, batch=batch, threads=threads):
        parts.append(score_piece(piece, model, lambda row: f"key {images.keys[row]} of {images.place}"))
        status += piece.status
        advance(len(piece))
    return Scores(images=images, values=np.concatenate(parts), status=status)


def score_piece(piece: DecodedImages, model: ScoringModel, name: Callable[[int], str]) -> NDArray[np.float32]:
    """Score some images at once.

    Args:
        piece: N of them.
        model: which scores them.
        name: what the image of a row is called.

    Returns:
        float32 [N, 18], see `Scores`.

    Raises:
        ScoreError: if the model gives something that is not a number.
    """
    values = np.full((len(piece), sum(OUTPUT_SIZES)), np.nan, np.float32)
    rows = np.flatnonzero([each is Status.OK for each in piece.status])
    if len(rows):
        values[rows] = model.run(piece.pixels[rows])
        if not (finite := np.isfinite(values[rows, : model.numbers]).all(axis=1)).all():
            raise ScoreError(
                f"{model.path}: gives no number for {name(piece.start + rows[~finite][0])}: its training has diverged, "
                "or the file is damaged; score with an earlier checkpoint"
            )
    return values


def write_scores(path: Path, scores: Scores, model: ScoringModel) -> None:
    """Write the table with what it was made from, whole or not at all; the same scores give the same bytes.

    Raises:
        DiskFullError: if no space is left; nothing stays behind.
    """
    write_table(path, scores.to_table().replace_schema_metadata(describe(scores.images, model)))


def describe(images: StoredImages, model: ScoringModel) -> dict[str, str]:
    """The file metadata: what decides the scores, and a fingerprint of it. It holds no path of this machine."""
    decisive = {
        "checkpoint_sha256": model.sha256,
        "score": EXPORTED if model.score is None else model.score.value,
        "flip_average": "yes" if model.flip_average else "no",
        "input": images.identity.kind.value,
        "input_identity": images.identity.digest,
    }
    content = json.dumps([SCHEMA_VERSION, decisive], sort_keys=True)
    fingerprint = hashlib.sha256(content.encode()).hexdigest()[:12]
    receipt = {"checkpoint": model.path.name, "device": model.device.value}
    return {"stage": SCORES.name, "fingerprint": fingerprint, **decisive, **receipt}
