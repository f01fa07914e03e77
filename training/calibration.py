"""The confidence of every training image after phase one (CLIB-FIQA section 3.3), and the table that holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data_manifests.files import write_atomically
from data_manifests.recipes import Recipe
from data_manifests.score_tables import CONFIDENCE
from data_manifests.tables import Status
from training.losses import BETA, confidence, js_divergence
from training.model import log_factors, log_marginals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from training.model import MergedFactors


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


def write_confidence(
    path: Path, keys: NDArray[np.int32], js: NDArray[np.float32], rho: NDArray[np.float32], notes: Mapping[str, str]
) -> None:
    """Write the table, whole or not at all.

    Args:
        path: the Parquet file.
        keys: int32 [N], in any order, none twice; the rows are written in their order.
        js: float32 [N].
        rho: float32 [N], confidence.
        notes: file metadata, such as the run.

    Raises:
        ConfidenceError: if a key stands twice, or if a value is not a number.
        DiskFullError: if no space is left; nothing stays behind.
    """
    order = np.argsort(keys, kind="stable")
    keys, js, rho = keys[order], js[order], rho[order]
    if len(keys) > 1 and not (np.diff(keys) > 0).all():
        raise ConfidenceError(f"{path}: a key stands twice: every image is measured once")
    if not (np.isfinite(js).all() and np.isfinite(rho).all()):
        worst = keys[~(np.isfinite(js) & np.isfinite(rho))][0]
        raise ConfidenceError(f"{path}: the confidence of key {worst} is not a number: the training has diverged")
    status = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(keys), np.int32)), pa.array([Status.OK.value]))
    schema = CONFIDENCE.schema().with_metadata({"stage": CONFIDENCE.name, **notes})
    table = pa.table([pa.array(keys), pa.array(js), pa.array(rho), status], schema=schema)
    write_atomically(path, lambda file: pq.write_table(table, file, compression="zstd"), check=pq.read_metadata)


def read_confidence(path: Path, keys: NDArray[np.int32]) -> NDArray[np.float32]:
    """The confidence of the given images.

    Args:
        path: a table of `write_confidence`.
        keys: int32 [N], of the images that are learned from.

    Returns:
        float32 [N], in the order of `keys`.

    Raises:
        ConfidenceError: if the file is not that table, or if an image is not in it.
    """
    try:
        frame = pl.read_parquet(path, columns=["key", "confidence"]).sort("key")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ConfidenceError(f"{path} is not a table of confidences ({error}): run the first phase again") from error
    known, rho = frame["key"].to_numpy(), frame["confidence"].to_numpy()
    place = np.searchsorted(known, keys)
    found = place < len(known)
    found[found] = known[place[found]] == keys[found]
    if not found.all():
        raise ConfidenceError(
            f"{path} lacks {int((~found).sum())} of {len(keys)} images, such as key {keys[~found][0]}: "
            "it is of another training; run the first phase again"
        )
    chosen: NDArray[np.float32] = rho[place]
    return chosen
