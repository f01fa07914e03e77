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
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_manifests.storage.values import kind_of, reader_of
from labelers.runtime.denormals import flush_denormals
from training.clip.backbone import ClipConfigError
from training.command_line.options import add_run_options, add_setting, parse, run_training, train_in
from training.dataset.training_set import load_training_set
from training.quality.calibration import ConfidenceError
from training.quality.run_folder import QualityRunFolder
from training.quality.settings import SETTINGS, make_config, read_recipe
from training.quality.training import QualityTraining
from training.trainer.memory import keep_freed_memory
from training.trainer.ranks import Ranks, join_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_manifests.recipes import Recipe
    from training.quality.config import TrainingConfig
    from training.trainer.trainer import Outcome


@flush_denormals()
def main(arguments: Sequence[str] | None = None) -> int:
    """Train; 0 when done, 75 when told to stop and saved, 1 with one message on stderr when it cannot be done."""

    def work() -> Outcome:
        given = parse(parser, _read_defaults, arguments)
        config = make_config(vars(given), given.device)
        with join_ranks(config.device.value) as ranks:
            return train(config, given, ranks)

    return run_training(work, (ConfidenceError, ClipConfigError))


def train(config: TrainingConfig, given: argparse.Namespace, ranks: Ranks) -> Outcome:
    """Train as the command line asks, in the processes that torchrun started, or in this one."""
    terms = config.terms
    data = load_training_set(
        given.labels, given.images, quality=terms.quality, factors=terms.factors, held_out=config.held_out
    )
    folder = QualityRunFolder.of(given.output, config, data)

    def begin() -> str:
        folder.begin(config, data)
        return f"{len(data)} images to learn from"

    def build() -> QualityTraining:
        return QualityTraining(config, data, ranks, folder)

    return train_in(folder, ranks, begin=begin, left_out=data.left_out, build=build, limit=given.limit_steps)


def parser() -> argparse.ArgumentParser:
    """The command line's options: where the data are, and the settings, with their defaults."""
    result = argparse.ArgumentParser(prog="python -m training.train_quality", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = result.add_argument
    add("--labels", type=Path, required=True, help="folder of the table `labels`, such as .../labels/current")
    add("--images", type=Path, required=True, help="the .rec file (its .idx beside it), or the folder of images")
    add_run_options(result, "recipes/clib_paper.toml")
    for name, setting in SETTINGS.items():
        if name == "rules":
            told = setting.description
            add("--rule", dest=name, type=_rule, action="append", default=[], metavar="NAME=RECIPE", help=told)
        else:
            add_setting(result, name, setting)
    return result


def _read_defaults(path: Path) -> dict[str, Any]:
    """The defaults that a file of settings gives the options."""
    recipe = read_recipe(path)
    return recipe | {"rules": list(recipe.get("rules", {}).items())}


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
    keep_freed_memory()
    sys.exit(main())
