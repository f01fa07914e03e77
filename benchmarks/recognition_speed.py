"""The speed of training a recogniser (CR-FIQA) beside its ceiling, measured in the same run.

    python -m benchmarks.recognition_speed [--backbone iresnet50] [--device cpu|cuda] [--json speed.json]
    python -m benchmarks.recognition_speed --dataset train.rec --backbone iresnet100 --batch 256 --device cuda

Options that are not named below go to training.train_recognition, such as --compiled no or --threads 8. Images are read
from the page cache: no disk is measured. A step of the model alone is forward, softmax over all classes, both losses,
backward, clipping and SGD, on noise that lies on the device already.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.our_loop import Setting, SyntheticStep, describe, measure_loader, measure_training
from benchmarks.speed_data import find_images
from benchmarks.speed_probe import count_flops
from benchmarks.speed_report import Report, print_report, write_report
from labelers.faces import SIDE
from training.backbones.names import Backbone
from training.backbones.networks import DIMENSION
from training.recognition.data import load_people
from training.recognition.head import sample_classes
from training.recognition.learner import Targets
from training.recognition.run_folder import RecognitionRunFolder
from training.recognition.settings import make_config
from training.recognition.training import RecognitionTraining
from training.train_recognition import parser as training_parser
from training.trainer.ranks import join_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.recognition.config import RecognitionConfig
    from training.recognition.data import PeopleImages
    from training.trainer.ranks import Ranks

SECONDS = {"cpu": 6.0, "cuda": 15.0}
BATCH = {"cpu": 16, "cuda": 512}
IMAGES = {"cpu": 2048, "cuda": 32768}
CLASSES = {"cpu": 4000, "cuda": 85_742}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Setting):
    """What is measured."""

    config: RecognitionConfig
    data: PeopleImages


def main(arguments: Sequence[str] | None = None) -> None:
    options, others = parse(arguments)
    with tempfile.TemporaryDirectory() as name:
        report = measure_all(options, others, Path(name))
    write_report(report, options.json)
    print_report(report)


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The options of the measurement, and those of the training."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recognition_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--backbone", choices=[backbone.value for backbone in Backbone], default=Backbone.IRESNET50.value)
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--dataset", help=".rec file, or name or TOML file of a data set; default: the sample's faces, repeated")
    add("--classes", type=int, help="centres, where the data has fewer people; default 85742 on a GPU, 4000 on a "
        "processor")  # fmt: skip
    add("--batch", type=int, help="images in a step; default 512 on a GPU, 16 on a processor")
    add("--seconds", type=float, help="for each part; default 15 on a GPU, 6 on a processor")
    add("--images", type=int, help="to which the sample is repeated; default 32768 on a GPU, 2048 on a processor")
    add("--json", type=Path, help="file for the figures")
    options, others = parser.parse_known_args(arguments)
    for name, defaults in (("batch", BATCH), ("seconds", SECONDS), ("images", IMAGES), ("classes", CLASSES)):
        if getattr(options, name) is None:
            setattr(options, name, defaults[options.device])
        if getattr(options, name) <= 0:
            parser.error(f"--{name} must be above 0")
    return options, others


def measure_all(options: argparse.Namespace, others: Sequence[str], folder: Path) -> Report:
    """Measure every part, one after the other; files that are needed meanwhile go to a folder."""
    images, text = find_images(folder, options.dataset, options.images)
    words = ["--images", str(images), "--output", str(folder / "run"), "--backbone", options.backbone]
    words += ["--device", options.device, "--batch-size", str(options.batch), "--checkpoint-every", "1000000000"]
    given = training_parser().parse_args([*words, *others])
    config = make_config(vars(given), given.device)
    data = add_people(load_people(images), options.classes)
    with join_ranks(config.device.value) as ranks:
        bench = Bench(config=config, data=data, device=ranks.device, seconds=options.seconds)
        about = {"backbone": config.backbone.value, "classes": len(data.identities), "sample_rate": config.sample_rate}
        report = Report(machine=describe(bench, text) | about)
        measure_parts(report, bench, ranks, folder / "run")
    return report


def add_people(data: PeopleImages, classes: int) -> PeopleImages:
    """The same images, and as many people as there shall be centres: those who are added have no image."""
    more = np.arange(classes - len(data.identities), dtype=np.int32) + data.identities[-1] + 1
    return replace(data, identities=np.append(data.identities, more))


def measure_parts(report: Report, bench: Bench, ranks: Ranks, root: Path) -> None:
    """The ceiling, the loader, the model, and the trainer that joins them, whose run lies in a folder."""
    config, data, device = bench.config, bench.data, bench.device
    measure_loader(report, bench)
    training = RecognitionTraining(
        config, data, ranks, RecognitionRunFolder.of(root, config, data, name="speed", licence="none")
    )
    learner = training.trainer.learner
    backbone = count_flops(learner.model.backbone, SIDE) / 1e9
    classes, share = len(data.identities), config.sample_rate
    # Cosines, and their gradients for the embeddings and for the centres; over a sample, the cosines of all once more.
    head = (3 * share + (share < 1)) * 2 * classes * DIMENSION / 1e9
    report.gflop_per_image = backbone + head
    labels = np.random.default_rng(config.seed).integers(0, classes, config.batch)
    sample = sample_classes(labels, classes, share, seed=config.seed, step=0)
    targets = Targets(labels=torch.from_numpy(labels), first=0, sample=torch.from_numpy(sample) if share < 1 else None)
    targets = targets.change(lambda tensor: tensor.to(device))
    measure_training(report, bench, training, SyntheticStep(learner, config.batch, targets, (config.batch,), device))
    # The head computes in float32 whatever the backbone does.
    rates = report.matrix_tflops
    report.ideal = 1e3 / (backbone / rates["bfloat16" if config.bf16 else "float32"] + head / rates["float32"])


if __name__ == "__main__":
    main()
