"""Whether the training learns what it is shown: a small tower on 512 images, until it knows them by heart.

    python -m benchmarks.overfit --labels workspace/lfw112_mixed/labels/current --images train.rec

The images all have an anchor, and every class that ten of them have is there ten times at least. Losses are taken in
evaluation mode, before the first step and after the last; both the EMD and the focal loss have the floor 0. It takes
ten minutes on one core.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch
from rich.table import Table

from data_manifests.tables.stages import CLASSES, TABLES, Factor
from pipeline.terminal import make_console
from training import train_quality
from training.dataset.training_set import load_training_set
from training.losses import ANCHORS, emd, focal, soft_map
from training.quality.model import ModelConfig, Prompts, build_model, log_marginals
from training.quality.model_file import load_model
from training.trainer.loader import Loader
from training.trainer.run_folder import MODEL

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from training.dataset.training_set import TrainingSet
    from training.quality.model import QualityModel

IMAGES, A_CLASS = 512, 10
TOWER, SEED = "test-vit", 323
LOST, RECALLED = 0.90, 0.95
OPTIONS = (
    "--prompts spread --balance 1 --epochs-one 200 --epochs-two 600 --batch 64 --learning-rate 1e-3 --weight-decay 0 "
    "--warm-up 0.02 --threads 1 --checkpoint-every 100000 --log-every 400"
)
"""For random weights. The EMD, which is no convex loss, drowns the factors if it weighs ten times as much from the
first step, and weight decay would keep the tower from learning by heart."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="folder of the table `labels`")
    parser.add_argument("--images", type=Path, required=True, help="the .rec file, or the folder of images")
    parser.add_argument("--words", default="", help="further words for training.train_quality")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        subset, run = Path(folder, "labels"), Path(folder, "run")
        draw_labels(given.labels, subset)
        words = ["--labels", str(subset), "--images", str(given.images), "--output", str(run)]
        words += ["--tower", TOWER, "--pretrained=", "--seed", str(SEED)]
        if train_quality.main([*words, *shlex.split(OPTIONS), *shlex.split(given.words)]):
            sys.exit("the training failed; its message stands above")
        data = load_training_set(subset, given.images)
        start = build_model(ModelConfig(tower=TOWER, pretrained="", prompts=Prompts.SPREAD), SEED).eval()
        before, after = judge(start, data), judge(load_model(run / MODEL).model, data)
    make_console().print(compare(before, after))


def draw_labels(labels: Path, folder: Path) -> None:
    """Write the labels of 512 anchored images as a label folder of their own."""
    frame = pl.read_parquet(labels, glob=False).filter(pl.col("quality").is_not_null()).sort("key")
    order = np.random.default_rng(0).permutation(len(frame))
    codes = np.stack([frame[factor.value].to_physical().cast(pl.Int64).fill_null(-1).to_numpy() for factor in Factor])
    chosen: list[int] = []
    for factor, column in zip(Factor, codes, strict=True):
        for number in range(len(CLASSES[factor])):
            of_class = order[column[order] == number]
            chosen += of_class[:A_CLASS].tolist()
    taken = list(dict.fromkeys(chosen))
    rest = order[~np.isin(order, taken)]
    rows = np.sort(np.array([*taken, *rest[: IMAGES - len(taken)].tolist()]))
    source = pq.read_schema(next(iter(sorted(labels.glob("*.parquet"))))).metadata
    table = frame[rows].to_arrow().cast(TABLES["labels"].schema()).replace_schema_metadata(source)
    folder.mkdir()
    pq.write_table(table, folder / "shard-00000.parquet")


@torch.no_grad()
def judge(model: QualityModel, data: TrainingSet) -> dict[str, tuple[float, float]]:
    """For quality and every factor, the loss and the balanced accuracy over all images."""
    with Loader(data, threads=1) as loader:
        rows = np.array_split(np.arange(len(data)), 8)
        log_joint = torch.cat([model(batch.images) for batch in loader.batches(rows)])  # [N, 360]
    found = log_marginals(log_joint)
    quality = torch.from_numpy(data.quality)
    level = (quality[:, None] - torch.tensor(ANCHORS)).abs().argmin(-1)
    judged = {"quality": (float(emd(found.quality.exp(), soft_map(quality))), recall(found.quality, level))}
    for place, factor in enumerate(Factor):
        classes = torch.from_numpy(data.classes[:, place]).long()
        judged[factor.value] = float(focal(found.of(factor), classes)), recall(found.of(factor), classes)
    return judged


def recall(log_p: Tensor, classes: Tensor) -> float:
    """Mean recall over the classes that ten images have."""
    guess: NDArray[np.int64] = log_p.argmax(-1).numpy()
    truth: NDArray[np.int64] = classes.numpy()
    recalls = [(guess[truth == c] == c).mean() for c in np.unique(truth[truth >= 0]) if (truth == c).sum() >= A_CLASS]
    return float(np.mean(recalls))


def compare(before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> Table:
    """Losses before and after, and what of them was lost."""
    table = Table("label", "loss before", "after", f"lost (aim {LOST:.0%})", f"balanced accuracy (aim {RECALLED:.0%})")
    for name, (loss, _) in before.items():
        lost, right = 1 - after[name][0] / loss, after[name][1]
        good = lost >= LOST and right >= RECALLED
        table.add_row(
            name, f"{loss:.4f}", f"{after[name][0]:.4f}", f"{lost:.1%}", f"{right:.1%}", style="" if good else "red"
        )
    return table


if __name__ == "__main__":
    main()
