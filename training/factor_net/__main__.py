"""Trains the factor network: python -m training.factor_net --root WIDER_FACE --output FOLDER.

For example:

    python -m training.factor_net --root data/wider_face --output runs/factors --name factors_wider --device cuda
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from pathlib import Path

# CUDA adds in a fixed order only with this, and reads it when it starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

from data_manifests.storage.atomic import DiskFullError
from data_manifests.storage.values import reader_of
from data_manifests.weights.files import WeightsError
from data_manifests.wider_face import Split, WiderFaceError
from labelers.runtime.denormals import flush_denormals
from labelers.runtime.device import Device
from training.factor_net.artefacts import Training, check_free, write_folder
from training.factor_net.config import FactorNetConfig, Imbalance
from training.factor_net.crops import read_crops
from training.factor_net.export import to_onnx
from training.factor_net.trainer import check_device, train

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_LICENCE = "as the photos allow that it was trained on"

log = logging.getLogger("training.factor_net")


@flush_denormals()
def main(arguments: list[str] | None = None) -> int:
    """Read, train, export, write; 0 when the folder is there, 1 with a message on stderr when it cannot be made."""
    given = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    logging.getLogger("onnx_ir").setLevel(logging.WARNING)
    try:
        run(given)
    except (WiderFaceError, WeightsError, FileExistsError, DiskFullError, FloatingPointError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def run(given: argparse.Namespace) -> None:
    """One training as the command line asks for it."""
    check_free(given.output)
    config = FactorNetConfig(
        align=given.align, margin=given.margin, epochs=given.epochs, batch=given.batch,
        learning_rate=given.learning_rate, imbalance=given.imbalance, seed=given.seed, device=given.device,
        threads=given.threads,
    )  # fmt: skip
    check_device(config.device)
    crops = {split: read_crops(given.root, split, config) for split in Split}
    net = train(crops[Split.TRAIN], crops[Split.VAL], config)
    training = Training(
        name=given.name, licence=given.licence, config=config, crops=crops, net=net, onnx=to_onnx(net.model)
    )  # fmt: skip
    write_folder(training, given.output)
    log.info("%s: done; name this folder in FIQA_MODELS and %s as factors model", given.output, given.name)


def parser() -> argparse.ArgumentParser:
    """The command line's options, with the defaults of `FactorNetConfig`."""
    default, whole, number = FactorNetConfig(), reader_of(int), reader_of(float)
    result = argparse.ArgumentParser(prog="python -m training.factor_net", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = result.add_argument
    add("--root", type=Path, required=True, help="folder with WIDER_train, WIDER_val and wider_face_split")
    add("--output", type=Path, required=True, help="folder to make; named in FIQA_MODELS, it makes the network known")
    add("--name", type=_plain_name, default="factors", help="the network's name and its file's (default: factors)")
    add("--licence", default=_LICENCE, help="of the weights, for the network's entry (default: %(default)s)")
    add("--align", action=argparse.BooleanOptionalAction, default=default.align,
        help="align faces to the ArcFace template by their landmarks (default: %(default)s)")  # fmt: skip
    add("--margin", type=number, default=default.margin,
        help="around a face's box without --align, share of its longer side (default: %(default)s)")  # fmt: skip
    add("--epochs", type=whole, default=default.epochs, help="passes over the training faces (default: %(default)s)")
    add("--batch", type=whole, default=default.batch, help="faces in a step (default: %(default)s)")
    add("--learning-rate", type=number, default=default.learning_rate, help="the highest (default: %(default)s)")
    add("--imbalance", type=reader_of(Imbalance), default=default.imbalance,
        help="how rare classes get their weight: class_weights or focal (default: %(default)s)")  # fmt: skip
    add("--seed", type=whole, default=default.seed, help="of weights, order and augmentation (default: %(default)s)")
    add("--device", type=reader_of(Device), default=default.device,
        help="where: cpu or cuda (default: %(default)s)")  # fmt: skip
    add("--threads", type=whole, default=default.threads, help="of the processor (default: %(default)s)")
    return result


def _plain_name(text: str) -> str:
    """A name that may stand as a table of models.toml and as a file's."""
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no plain name: use letters, digits, _ and -")
    return text


if __name__ == "__main__":
    sys.exit(main())
