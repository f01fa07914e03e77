"""A trained model for who works in Python: load it, and score arrays or files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from labelers.given_images import read_given
from labelers.runtime.denormals import flush_denormals
from training.scoring.inputs import DecodedImages
from training.scoring.models import BATCH, ScoringModel, average_flips, open_model
from training.scoring.table import make_table, score_piece

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of face image quality.

    Attributes:
        scoring: what computes.
    """

    scoring: ScoringModel

    @flush_denormals()
    def score(self, images: ArrayLike | str | Path | Sequence[str | Path], *, batch: int | None = None) -> pl.DataFrame:
        """Score aligned faces; the numbers are those of `python -m training.score`.

        Args:
            images: uint8 [N, 112, 112, 3] or [112, 112, 3], RGB; or the path of an image, of several, or of a folder.
            batch: images in a run of the model, which changes the last bits; None: as the command line's default.

        Returns:
            N rows of the table `scores`: quality, its five probabilities, the classes of every factor and their
            probabilities, status; `key` from 1, and `path` where files were given. An image that cannot be read, or is
            not 112 x 112, is a row of nulls with a status.

        Raises:
            GivenImagesError: if the images are of another shape or type.
            ScoreError: if the model gives something that is not a number.
        """
        given = read_given(images)
        keys = np.arange(1, len(given) + 1, dtype=np.int32)
        step = batch or BATCH[self.scoring.device]
        parts, status = [], []
        for start in range(0, len(given), step):
            pixels, read = given.read(start, min(start + step, len(given)))
            piece = DecodedImages(start=start, pixels=pixels, status=read)
            parts.append(score_piece(piece, self.scoring, lambda row: f"image {row + 1}"))
            status += read
        frame = pl.DataFrame(pl.from_arrow(make_table(keys, given.paths, np.concatenate(parts), status)))
        return frame if given.paths is not None else frame.drop("path")


def load(checkpoint: str | Path, *, device: str = "cpu", flip_average: bool = False) -> Model:
    """Load a trained model; nothing in a file is run but the network.

    Args:
        checkpoint: the folder of a finished training (`workspace/NAME/quality_model/current`), its model.safetensors,
            an ONNX file of training.export or training.train_on_top, or a .pt that the authors of CLIB-FIQA or CR-FIQA
            released.
        device: cpu or cuda.
        flip_average: whether every number is the mean over an image and its mirror image.

    Raises:
        WeightsError: if there is no such model, or if it cannot be read whole.
        DeviceError: if the device is not there, or not for this kind of file.
    """
    model = open_model(Path(checkpoint), device)
    return Model(scoring=average_flips(model) if flip_average else model)
