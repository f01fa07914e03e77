r"""Trains CR-FIQA: python -m training.train_recognition --images REC_OR_FOLDER --output RUN.

No labels are needed: it learns from images and whom they show; those that cannot be read when the run begins are left
out of the whole run, and counted. A small network on a processor:

    python -m training.train_recognition --images workspace/sample/_source/train.rec --output runs/recogniser \
        --backbone mobilefacenet --steps 60 --drops 40 --batch-size 32

Settings may stand in a file: --config recipes/cr_fiqa_s.toml. Started again with the same settings, it goes on from
the last checkpoint in RUN. SIGTERM or Ctrl-C saves and ends with the exit code 75. On several GPUs:
torchrun --nproc-per-node N -m training.train_recognition ... (each holds the centres of its part of the people).
"""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data_manifests.storage.values import reader_of
from data_manifests.weights.entry import PlainName
from labelers.runtime.denormals import flush_denormals
from training.command_line.options import add_run_options, add_setting, parse, run_training, train_in
from training.recognition.data import load_people
from training.recognition.run_folder import RecognitionRunFolder
from training.recognition.settings import SETTINGS, make_config, read_recipe
from training.recognition.training import RecognitionTraining
from training.scoring.onnx_file import ExportError
from training.trainer.memory import keep_freed_memory
from training.trainer.ranks import Ranks, join_ranks
from training.trainer.run_folder import CONFIG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.recognition.config import RecognitionConfig
    from training.trainer.trainer import Outcome

logger = logging.getLogger(__name__)

LICENCE = "as its training images allow"


@flush_denormals()
def main(arguments: Sequence[str] | None = None) -> int:
    """Train; 0 when done, 75 when told to stop and saved, 1 with one message on stderr when it cannot be done."""

    def work() -> Outcome:
        given = parse(parser, read_recipe, arguments)
        config = make_config(vars(given), given.device)
        with join_ranks(config.device.value) as ranks:
            return train(config, given, ranks)

    return run_training(work, (ExportError,))


def train(config: RecognitionConfig, given: argparse.Namespace, ranks: Ranks) -> Outcome:
    """Train as the command line asks, in the processes that torchrun started, or in this one."""
    load = partial(load_people, given.images, held_out=config.held_out, least_images=config.least_images)
    data = load()
    folder = RecognitionRunFolder.of(given.output, config, data, name=given.name, licence=given.licence or LICENCE)

    def begin() -> str:
        folder.begin(config, data)
        return f"{len(data)} images of {len(data.identities)} people"

    def build() -> RecognitionTraining:
        if ranks.is_main and folder.unreadable is None:
            logger.info("looking whether all %d images can be read", len(data))
            found = data.find_unreadable(config.threads)
            folder.leave_out(found, load(unreadable=found))
            for cause, keys in found.items():
                logger.warning("%d images are left out: %s; %s has their keys", len(keys), cause, folder.root / CONFIG)
        ranks.wait()
        # Every process, and one that goes on, takes what was found when the run began.
        unreadable = folder.unreadable
        return RecognitionTraining(config, load(unreadable=unreadable) if unreadable else data, ranks, folder)

    return train_in(folder, ranks, begin=begin, left_out=data.left_out, build=build, limit=given.limit_steps)


def parser() -> argparse.ArgumentParser:
    """The command line's options: where the images are, and the settings, with their defaults."""
    result = argparse.ArgumentParser(prog="python -m training.train_recognition", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = result.add_argument
    add("--images", type=Path, required=True,
        help="the .rec file (its .idx beside it), or the folder of images, one folder a person")  # fmt: skip
    add("--name", type=reader_of(PlainName), default="cr_fiqa",
        help="the network's name in models.toml (default: %(default)s)")  # fmt: skip
    add("--licence", default=LICENCE, help="of the weights, for their entry in models.toml (default: %(default)s)")
    add_run_options(result, "recipes/cr_fiqa_s.toml")
    for name, setting in SETTINGS.items():
        add_setting(result, name, setting)
    return result


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
