r"""Trains the quality model: python -m training.train_quality --labels FOLDER --images REC_OR_FOLDER --output RUN.

A small model on a processor, from random weights:

    python -m training.train_quality --labels workspace/sample/labels/current \
        --images workspace/sample/_source/train.rec --output runs/small --tower small-resnet --pretrained= \
        --prompts spread --learning-rate 1e-3 --epochs-one 2 --epochs-two 2 --batch 32

Started again with the same words, it goes on from the last checkpoint in RUN. SIGTERM or Ctrl-C saves and ends with the
exit code 75. On several GPUs: torchrun --nproc-per-node N -m training.train_quality ... (RUN must be visible to all
processes; torchrun itself then ends with 1 when it is told to stop).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_manifests.folds import Fold
from data_manifests.image_folder import ImageFolderError
from data_manifests.recipes import Recipe
from data_manifests.recordio.record_file import RecordError
from data_manifests.storage.atomic import DiskFullError, LockedError, RunLock
from data_manifests.tables.stages import Factor
from labelers.runtime.denormals import flush_denormals
from training.clip.backbone import TowerError
from training.quality.calibration import ConfidenceError
from training.quality.config import Compilation, Device, Rules, Score, Terms, TrainingConfig
from training.quality.data import TrainingDataError, load_training_set
from training.quality.model import ModelConfig, Prompts
from training.quality.training import QualityTraining
from training.trainer.checkpoint import CheckpointError
from training.trainer.cores import MOST_READERS
from training.trainer.ranks import DeviceError, Ranks, join_ranks
from training.trainer.run_folder import RunFolder, RunFolderError
from training.trainer.stopping import EXIT_CODE
from training.trainer.trainer import LossError, Outcome
from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("training.train_quality")

_DECISIVE = {
    "epochs_one": "passes over the images before the confidence is known",
    "epochs_two": "passes after it; 0: no second phase",
    "batch": "images in a step, over all processes",
    "accumulation": "parts in which a process takes its share of a step, where memory is short",
    "seed": "of random weights, order and mirroring",
    "learning_rate": "of image tower and temperature",
    "merged_learning_rate": "of the merged-factor network",
    "weight_decay": "of AdamW",
    "clip": "largest norm of the gradient, of tower and merged-factor network each",
    "balance": "weight of quality fitting (lambda, Eq. 7)",
    "gamma": "focusing parameter (Eq. 5)",
    "beta": "shape of the soft mapping and of the confidence (Eq. 1 and 8)",
}
"""Numbers that decide the weights, and their help."""

_FREE = {
    "checkpoint_every": "steps between two checkpoints",
    "keep": "checkpoints that are kept",
    "log_every": "steps between two points of every curve",
}
"""Numbers that do not."""

_SWITCHES = {
    "channels_last": "weights in the layout that convolutions read fastest",
    "sync_batchnorm": "batch statistics over all GPUs",
}

_MISTAKES = (
    CheckpointError, ConfidenceError, DeviceError, DiskFullError, FileNotFoundError, ImageFolderError, LockedError,
    LossError, NotADirectoryError, PermissionError, RecordError, RunFolderError, TowerError, TrainingDataError,
    WeightsError, ValueError,
)  # fmt: skip


@flush_denormals()
def main(arguments: Sequence[str] | None = None) -> int:
    """Train; 0 when done, 75 when told to stop and saved, 1 with one message on stderr when it cannot be done."""
    given = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        config = make_config(given)
        with join_ranks(config.device.value) as ranks:
            outcome = train(config, given, ranks)
    except _MISTAKES as error:
        if os.environ.get("FIQA_TRACE"):
            raise
        sys.stderr.write(f"error: {error}\n")
        return 1
    return EXIT_CODE if outcome is Outcome.STOPPED else 0


def train(config: TrainingConfig, given: argparse.Namespace, ranks: Ranks) -> Outcome:
    """Train as the command line asks, in the processes that torchrun started, or in this one."""
    terms = config.terms
    data = load_training_set(
        given.labels, given.images, quality=terms.quality, factors=terms.factors, held_out=config.held_out
    )
    folder = RunFolder(root=given.output, fingerprint=config.fingerprint(data.labels.content, len(data)))
    lock = RunLock(given.output) if ranks.is_main else None
    if lock is not None:
        lock.acquire(" ".join(sys.argv))
        folder.open(config, data)
        left_out = ", ".join(f"{count:,} {cause}" for cause, count in data.left_out.items() if count)
        log.info(
            "run %s: %d images to learn from%s", folder.fingerprint, len(data), left_out and f", left out {left_out}"
        )
    try:
        if folder.finished:
            log.info("%s: this run is finished already", folder.root)
            return Outcome.FINISHED
        ranks.wait()
        training = QualityTraining(config, data, ranks, folder)
        outcome = training.run(given.limit_steps)
        if ranks.is_main:
            log.info("step %d: %s; %s", training.trainer.step, outcome.value, folder.root)
        return outcome
    finally:
        if lock is not None:
            lock.release()


def make_config(given: argparse.Namespace) -> TrainingConfig:
    """The settings that the command line asks for; ValueError if they do not fit together."""
    rules = replace(Rules.of(given.recipe), **dict(given.rule))
    terms = Terms(
        quality=given.quality, factors=tuple(given.factors), score=given.score, confidence=given.confidence
    )  # fmt: skip
    model = ModelConfig(tower=given.tower, pretrained=given.pretrained, prompts=given.prompts)
    same = {field.name for field in fields(TrainingConfig)} & vars(given).keys()
    settings = {name: value for name in same if (value := getattr(given, name)) is not None}
    settings["bf16"] = given.device is Device.CUDA if given.bf16 is None else given.bf16
    return TrainingConfig(model=model, rules=rules, terms=terms, **settings)


def parser() -> argparse.ArgumentParser:
    """The command line's options, with the defaults of TrainingConfig."""
    result = argparse.ArgumentParser(prog="python -m training.train_quality", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    _add_data(result)
    _add_method(result)
    _add_machine(result)
    return result


def _add_data(result: argparse.ArgumentParser) -> None:
    add = result.add_argument
    add("--labels", type=Path, required=True, help="folder of the table `labels`, such as .../labels/current")
    add("--images", type=Path, required=True, help="the .rec file (its .idx beside it), or the folder of images")
    add("--output", type=Path, required=True, help="folder of the run; if it holds this run, it goes on")
    add("--held-out", type=_fold, metavar="K/N",
        help="leave out all images of one in N people, and measure the model on them; K from 0 to N - 1")  # fmt: skip
    add("--limit-steps", type=_positive, help="stop, and save, after so many steps in all")


def _add_method(result: argparse.ArgumentParser) -> None:
    """What decides the weights."""
    default, add, switch = TrainingConfig(), result.add_argument, argparse.BooleanOptionalAction
    add(
        "--recipe",
        type=Recipe,
        choices=list(Recipe),
        default=Recipe.PAPER,
        help="the printed equations, or the code's (default: %(default)s)",
    )
    add("--rule", type=_rule, action="append", default=[], metavar="NAME=RECIPE",
        help=f"one rule of the other recipe: {', '.join(field.name for field in fields(Rules))}")  # fmt: skip
    add("--tower", default=default.model.tower,
        help="open_clip's name of the image tower, or one of training/clip (default: %(default)s)")  # fmt: skip
    add("--pretrained", default=default.model.pretrained,
        help="open_clip's tag or a file; '' for random weights (default: %(default)s)")  # fmt: skip
    add("--prompts", type=Prompts, choices=list(Prompts), default=default.model.prompts,
        help="spread: spread out the prompts' embeddings, for random weights")  # fmt: skip
    add("--quality", action=switch, default=True, help="fit the quality (NQF)")
    add("--factors", type=_factors, default=tuple(Factor), help="factors to learn, joined by commas; '' for none")
    add("--score", type=Score, choices=list(Score), default=Score.QUALITY, help="merged: the score is M-F's")
    add("--confidence", action=switch, default=True, help="calibrate phase two by the confidence (CC)")
    for name, text in _DECISIVE.items():
        value = getattr(default, name)
        add(_option(name), type=type(value), default=value, help=f"{text} (default: %(default)s)")
    add("--warm-up", type=float, default=default.warm_up, metavar="SHARE",
        help="of all steps, in which the learning rate first rises; for random weights")  # fmt: skip


def _add_machine(result: argparse.ArgumentParser) -> None:
    """What leaves the weights as they are, but for their last bits."""
    default, add, switch = TrainingConfig(), result.add_argument, argparse.BooleanOptionalAction
    add("--device", type=Device, choices=list(Device), default=default.device, help="where (default: %(default)s)")
    add("--bf16", action=switch, default=None, help="compute in bfloat16 (default: on a GPU)")
    for name, text in _SWITCHES.items():
        value = getattr(default, name)
        add(_option(name), action=switch, default=value, help=f"{text} (default: {'yes' if value else 'no'})")
    add("--compiled", type=Compilation, choices=list(Compilation), nargs="?", const=Compilation.DEFAULT,
        default=default.compiled,
        help="by torch.compile, in this of its modes; reduce-overhead: for small batches on a GPU; several GPUs need "
             "--no-sync-batchnorm to gain from it (default: %(default)s)")  # fmt: skip
    add("--threads", type=int, help="that decode images, in every process; left out: one for every core that the "
        f"process may use, shared with the others of the machine, at most {MOST_READERS}")  # fmt: skip
    for name, text in _FREE.items():
        add(_option(name), type=int, default=getattr(default, name), help=f"{text} (default: %(default)s)")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _fold(text: str) -> Fold:
    try:
        return Fold.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _factors(text: str) -> tuple[Factor, ...]:
    """Factors joined by commas, in the order of the table."""
    named = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(named) - {factor.value for factor in Factor})
    if unknown:
        raise argparse.ArgumentTypeError(f"no such factor: {', '.join(unknown)}; there are {', '.join(Factor)}")
    return tuple(factor for factor in Factor if factor in named)


def _rule(text: str) -> tuple[str, Recipe]:
    """NAME=RECIPE."""
    name, _, recipe = text.partition("=")
    if name not in {field.name for field in fields(Rules)} or recipe not in set(Recipe):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of mapping=paper, mapping=released, distance=…")
    return name, Recipe(recipe)


if __name__ == "__main__":
    sys.exit(main())
