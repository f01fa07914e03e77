"""Scores images: python -m training.score --checkpoint RUN_OR_FILE --input FOLDER|IMAGE|REC|BIN --output s.parquet.

Every image is a row, in the order of the keys; one that cannot be read, or that is not an aligned face of 112 x 112
pixels, has nulls and a status that says so. For example:

    python -m training.score --checkpoint workspace/sample/quality_model/current --input photos_112 --output s.parquet
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from data_manifests.durations import describe_time_left
from data_manifests.image_folder import ImageFolderError
from data_manifests.recordio.record_file import RecordError
from data_manifests.storage.atomic import DiskFullError
from data_manifests.storage.values import Positive, reader_of
from data_manifests.tables.stages import Status
from data_manifests.verification import VerificationError
from labelers.faces import SIDE
from labelers.runtime.denormals import flush_denormals
from labelers.runtime.device import Device
from training.clip.backbone import ClipConfigError
from training.scoring.inputs import InputError, open_images
from training.scoring.models import BATCH, average_flips, open_model
from training.scoring.table import EXPORTED, ScoreError, score_images, write_scores
from training.trainer.cores import MOST_READERS, share_of_cores
from training.trainer.progress import TrainingProgress
from training.trainer.ranks import DeviceError
from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.scoring.inputs import StoredImages
    from training.scoring.models import ScoringModel
    from training.scoring.table import Scores

log = logging.getLogger("training.score")

_MISTAKES = (
    DeviceError, DiskFullError, ImageFolderError, InputError, OSError, RecordError, ScoreError, ClipConfigError,
    VerificationError, WeightsError,
)  # fmt: skip
_INTERRUPTED = 130


class OutputError(OSError):
    """The table cannot be written where it was asked for."""


@flush_denormals()
def main(arguments: Sequence[str] | None = None) -> int:
    """Score: 0 when the table is there, 1 with a message when it cannot be made or holds no score, 130 after Ctrl-C."""
    given = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        return 0 if run(given) else 1
    except _MISTAKES as error:
        if os.environ.get("FIQA_TRACE"):
            raise
        return _fail(str(error), 1)
    except torch.OutOfMemoryError:
        return _fail("the GPU's memory is full: give a smaller --batch, or wait until the GPU is free", 1)
    except KeyboardInterrupt:
        return _fail(f"stopped; {given.output} was not written", _INTERRUPTED)


def run(given: argparse.Namespace) -> bool:
    """Score as the command line asks; whether any image could be scored."""
    check_output(given.output)
    images = open_images(given.input)
    model = open_model(given.checkpoint, given.device)
    if given.flip_average:
        model = average_flips(model)
    log.info("%s: %d images, scored by %s (%s)", images.place, len(images), model.path, model.score or EXPORTED)
    scores = _score(images, model, batch=given.batch or BATCH[given.device], threads=given.threads)
    write_scores(given.output, scores, model)
    _report(scores, given.output)
    return Status.OK in scores.status


def check_output(path: Path) -> None:
    """Refuse, before any work, a place where no table can be or should be written.

    Raises:
        OutputError: names it and says what to give instead.
    """
    if path.suffix != ".parquet" or path.is_dir():
        raise OutputError(f"{path}: the output is one Parquet file; give it a name that ends in .parquet")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: {there} is not a folder that can be written to; give another output")


def _score(images: StoredImages, model: ScoringModel, *, batch: int, threads: int) -> Scores:
    """Score, and show how far it is."""
    done = 0
    with TrainingProgress(total=-(-len(images) // batch)) as meter:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            meter.advance(count)
            left = describe_time_left((len(images) - done) / max(meter.speed, 1e-9))
            meter.note(f"{done:,} of {len(images):,} images, {meter.speed:,.0f} images/s, {left} left")

        return score_images(images, model, batch=batch, threads=threads, advance=advance)


def _report(scores: Scores, output: Path) -> None:
    """Say what came out, and what is wrong with what did not."""
    counts = Counter(scores.status)
    causes = ", ".join(f"{counts[status]:,} {status}" for status in Status if counts[status])
    log.info("%s: %s", output, causes)
    if counts[Status.OK]:
        low, middle, high = np.nanquantile(scores.values[:, 0], (0.05, 0.5, 0.95))
        log.info("quality: median %.3f, nine in ten within %.3f and %.3f", middle, low, high)
    else:
        log.warning("none of the images could be scored: check that %s is the right input", scores.images.place)
    if counts[Status.WRONG_SIZE]:
        log.warning(
            "images of another size than %d x %d are not scored: align the faces first, by AlignFaces", SIDE, SIDE
        )


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    result = argparse.ArgumentParser(prog="python -m training.score", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = result.add_argument
    add("--checkpoint", type=Path, required=True,
        help="folder of a finished training, its model.safetensors, an exported .onnx (quality.onnx of "
             "training.train_on_top too), or a state dict in the layout of OpenAI's CLIP (.pt, .pth)")  # fmt: skip
    add(
        "--input",
        type=Path,
        required=True,
        help="folder of images, an image, a .rec file (its .idx beside it), or a .bin file",
    )
    add("--output", type=Path, required=True, help="the Parquet file to write; an older one is replaced")
    add("--device", type=reader_of(Device), default=Device.CPU,
        help="where: cpu or cuda (default: %(default)s)")  # fmt: skip
    add("--batch", type=reader_of(Positive), help="images in a run of the model (default: "
        f"{', '.join(f'{size} on {device}' for device, size in BATCH.items())})")  # fmt: skip
    add(
        "--flip-average", action="store_true", help="the mean over each image and its mirror image; takes twice as long"
    )
    add("--threads", type=reader_of(Positive), default=share_of_cores(),
        help=f"which read and decode; left out: one for every core it may use, at most {MOST_READERS}")  # fmt: skip
    return result


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
