"""The confidence of every training image after phase one (CLIB-FIQA section 3.3), and the table that holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from data_manifests.recipes import Recipe
from data_manifests.storage.atomic import sync_folder
from data_manifests.storage.parquet import write_table
from data_manifests.storage.shard_file import READ_ERRORS
from data_manifests.storage.values import first_line
from data_manifests.tables.scores import CONFIDENCE
from data_manifests.tables.stages import Status
from training.losses import BETA, confidence, js_divergence
from training.quality.model import log_factors, log_marginals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from training.dataset.training_set import TrainingSet
    from training.quality.model import MergedFactors


class ConfidenceError(ValueError):
    """A table of confidences that does not belong to the images of a training; says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How well quality and factors agree.

    Attributes:
        js: divergence [N] (Eq. 9).
        confidence: [N], 0.5 to 1 (Eq. 8).
    """

    js: Tensor
    confidence: Tensor


@torch.no_grad()
def calibrate(
    log_joint: Tensor, merged: MergedFactors, beta: float = BETA, recipe: Recipe | str = Recipe.PAPER
) -> Calibration:
    """Compare the quality that the image shows with the quality that its factors justify.

    Args:
        log_joint: float32 [N, 360], the model's output in evaluation mode for images that are not mirrored.
        merged: the merged-factor network in evaluation mode.
        beta: of the confidence.
        recipe: of the divergence.
    """
    quality = log_marginals(log_joint).quality.exp()  # [N, 5]
    justified = merged(log_factors(log_joint).exp())  # [N, 5]
    js = js_divergence(quality, justified, recipe=recipe)
    return Calibration(js=js, confidence=confidence(js, beta))


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidences:
    """The content of the table: N rows in key order.

    Attributes:
        keys: int32 [N], ascending.
        js: float32 [N]; null where the status is not ok, whatever stands there.
        rho: float32 [N], confidence; likewise.
        status: text [N], `ok` or why an image was not measured.
    """

    keys: NDArray[np.int32]
    js: NDArray[np.float32]
    rho: NDArray[np.float32]
    status: pa.Array


def write_confidence(path: Path, found: Confidences, notes: Mapping[str, str]) -> None:
    """Write the table, whole or not at all.

    Args:
        path: the Parquet file.
        found: its content.
        notes: file metadata, such as the run.

    Raises:
        ConfidenceError: if the keys do not ascend, or if a value of an image that was measured is not a number.
        DiskFullError: if no space is left; nothing stays behind.
    """
    if not (np.diff(found.keys) > 0).all():
        raise ConfidenceError(f"{path}: the keys do not ascend: every record is one row, in their order")
    status = found.status.cast(pa.string())
    unmeasured = pc.not_equal(status, Status.OK.value).to_numpy(zero_copy_only=False)  # [N]
    sound = unmeasured | (np.isfinite(found.js) & np.isfinite(found.rho))
    if not sound.all():
        worst = found.keys[~sound][0]
        raise ConfidenceError(f"{path}: the confidence of key {worst} is not a number: the training has diverged")
    values = [pa.array(column, mask=unmeasured) for column in (found.js, found.rho)]
    columns = [pa.array(found.keys), *values, status.dictionary_encode()]
    schema = CONFIDENCE.schema().with_metadata({"stage": CONFIDENCE.name, **notes})
    write_table(path, pa.table(columns, schema=schema))


def read_confidence(path: Path, keys: NDArray[np.int32]) -> NDArray[np.float32]:
    """The confidence of the given images.

    Args:
        path: a table of `write_confidence`.
        keys: int32 [N], of the images that are learned from.

    Returns:
        float32 [N], in the order of `keys`.

    Raises:
        ConfidenceError: if the file is not that table, or if an image is not in it, or was not measured.
    """
    try:
        frame = pl.read_parquet(path, columns=["key", "confidence"], glob=False).sort("key")
    except (pl.exceptions.PolarsError, OSError) as error:
        why = f"{path} is not a table of confidences ({first_line(error)}): run the first phase again"
        raise ConfidenceError(why) from error
    known, rho = frame["key"].to_numpy(), frame["confidence"].to_numpy()
    place = np.searchsorted(known, keys)
    found = place < len(known)
    found[found] = (known[place[found]] == keys[found]) & np.isfinite(rho[place[found]])
    if not found.all():
        raise ConfidenceError(
            f"{path} lacks {int((~found).sum())} of {len(keys)} images, such as key {keys[~found][0]}: "
            "it is of another training; run the first phase again"
        )
    chosen: NDArray[np.float32] = rho[place]
    return chosen


def read_made_from(path: Path, keys: NDArray[np.int32], notes: Mapping[str, str]) -> NDArray[np.float32] | None:
    """The confidence of the given images, float32 [M]; None if there is no table, or it was made from something else.

    Raises:
        ConfidenceError: if the table says that it is the right one and lacks an image.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except READ_ERRORS:
        return None
    if any(metadata.get(name.encode(), b"").decode(errors="replace") != text for name, text in notes.items()):
        return None
    return read_confidence(path, keys)


def write_aside(
    path: Path, data: TrainingSet, js: NDArray[np.float32], rho: NDArray[np.float32], notes: Mapping[str, str]
) -> None:
    """Write the table outside its folder and move it there: what a crash leaves must not lie among the Parquet.

    Args:
        path: the Parquet file.
        data: what was learned from; every row of its labels becomes a row.
        js: float32 [M], of the images that were learned from.
        rho: float32 [M], confidence.
        notes: file metadata.

    Raises:
        ConfidenceError: if a value is not a number.
        DiskFullError: if no space is left.
    """
    values = np.full((2, len(data.labels)), np.nan, np.float32)  # [2, N]
    values[:, data.rows] = js, rho
    staged = path.parent.with_name(f"{path.name}.staged")
    found = Confidences(keys=data.labels.keys, js=values[0], rho=values[1], status=data.status())
    write_confidence(staged, found, notes)
    path.parent.mkdir(exist_ok=True)
    staged.replace(path)
    sync_folder(path.parent)
