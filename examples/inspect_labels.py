"""Looks at labels with Polars: one short function a question, each of which can be copied into a program of your own.

    python examples/inspect_labels.py
    python examples/inspect_labels.py workspace/faces/labels/current --groups people.csv --by region

Without a folder it looks at the labels of the sample. `people.csv` (or .tsv, .parquet) is your own: a column `identity`
or `key`, and a column that says to which group a person or an image belongs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

SAMPLE = Path(os.environ.get("FIQA_WORKSPACE", "workspace")) / "sample" / "labels" / "current"
MEASURES = ("cpbd", "sobel", "yaw_deg", "pitch_deg", "p_obstructed", "p_exaggerated", "p_extreme_lighting", "norm")
FACTORS = ("blur", "occlusion", "pose", "expression", "lighting")
LOW = 0.1
"""A quality is low when this share of all images has none better."""


def main() -> None:
    """Answer all questions of one folder of labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="?", type=Path, default=SAMPLE, help="folder of the table `labels`")
    parser.add_argument("--groups", type=Path, help="table of groups: .csv, .tsv or .parquet")
    parser.add_argument("--by", help="its column that names the group")
    given = parser.parse_args()
    sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 shows question marks
    labels = pl.scan_parquet(given.labels, glob=False)
    if not holds_labels(labels):
        sys.exit(f"error: {given.labels} holds no labels: make some by `make labels`, or name the folder of yours")
    if bool(given.groups) != bool(given.by):
        sys.exit("error: --groups and --by belong together: name the table, and its column that names the group")
    show("Why are values missing?", count_status(labels))
    for factor in FACTORS:
        show(f"What does {factor} cost?", quality_by_class(labels, factor))
    show("Which measures go with quality? (Spearman)", correlate(labels))
    show("The images of the lowest quality", worst(labels, 5))
    show("People whose images differ most", spread_of_people(labels, 5))
    show("The least certain classes of blur", least_certain_blur(labels, read_settings(given.labels), 5))
    if given.groups:
        show(f"Quality by {given.by}", by_group(labels, read_groups(given.groups), given.by))


def holds_labels(labels: pl.LazyFrame) -> bool:
    """Whether this is the table `labels`."""
    try:
        return {"key", "identity", "quality", "status", *FACTORS, *MEASURES} <= set(labels.collect_schema())
    except (OSError, pl.exceptions.PolarsError):
        return False


def count_status(labels: pl.LazyFrame) -> pl.DataFrame:
    """How many images have each status; all but `ok` lack a value."""
    return labels.group_by("status").len("images").sort("images", descending=True).collect()


def quality_by_class(labels: pl.LazyFrame, factor: str) -> pl.DataFrame:
    """Images and quality by the classes of a factor, worst class first: classes are Enums, so they sort by rank."""
    quality = pl.col("quality")
    return (
        labels.group_by(factor)
        .agg(pl.len().alias("images"), quality.mean().alias("mean"), quality.quantile(0.1).alias("lowest tenth"))
        .sort(factor)
        .collect()
    )


def correlate(labels: pl.LazyFrame) -> pl.DataFrame:
    """Rank correlation of every measure with quality; of an angle its size counts, not its side."""
    sized = {name: pl.col(name).abs() if name.endswith("_deg") else pl.col(name) for name in MEASURES}
    pairs = [pl.corr(measure, "quality", method="spearman").alias(name) for name, measure in sized.items()]
    found = labels.drop_nulls(["quality", *MEASURES]).select(pairs).collect()
    return found.unpivot(variable_name="measure", value_name="spearman").sort("spearman")


def worst(labels: pl.LazyFrame, count: int) -> pl.DataFrame:
    """The images of the lowest quality, with what may be the cause."""
    chosen = labels.drop_nulls("quality").bottom_k(count, by="quality").sort("quality")
    return chosen.select("key", "identity", "quality", *FACTORS).collect()


def spread_of_people(labels: pl.LazyFrame, count: int) -> pl.DataFrame:
    """The people between whose best and worst image quality differs most."""
    low, high = pl.col("quality").min(), pl.col("quality").max()
    people = labels.drop_nulls("quality").group_by("identity")
    found = people.agg(pl.len().alias("images"), low.alias("worst"), high.alias("best"))
    return found.with_columns(spread=pl.col("best") - pl.col("worst")).top_k(count, by="spread").collect()


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that labels were made with: every file of them carries these."""
    metadata = pq.read_metadata(min(folder.glob("*.parquet"))).metadata
    settings: dict[str, Any] = json.loads(metadata[b"made_from"])["parameters"]
    return settings


def least_certain_blur(labels: pl.LazyFrame, settings: dict[str, Any], count: int) -> pl.DataFrame:
    """The images whose sharpness lies nearest to a threshold: look at these when you choose thresholds."""
    score = pl.col(settings["blur_source"])
    nearest = pl.min_horizontal((score - settings[edge]).abs() for edge in ("blur_hazy", "blur_clear"))
    found = labels.select("key", score, "blur", distance=nearest)
    return found.bottom_k(count, by="distance").sort("distance").collect()


def read_groups(path: Path) -> pl.LazyFrame:
    """A table of groups."""
    if path.suffix == ".parquet":
        return pl.scan_parquet(path, glob=False)
    return pl.scan_csv(path, separator="\t" if path.suffix == ".tsv" else ",", glob=False)


def by_group(labels: pl.LazyFrame, groups: pl.LazyFrame, by: str) -> pl.DataFrame:
    """How quality differs between groups: images, null qualities, the middle, and the share of low ones.

    The last column says what share of a group a system would reject that rejects one image in ten of all.
    """
    on = "key" if "key" in groups.collect_schema() else "identity"
    limit = labels.select(pl.col("quality").quantile(LOW)).collect().item()
    joined = labels.join(groups.select(pl.col(on).cast(pl.Int32), by), on=on, how="left", validate="m:1")
    quality = pl.col("quality")
    found = joined.group_by(by).agg(
        pl.len().alias("images"),
        quality.null_count().alias("null"),
        quality.median().alias("median"),
        (quality <= limit).mean().alias("share of low"),
    )
    return found.sort(by).collect()


def show(title: str, table: pl.DataFrame) -> None:
    """Print a table as a person reads it."""
    with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, tbl_rows=-1, tbl_cols=-1,
                   float_precision=3, tbl_width_chars=120):  # fmt: skip
        print(f"\n{title}\n{table}")


if __name__ == "__main__":
    main()
