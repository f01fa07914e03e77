"""The method from random weights on lfw112_mixed, beside a plain regressor and the rows of CLIB-FIQA's Table 4.

    luigi --module pipeline LabelAll --dataset mixed.toml
    luigi --module pipeline EmbeddingsAll --dataset lfw_hard.toml
    OMP_NUM_THREADS=1 python -m benchmarks.first_result --dataset mixed.toml --pairs lfw_hard.toml --output runs

A fifth of the people takes no part in any training. All pairs of their images judge first; the pairs of lfw_hard.bin,
whose people are those of lfw112_mixed, judge beside them. Started again, it goes on where it was. On one core a row
takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
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
from training import train_quality
from training.evaluation.comparison import compare_identities, compare_pairs
from training.evaluation.evaluate import Options, evaluate_methods
from training.on_top.config import OnTopConfig
from training.on_top.fit import fit
from training.on_top.tables import open_tables
from training.quality.config import Score
from training.quality.model_file import load_model
from training.quality.scorer import Scorer
from training.scoring.inputs import decode_ahead, open_images

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
}
"""Run folder -> name of the row and what it learns; all else is equal."""

MERGED = {"cc": "merged factors as the score (M-F)", "cc1": "merged factors as the score, λ = 1"}
"""Run folder -> name of the row that takes the score from its merged factors."""

REGRESSOR = "plain regressor of the rank"
ON_TOP = "on top of the recogniser (ridge)"
FMRS = (1e-2, 1e-3)
MARKS = ("<!-- result: made by python -m benchmarks.first_result -->", "<!-- end of result -->")
BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="TOML file of lfw112_mixed, labelled")
    parser.add_argument("--pairs", required=True, help="TOML file of lfw_hard.bin, with its embeddings made")
    parser.add_argument("--rows", default=",".join(ROWS), help="rows to train, by commas; cc and cc1 give M-F too")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--write", type=Path, help="Markdown page whose marked section is replaced")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    people = resolve(given.dataset, workspace=workspace_root())
    pairs = resolve(given.pairs, workspace=workspace_root(), stage="embeddings")
    models = train(people, given.output, given.rows.split(","))
    on_top = fit_on_top(people)
    judged = {
        "people never seen, all pairs": judge_people(people, models, on_top),
        "lfw_hard.bin": judge_pairs(pairs, models, on_top),
    }
    text = show(judged)
    print(text)
    (given.output / "result.json").write_text(json.dumps({name: t.to_dicts() for name, t in judged.items()}, indent=1))
    if given.write:
        replace_section(given.write, text, MARKS)


def train(job: Job, output: Path, rows: list[str]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Train every row, or find it trained; row -> pixels to qualities."""
    labels, images = job.store.folder(job.stages["labels"]), job.manifest.data_path
    models: dict[str, Callable[[Tensor], Tensor]] = {
        REGRESSOR: train_regressor(labels, images, HELD_OUT, output / "regressor.pt", print)
    }
    for folder in rows:
        name, words = ROWS[folder]
        run = output / folder
        start = ["--labels", str(labels), "--images", str(images), "--output", str(run)]
        if train_quality.main([*start, *shlex.split(COMMON), *shlex.split(words)]):
            sys.exit("the training failed; its message stands above")
        models[name] = open_scorer(run, Score.QUALITY)
        if folder in MERGED:
            models[MERGED[folder]] = open_scorer(run, Score.MERGED)
    return models


def open_scorer(run: Path, score: Score) -> Callable[[Tensor], Tensor]:
    """The quality of a trained model."""
    saved = load_model(run / "model.safetensors")
    scorer = Scorer(saved.model, saved.merged, score).eval()
    return lambda images: scorer(images)[0]


def fit_on_top(job: Job) -> OnTopScorer:
    """The certainty ratio from embedding and norm, learned from the same people as all others."""
    folders = {stage: job.store.folder(job.stages[stage]) for stage in ("index", "embeddings", "anchors")}
    return fit(open_tables(**folders), OnTopConfig(held_out=HELD_OUT)).scorer


def judge_people(job: Job, models: Mapping[str, Callable[[Tensor], Tensor]], on_top: OnTopScorer) -> pl.DataFrame:
    """All pairs of the people held out."""
    labels = pl.read_parquet(job.store.folder(job.stages["labels"]), glob=False, columns=["identity", "sobel", "norm"])
    identities = labels["identity"].to_numpy()
    unseen = HELD_OUT.holds(identities)
    embeddings = read_embeddings(job.store, job.stages["embeddings"])
    found = ~np.isnan(embeddings[:, 0])
    compared = compare_identities(embeddings, found, np.where(unseen, identities, -1).astype(np.int32), FMRS)
    labels = labels.with_columns(pl.Series(ON_TOP, on_top.score(embeddings, labels["norm"].to_numpy())))
    return tabulate(job, compared, models, labels, unseen)


def judge_pairs(job: Job, models: Mapping[str, Callable[[Tensor], Tensor]], on_top: OnTopScorer) -> pl.DataFrame:
    """The pairs of a list."""
    embeddings = read_embeddings(job.store, job.stages["embeddings"])
    found = ~np.isnan(embeddings[:, 0])
    table = pl.read_parquet(job.store.folder(job.stages["embeddings"]), glob=False, columns=["key", "norm"])
    compared = compare_pairs(embeddings, found, table["key"].to_numpy(), read_pairs(job.manifest), FMRS)
    table = table.with_columns(pl.Series(ON_TOP, on_top.score(embeddings, table["norm"].to_numpy())))
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
