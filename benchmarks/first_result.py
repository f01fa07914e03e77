"""The method from random weights on lfw112_mixed, beside a plain regressor and the rows of CLIB-FIQA's Table 4.

    luigi --module pipeline LabelAll --dataset mixed.toml
    luigi --module pipeline EmbeddingsAll --dataset lfw_hard.toml
    OMP_NUM_THREADS=1 python -m benchmarks.first_result --dataset mixed.toml --pairs lfw_hard.toml --output runs

Rows that start from the weights of the recogniser that made the labels, judged by it and by one that did not:

    luigi --module pipeline EmbeddingsAll --dataset mixed.toml --models-recognition dlib_resnet   # and lfw_hard.toml
    python -m benchmarks.first_result ... --rows tower,cr_fiqa --judges dlib_resnet --section started

A fifth of the people takes no part in any training. All pairs of their images judge first; the pairs of lfw_hard.bin,
whose people are those of lfw112_mixed, judge beside them. Started again, it goes on where it was. On one core a row
takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from benchmarks.plain_regressor import train_regressor
from benchmarks.truth import replace_section
from data_manifests.benchmarks.pairs import read_pairs
from data_manifests.folds import Fold
from pipeline.config.job import Job, resolve, workspace_root
from pipeline.evaluation.images import read_embeddings
from training import train_quality, train_recognition
from training.evaluation.comparison import compare_identities, compare_pairs
from training.evaluation.evaluate import Options, evaluate_methods
from training.on_top.config import OnTopConfig
from training.on_top.fit import fit
from training.on_top.tables import open_tables
from training.quality.config import Score
from training.quality.model_file import load_model
from training.quality.scorer import Scorer
from training.recognition.model_file import load_recogniser
from training.scoring.inputs import decode_ahead, open_images
from training.trainer.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from training.evaluation.comparison import ComparisonScores
    from training.on_top.scorer import OnTopScorer

HELD_OUT = Fold(number=1, folds=5)
COMMON = (
    "--tower resnet10t --pretrained= --prompts spread --learning-rate 1e-3 --weight-decay 0.05 --warm-up 0.05 "
    "--batch 64 --epochs-one 3 --epochs-two 7 --beta 10 --bf16 --threads 1 --checkpoint-every 500 --log-every 100 "
    f"--held-out {HELD_OUT}"
)
ROWS = {
    "nqf": ("quality alone (NQF)", "--factors= --no-confidence"),
    "factors": ("NQF and five factors", "--no-confidence"),
    "cc": ("NQF, factors, calibration (CC)", ""),
    "cc1": ("NQF, factors, calibration, λ = 1", "--balance 1"),
    "tower": (
        "NQF and five factors, from the recogniser",
        "--no-confidence --tower mobilefacenet_small --pretrained fr_feature --learning-rate 5e-4 --epochs-one 1 "
        "--epochs-two 2 --no-bf16",
    ),
}
"""Run folder -> name of the row and what it learns; all else is equal."""

SCRATCH = ("regressor", "nqf", "factors", "cc", "cc1")
"""The rows of networks with random weights."""

RECOGNISER = ("cr_fiqa", "CR-FIQA, from the recogniser")
RECOGNISER_WORDS = (
    "--backbone mobilefacenet_small --pretrained fr_feature --centres means --margin-size 0.3 --scale 32 --dropout 0 "
    "--batch-size 64 --learning-rate 0.01 --steps 540 --drops 400,480 --checkpoint-every 100 --log-every 10 "
    f"--held-out {HELD_OUT}"
)

MERGED = {"cc": "merged factors as the score (M-F)", "cc1": "merged factors as the score, λ = 1"}
"""Run folder -> name of the row that takes the score from its merged factors."""

REGRESSOR = "plain regressor of the rank"
ON_TOP = "on top of the recogniser (ridge)"
FMRS = (1e-2, 1e-3)
BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="TOML file of lfw112_mixed, labelled")
    parser.add_argument("--pairs", required=True, help="TOML file of lfw_hard.bin, with its embeddings made")
    parser.add_argument("--rows", default=",".join(SCRATCH), help="rows to train, by commas; cc and cc1 give M-F too")
    parser.add_argument("--judges", default="", help="recognisers that judge beside that of the labels, by commas")
    parser.add_argument("--section", default="result", help="of the page (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--write", type=Path, help="Markdown page whose marked section is replaced")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    people = resolve(given.dataset, workspace=workspace_root())
    pairs = resolve(given.pairs, workspace=workspace_root(), stage="embeddings")
    models = train(people, given.output, given.rows.split(","))
    on_top = fit_on_top(people)
    judged = {}
    for name in ("", *filter(None, given.judges.split(","))):
        by = f", judged by {name}" if name else ""
        judged |= {
            f"people never seen, all pairs{by}": judge_people(people, find_judge(people, name), models, on_top),
            f"lfw_hard.bin{by}": judge_pairs(pairs, find_judge(pairs, name), models, on_top),
        }
    text = show(judged)
    print(text)
    (given.output / "result.json").write_text(json.dumps({name: t.to_dicts() for name, t in judged.items()}, indent=1))
    if given.write:
        marks = (
            f"<!-- {given.section}: made by python -m benchmarks.first_result -->",
            f"<!-- end of {given.section} -->",
        )
        replace_section(given.write, text, marks)


def train(job: Job, output: Path, rows: list[str]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Train every row, or find it trained; row -> pixels to qualities."""
    labels, images = job.store.folder(job.stages["labels"]), job.manifest.data_path
    models: dict[str, Callable[[Tensor], Tensor]] = {}
    for folder in rows:
        if folder == "regressor":
            models[REGRESSOR] = train_regressor(labels, images, HELD_OUT, output / "regressor.pt", print)
            continue
        if folder == RECOGNISER[0]:
            models[RECOGNISER[1]] = train_recogniser(images, output / folder)
            continue
        name, words = ROWS[folder]
        run = output / folder
        start = ["--labels", str(labels), "--images", str(images), "--output", str(run)]
        if train_quality.main([*start, *shlex.split(COMMON), *shlex.split(words)]):
            sys.exit("the training failed; its message stands above")
        models[name] = open_scorer(run, Score.QUALITY)
        if folder in MERGED:
            models[MERGED[folder]] = open_scorer(run, Score.MERGED)
    return models


def train_recogniser(images: Path, run: Path) -> Callable[[Tensor], Tensor]:
    """Train CR-FIQA, or find it trained; its quality."""
    words = ["--images", str(images), "--output", str(run), *shlex.split(RECOGNISER_WORDS)]
    if train_recognition.main(words):
        sys.exit("the training failed; its message stands above")
    model = load_recogniser(run / "model.safetensors").model
    return lambda images: model(images)[1]


def find_judge(job: Job, name: str) -> Job:
    """The data set with the embeddings of a recogniser; with those of its labels where none is named."""
    if not name:
        return job
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "judge.toml"
        manifest.write_text(f'recognition_model = "{name}"\n{job.manifest.file.read_text()}')
        return resolve(str(manifest), workspace=workspace_root(), stage="embeddings")


def open_scorer(run: Path, score: Score) -> Callable[[Tensor], Tensor]:
    """The quality of a trained model."""
    saved = load_model(run / "model.safetensors")
    scorer = Scorer(saved.model, saved.merged, score).eval()
    return lambda images: scorer(images)[0]


def fit_on_top(job: Job) -> OnTopScorer:
    """The certainty ratio from embedding and norm, learned from the same people as all others."""
    folders = {stage: job.store.folder(job.stages[stage]) for stage in ("index", "embeddings", "anchors")}
    return fit(open_tables(**folders), OnTopConfig(held_out=HELD_OUT)).scorer


def judge_people(
    job: Job, judge: Job, models: Mapping[str, Callable[[Tensor], Tensor]], on_top: OnTopScorer
) -> pl.DataFrame:
    """All pairs of the people held out."""
    labels = pl.read_parquet(job.store.folder(job.stages["labels"]), glob=False, columns=["identity", "sobel", "norm"])
    identities = labels["identity"].to_numpy()
    unseen = HELD_OUT.holds(identities)
    scored = on_top.score(read_embeddings(job.store, job.stages["embeddings"]), labels["norm"].to_numpy())
    labels = labels.with_columns(pl.Series(ON_TOP, scored))
    embeddings = read_embeddings(judge.store, judge.stages["embeddings"])
    found = ~np.isnan(embeddings[:, 0])
    compared = compare_identities(embeddings, found, np.where(unseen, identities, -1).astype(np.int32), FMRS)
    return tabulate(job, compared, models, labels, unseen)


def judge_pairs(
    job: Job, judge: Job, models: Mapping[str, Callable[[Tensor], Tensor]], on_top: OnTopScorer
) -> pl.DataFrame:
    """The pairs of a list."""
    table = pl.read_parquet(job.store.folder(job.stages["embeddings"]), glob=False, columns=["key", "norm"])
    scored = on_top.score(read_embeddings(job.store, job.stages["embeddings"]), table["norm"].to_numpy())
    table = table.with_columns(pl.Series(ON_TOP, scored))
    embeddings = read_embeddings(judge.store, judge.stages["embeddings"])
    found = ~np.isnan(embeddings[:, 0])
    compared = compare_pairs(embeddings, found, table["key"].to_numpy(), read_pairs(job.manifest), FMRS)
    return tabulate(job, compared, models, table, np.ones(len(table), np.bool_))


def tabulate(
    job: Job, compared: ComparisonScores, models: Mapping[str, Callable[[Tensor], Tensor]], measured: pl.DataFrame,
    wanted: NDArray[np.bool_],
) -> pl.DataFrame:  # fmt: skip
    """The areas of all models, and of what costs nothing."""
    qualities = score(job.manifest.data_path, models, wanted)
    qualities |= {name: measured[name].to_numpy() for name in (ON_TOP, "norm", "sobel") if name in measured.columns}
    metrics, _, _ = evaluate_methods(compared, qualities, Options(fmrs=FMRS))
    return pl.DataFrame(metrics).select(
        pl.col("method").cast(pl.String), "fmr", "genuine", "impostors", "fnmr", "pauc", "auc", "auc_low", "auc_high"
    )


def score(
    images: Path, models: Mapping[str, Callable[[Tensor], Tensor]], wanted: NDArray[np.bool_]
) -> dict[str, NDArray[np.float32]]:
    """The qualities of all images by all models; NaN where an image is not wanted."""
    stored = open_images(images)
    scores = {name: np.full(len(stored), np.nan, np.float32) for name in models}
    for decoded in decode_ahead(stored, batch=BATCH, threads=1):
        inside = np.flatnonzero(wanted[decoded.start : decoded.start + len(decoded)])
        rows = decoded.start + inside
        if len(rows):
            pixels = torch.from_numpy(decoded.pixels[inside])
            with torch.no_grad():
                for name, model in models.items():
                    scores[name][rows] = model(pixels).numpy()
    return scores


def show(judged: Mapping[str, pl.DataFrame]) -> str:
    """Markdown."""
    parts = []
    for title, table in judged.items():
        first = table.row(0, named=True)
        lines = [f"### {title}", "", f"{first['genuine']:,} genuine and {first['impostors']:,} impostor pairs.", ""]
        heads = [f"{name} at FMR {fmr:g}" for fmr in FMRS for name in ("pAUC", "AUC")]
        lines += [f"| quality | {' | '.join(heads)} |", "| --- " * (1 + len(heads)) + "|"]
        for method in table["method"].unique(maintain_order=True):
            cells = []
            for fmr in FMRS:
                row = table.row(by_predicate=(pl.col("method") == method) & (pl.col("fmr") == fmr), named=True)
                cells += [f"{row['pauc']:.3f}", f"{row['auc']:.3f} ({row['auc_low']:.3f} to {row['auc_high']:.3f})"]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
