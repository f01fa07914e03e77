"""Draws the picture of the README: one person's faces from worst to best quality, and the measures of the sample.

    python examples/plot_labels.py docs/sample.png

The faces are NASA's photo of Eileen Collins, which is in the public domain, with painted damage.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from data_manifests.recordio import RecordFile
from data_manifests.tables.stages import CLASSES
from labelers.faces import decode

WORKSPACE = Path(os.environ.get("FIQA_WORKSPACE", "workspace")) / "sample"
ASTRONAUT = 7
FACES = 10
INK, ACCENT = "#22303c", "#2b7a9b"


def main(target: Path) -> None:
    """Draw the picture."""
    labels = pl.read_parquet(WORKSPACE / "labels" / "current", glob=False)
    figure = plt.figure(figsize=(11, 6.4), layout="constrained")
    faces, measures, classes = figure.subfigures(3, 1, height_ratios=[1.15, 1.3, 0.95])
    draw_faces(faces, labels.filter(pl.col("identity") == ASTRONAUT).sort("quality"))
    draw_measures(measures, labels)
    draw_classes(classes, labels)
    figure.savefig(target, dpi=110)


def draw_faces(figure: plt.Figure, labels: pl.DataFrame) -> None:
    """A strip of faces, evenly spaced in rank, with their quality."""
    figure.suptitle("One person, from worst to best quality", color=INK, fontsize=11)
    rows = np.linspace(0, len(labels) - 1, FACES).round().astype(int)
    with RecordFile(WORKSPACE / "_source" / "train.rec") as records:
        for axes, row in zip(figure.subplots(1, FACES), rows, strict=True):
            axes.imshow(decode(records.read(labels["key"][int(row)])[1]))
            axes.set_title(f"{labels['quality'][int(row)]:.2f}", fontsize=9, color=INK)
            axes.axis("off")


def draw_measures(figure: plt.Figure, labels: pl.DataFrame) -> None:
    """Histograms of the measures with the thresholds of the classes."""
    panels = (
        ("cpbd", "CPBD", (0.35, 0.7)),
        ("yaw_deg", "yaw in degrees", (-25, -10, 10, 25)),
        ("p_obstructed", "p(obstructed)", (0.5,)),
        ("certainty_ratio", "certainty ratio", ()),
    )
    for axes, (column, title, edges) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.hist(labels[column].drop_nulls(), bins=24, color=ACCENT)
        for edge in edges:
            axes.axvline(edge, color=INK, linewidth=1, linestyle=":")
        axes.set_title(title, fontsize=10, color=INK)
        axes.tick_params(labelsize=8, colors=INK)
        axes.spines[["top", "right"]].set_visible(False)


def draw_classes(figure: plt.Figure, labels: pl.DataFrame) -> None:
    """The share of every class, worst class darkest."""
    axes = figure.subplots()
    for place, (factor, names) in enumerate(CLASSES.items()):
        left = 0.0
        for shade, name in enumerate(names):
            share = float((labels[factor.value].drop_nulls() == name).mean() or 0.0)
            axes.barh(
                place, share, left=left, color=ACCENT, alpha=1 - 0.8 * shade / (len(names) - 1), edgecolor="white"
            )
            if share > 0.12:
                colour = "white" if shade == 0 else INK
                axes.text(
                    left + share / 2, place, f"{name} {share:.0%}", ha="center", va="center", fontsize=8, color=colour
                )
            left += share
    axes.set_yticks(range(len(CLASSES)), [f.value for f in CLASSES], fontsize=9, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
