"""The speed of training beside its ceiling and beside the released way, measured in the same run.

    python -m benchmarks.train_speed [--tower RN50-quickgelu] [--device cpu|cuda] [--json speed.json]
    python -m benchmarks.train_speed --dataset train.rec --labels .../labels/current --device cuda

Options that are not named below go to training.train_quality, such as --compiled no, --bf16 or --threads 8. Weights are
random, which costs the same as trained ones. Images are read from the page cache: no disk is measured.

Aims stand beside what was reached, and nothing fails: on one H200 the loader and the model together 4,000 images a
second, the loader alone at least twice the model alone, and both at least five times the released way.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.our_loop import (
    BOTH,
    LOADER,
    MODEL,
    Setting,
    SyntheticStep,
    compare_workers,
    describe,
    measure_loader,
    measure_training,
)
from benchmarks.speed_data import find_faces
from benchmarks.speed_probe import count_flops, measure, time_steps
from benchmarks.speed_report import Aim, Report, print_report, write_report
from data_manifests.tables.stages import Factor
from training.clip.backbone import find_clip_config
from training.dataset.training_set import TrainingSet, load_training_set
from training.quality.model import JOINT
from training.quality.objective import Targets
from training.quality.run_folder import QualityRunFolder
from training.quality.settings import make_config
from training.quality.training import QualityTraining
from training.train_quality import parser as training_parser
from training.trainer.ranks import join_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.speed_probe import Timing
    from training.quality.config import TrainingConfig
    from training.trainer.ranks import Ranks

RELEASED_LOADER, RELEASED_IMAGES = "released: loader alone", "released, no text tower"
RELEASED, RELEASED_FLOAT32 = "released", "released, in float32"

RELEASED_BATCH = 256
"""Images in a step of the released code, by which the cost of its text tower is shared."""

SECONDS = {"cpu": 6.0, "cuda": 15.0}
BATCH = {"cpu": 8, "cuda": 256}
IMAGES = {"cpu": 2048, "cuda": 32768}
PROMPTS = {"cpu": 60, "cuda": JOINT}
"""On a processor a step with all takes a minute and 10 GiB; what they cost grows in proportion to their number."""
TABLE_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench(Setting):
    """What is measured.

    Attributes:
        prompts: that the released way encodes in every step.
    """

    config: TrainingConfig
    data: TrainingSet
    prompts: int


def main(arguments: Sequence[str] | None = None) -> None:
    options, others = parse(arguments)
    with tempfile.TemporaryDirectory() as name:
        report = measure_all(options, others, Path(name))
    print_report(report)


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The options of the measurement, and those of the training."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--tower", default="RN50-quickgelu", help="one of open_clip's, or of training/clip")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--dataset", help=".rec file, or name or TOML file of a data set; default: the sample's faces, repeated")
    add("--labels", type=Path, help="folder of its table `labels`; default: random labels")
    add("--batch", type=int, help="images in a step; default 256 on a GPU, 8 on a processor")
    add("--seconds", type=float, help="for each part; default 15 on a GPU, 6 on a processor")
    add("--images", type=int, help="to which the sample is repeated; default 32768 on a GPU, 2048 on a processor")
    add("--prompts", type=int, help="that the released way encodes; default all 360 on a GPU, 60 on a processor, where "
        "the time of the others is estimated")  # fmt: skip
    add("--ours", action="store_true", help="leave the released way out")
    add("--brief", action="store_true", help="leave out how the loader does with other numbers of workers")
    add("--json", type=Path, help="file for the figures")
    options, others = parser.parse_known_args(arguments)
    if options.labels and not options.dataset:
        parser.error("--labels belongs to a data set: name it with --dataset")
    for name, defaults in (("batch", BATCH), ("seconds", SECONDS), ("images", IMAGES), ("prompts", PROMPTS)):
        if getattr(options, name) is None:
            setattr(options, name, defaults[options.device])
        if getattr(options, name) <= 0:
            parser.error(f"--{name} must be above 0")
    if options.prompts > JOINT:
        parser.error(f"--prompts: there are {JOINT}")
    return options, others


def measure_all(options: argparse.Namespace, others: Sequence[str], folder: Path) -> Report:
    """Measure every part, one after the other; files that are needed meanwhile go to a folder."""
    faces = find_faces(folder, options.dataset, options.labels, options.images)
    words = ["--labels", str(faces.labels), "--images", str(faces.images), "--output", str(folder / "run")]
    words += ["--tower", options.tower, "--pretrained", "", "--device", options.device, "--batch", str(options.batch)]
    # What ends phase one, and what a checkpoint costs, is no part of the speed of steps.
    words += ["--epochs-one", "1000000", "--checkpoint-every", "1000000000", *others]
    given = training_parser().parse_args(words)
    config = make_config(vars(given), given.device)
    data = load_training_set(faces.labels, faces.images)
    with join_ranks(config.device.value) as ranks:
        bench = Bench(config=config, data=data, device=ranks.device, seconds=options.seconds, prompts=options.prompts)
        about = {"tower": config.model.tower, "released_prompts": bench.prompts}
        report = Report(machine=describe(bench, faces.text) | about)
        measure_ours(report, bench, ranks, folder / "run")
        save(report, config.batch, options)  # what follows takes longer, and may not fit into the memory
        if not options.ours:
            measure_released(report, bench)
    if not options.brief:
        report.workers = compare_workers(data, config.seed, min(TABLE_SECONDS, options.seconds))
    save(report, config.batch, options)
    return report


def save(report: Report, batch: int, options: argparse.Namespace) -> None:
    """Compare what was reached so far with the aims, and write it into the file for the figures."""
    report.aims = find_aims(report, batch, options.prompts)
    write_report(report, options.json)


def measure_ours(report: Report, bench: Bench, ranks: Ranks, root: Path) -> None:
    """The ceiling, the loader, the model, and the trainer that joins them, whose run lies in a folder."""
    config, data, device = bench.config, bench.data, bench.device
    measure_loader(report, bench)
    folder = QualityRunFolder.of(root, config, data)
    folder.begin(config, data)
    training = QualityTraining(config, data, ranks, folder)
    learner = training.trainer.learner
    model = learner.networks.model
    report.gflop_per_image = count_flops(model.visual, model.tower.image_size) / 1e9
    targets = Targets(
        quality=torch.rand(config.batch, device=device),
        classes=torch.randint(0, 2, (config.batch, len(Factor)), device=device),
        rho=None,
    )
    counts = learner.objective.count(targets.quality.cpu().numpy(), targets.classes.cpu().numpy())
    measure_training(report, bench, training, SyntheticStep(learner, config.batch, targets, counts, device))
    report.ideal = report.matrix_tflops["bfloat16" if config.bf16 else "float32"] * 1e3 / report.gflop_per_image


def measure_released(report: Report, bench: Bench) -> None:
    """The released way: its loader, its step without the text tower, and its step."""
    # Spawned processes of the table of workers import this module, and have no use for torchvision.
    from benchmarks.released_loop import ReleasedLearner, ReleasedLoader, count_workers  # noqa: PLC0415

    config, data, device, seconds = bench.config, bench.data, bench.device, bench.seconds
    tower, cuda = find_clip_config(config.model.tower), device.type == "cuda"
    report.machine["released_workers"] = count_workers(tower, config.batch)

    def train(loader: ReleasedLoader, *, half: bool, prompts: int) -> Timing:
        learner = ReleasedLearner(config, device, half=half, prompts=prompts)
        loader.drain()
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=True, allow_tf32=True):
            return time_steps(lambda: learner.learn(loader.next()), seconds, device, impatient=not cuda)

    with ReleasedLoader(data, tower, config.batch, pinned=cuda) as loader:
        loader.drain()
        alone = measure(RELEASED_LOADER, device, lambda: time_steps(lambda: len(loader.next()[0]), seconds, device))
        report.add(alone)
        # As released, weights are float16 on a GPU and float32 on a processor.
        ways = {RELEASED_IMAGES: (cuda, 0), name_released(bench.prompts): (cuda, bench.prompts)}
        if cuda:
            ways[RELEASED_FLOAT32] = (False, bench.prompts)
        for name, (half, prompts) in ways.items():
            report.add(measure(name, device, partial(train, loader, half=half, prompts=prompts), trains=True))


def name_released(prompts: int) -> str:
    """The name of the line of the released way."""
    return RELEASED if prompts == JOINT else f"{RELEASED}, {prompts} of {JOINT} prompts"


def find_aims(report: Report, batch: int, prompts: int) -> list[Aim]:
    """Compare what was reached with the aims."""
    both = report.rate(BOTH)
    aims = [
        Aim(text="loader and model, images/s on one H200", wanted=4000, reached=both),
        Aim(text="loader alone over model alone", wanted=2, reached=report.rate(LOADER) / report.rate(MODEL)),
    ]
    if RELEASED_IMAGES not in report.parts:
        return aims
    some, none = report.rate(name_released(prompts)), report.rate(RELEASED_IMAGES)
    text = "loader and model over the released way"
    for at in sorted({batch, RELEASED_BATCH}):
        sure = at == batch and prompts == JOINT
        released = some if sure else estimate_released(some, none, batch=batch, prompts=prompts, at=at)
        name = f"{text}, batch {at}{'' if sure else ', estimated'}"
        aims.append(Aim(text=name, wanted=5, reached=both / released))
    if RELEASED_FLOAT32 in report.parts and prompts == JOINT:
        aims.append(Aim(text=f"{text}, in float32", wanted=5, reached=both / report.rate(RELEASED_FLOAT32)))
    return aims


def estimate_released(some: float, none: float, *, batch: int, prompts: int, at: int) -> float:
    """Images a second of the released way with all prompts at some batch.

    Its text tower takes the same time in every step, so the larger the batch, the less it weighs.

    Args:
        some: measured images a second with some prompts.
        none: the same without the text tower.
        batch: images in a step of both.
        prompts: how many some are.
        at: the batch of the estimate.
    """
    text = max(0.0, batch / some - batch / none) * JOINT / prompts
    return at / (text + at / none)


if __name__ == "__main__":
    main()
