r"""Trains the quality model: python -m training.train_quality --labels FOLDER --images REC_OR_FOLDER --output RUN.

A small model on a processor, from random weights:

    python -m training.train_quality --labels workspace/sample/labels/current \
        --images workspace/sample/_source/train.rec --output runs/small --tower small-resnet --pretrained= \
        --prompts spread --learning-rate 1e-3 --epochs-one 2 --epochs-two 2 --batch 32

Settings may stand in a file: --config recipes/clib_paper.toml. Started again with the same settings, it goes on from
the last checkpoint in RUN. SIGTERM or Ctrl-C saves and ends with the exit code 75. On several GPUs:
torchrun --nproc-per-node N -m training.train_quality ... (RUN must be visible to all processes; torchrun itself then
ends with 1 when it is told to stop).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data_manifests.image_folder import ImageFolderError
from data_manifests.recordio.record_file import RecordError
from data_manifests.storage.atomic import DiskFullError, LockedError, RunLock
from data_manifests.values import Positive, kind_of, reader_of
from labelers.runtime.denormals import flush_denormals
from labelers.runtime.device import Device
from training.clip.backbone import ClipConfigError
from training.dataset.training_set import TrainingDataError, load_training_set
from training.quality.calibration import ConfidenceError
from training.quality.config import Compilation
from training.quality.run_folder import QualityRunFolder
from training.quality.settings import SETTINGS, make_config, read_recipe
from training.quality.training import QualityTraining
from training.trainer.checkpoint import CheckpointError
from training.trainer.ranks import DeviceError, Ranks, join_ranks
from training.trainer.run_folder import RunFolderError
from training.trainer.stopping import EXIT_CODE
from training.trainer.trainer import LossError, Outcome
from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic.fields import FieldInfo

    from data_manifests.recipes import Recipe
    from training.quality.config import TrainingConfig

log = logging.getLogger("training.train_quality")

_MISTAKES = (
    CheckpointError, ConfidenceError, DeviceError, DiskFullError, FileNotFoundError, ImageFolderError, LockedError,
    LossError, NotADirectoryError, PermissionError, RecordError, RunFolderError, ClipConfigError, TrainingDataError,
    WeightsError, ValueError,
)  # fmt: skip


@flush_denormals()
def main(arguments: Sequence[str] | None = None) -> int:
    """Train; 0 when done, 75 when told to stop and saved, 1 with one message on stderr when it cannot be done."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        given = parse(arguments)
        config = make_config(vars(given), given.device)
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
    folder = QualityRunFolder.of(given.output, config, data)
    lock = RunLock(given.output) if ranks.is_main else None
    if lock is not None:
        lock.acquire(" ".join(sys.argv))
        folder.begin(config, data)
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


def parser() -> argparse.ArgumentParser:
    """The command line's options: where the data are, and the settings, with their defaults."""
    result = argparse.ArgumentParser(prog="python -m training.train_quality", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = result.add_argument
    add("--labels", type=Path, required=True, help="folder of the table `labels`, such as .../labels/current")
    add("--images", type=Path, required=True, help="the .rec file (its .idx beside it), or the folder of images")
    add("--output", type=Path, required=True, help="folder of the run; if it holds this run, it goes on")
    add("--config", type=Path, help="file of settings, such as recipes/clib_paper.toml; options win over it")
    add("--limit-steps", type=reader_of(Positive), help="stop, and save, after so many steps in all")
    add("--device", type=reader_of(Device), default=Device.CPU, help="where: cpu or cuda (default: cpu)")
    for name, setting in SETTINGS.items():
        _add_setting(result, name, setting)
    return result


def _add_setting(result: argparse.ArgumentParser, name: str, setting: FieldInfo) -> None:
    """Add the option of a setting."""
    kind, default, option = kind_of(setting), setting.default, f"--{name.replace('_', '-')}"
    told = "" if default is None or isinstance(default, tuple | dict) else " (default: %(default)s)"
    add = partial(result.add_argument, help=f"{setting.description}{told}")
    if name == "rules":
        add("--rule", dest=name, type=_rule, action="append", default=[], metavar="NAME=RECIPE")
    elif kind is bool:
        add(option, action=argparse.BooleanOptionalAction, default=default)
    elif name == "compiled":
        add(option, type=reader_of(kind), default=default, nargs="?", const=Compilation.DEFAULT)
    else:
        add(option, type=reader_of(kind), default=default)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; what it leaves out is as the file of settings says, if it names one.

    Raises:
        TomlFileError: if the file is wrong.
    """
    given = parser().parse_args(arguments)
    if given.config is None:
        return given
    with_file = parser()
    recipe = read_recipe(given.config)
    with_file.set_defaults(**recipe | {"rules": list(recipe.get("rules", {}).items())})
    return with_file.parse_args(arguments)


def _rule(text: str) -> tuple[str, Recipe]:
    """NAME=RECIPE."""
    name, _, recipe = text.partition("=")
    try:
        read: dict[str, Recipe] = reader_of(kind_of(SETTINGS["rules"]))({name: recipe})
        return name, read[name]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not one of mapping=paper, mapping=released, distance=…"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
