"""How far the labels agree with the known damage of a data set, and its yaw with another network's.

    python -m benchmarks.truth --dataset mixed.toml --sources sources.tsv [--write docs/labels.md]

The data set must be labelled. `sources.tsv` holds key, identity, source and a JSON list of [damage, severity].
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from data_manifests.storage.atomic import write_atomically
from data_manifests.weights.registry import load_registry
from labelers.faces import decode_batch
from labelers.opening import open_labeler
from pipeline.config.job import Job, resolve, workspace_root
from pipeline.label_report.command import label_command

OCCLUDING = ("box", "mask", "glasses")
LIGHTING = ("dark", "over", "side")
MARKS = ("<!-- truth: made by python -m benchmarks.truth -->", "<!-- end of truth -->")
POSE_IMAGES = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="name or TOML file of the labelled data set")
    parser.add_argument("--sources", required=True, type=Path, help="the table of known damage")
    parser.add_argument("--write", type=Path, help="Markdown page whose marked section is replaced")
    options = parser.parse_args()
    job = resolve(options.dataset, workspace=workspace_root())
    if not job.store.is_complete(job.stages["labels"]):
        sys.exit(f"{job.name} is not labelled in {job.store.root}: run `{label_command(job)}` first")
    frame = join_sources(job, options.sources)
    text = "\n\n".join([by_kind(frame), factors(frame), pose(job, frame)])
    print(text)
    if options.write:
        replace_section(options.write, text)


def join_sources(job: Job, sources: Path) -> pl.DataFrame:
    """Labels with the damages of each image: `kinds` (joined by +) and `severity` (the largest; 0 for none)."""
    table = pl.read_csv(sources, separator="\t", quote_char=None, glob=False)
    damage = [json.loads(text) for text in table["degradations"]]
    known = pl.DataFrame({
        "key": table["key"].cast(pl.Int32),
        "kinds": ["+".join(kind for kind, _ in d) for d in damage],
        "severity": [max((s for _, s in d), default=0.0) for d in damage],
    })  # fmt: skip
    labels = pl.read_parquet(job.store.folder(job.stages["labels"]), glob=False)
    return labels.join(known, on="key", how="inner", validate="1:1")


def correlation(frame: pl.DataFrame, measure: str) -> float:
    """Spearman's correlation of a measure with the severity."""
    there = frame.drop_nulls(measure)
    if len(there) < 3 or there[measure].n_unique() < 2:
        return float("nan")
    return float(spearmanr(there[measure], there["severity"]).statistic)


def by_kind(frame: pl.DataFrame) -> str:
    """Correlation of sharpness and certainty with the severity, over images with one damage alone."""
    lines = [
        "| damage alone | images | cpbd | sobel | certainty ratio | norm | clear |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds = sorted(k for k in frame["kinds"].unique() if k and "+" not in k)
    for kind in [*kinds, "all images"]:
        part = frame if kind == "all images" else frame.filter(pl.col("kinds") == kind)
        values = " | ".join(f"{correlation(part, m):+.2f}" for m in ("cpbd", "sobel", "certainty_ratio", "norm"))
        clear = (part["blur"].cast(pl.String) == "clear").mean()
        lines.append(f"| {kind} | {len(part):,} | {values} | {clear:.1%} |")
    undamaged = frame.filter(pl.col("kinds") == "")
    clear = (undamaged["blur"].cast(pl.String) == "clear").mean()
    lines.append(f"| none | {len(undamaged):,} | | | | | {clear:.1%} |")
    return (
        "Spearman's correlation with the severity of the damage, and the share of the class `clear`:\n\n"
        + "\n".join(lines)
    )


def factors(frame: pl.DataFrame) -> str:
    """Balanced accuracy of occlusion and lighting against the painted damage."""
    lines = ["| factor | damaged images | found among them | undamaged images | false alarms | balanced accuracy |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for factor, worse, kinds in (
        ("occlusion", "obstructed", OCCLUDING),
        ("lighting", "extreme lighting", LIGHTING),
    ):
        clean = frame.filter(pl.col("kinds") == "")
        for name, group in ((factor, kinds), *((f"{factor}: {k}", (k,)) for k in kinds)):
            hurt = frame.filter(pl.col("kinds").is_in(group))
            hit = (hurt[factor].cast(pl.String) == worse).mean()
            alarm = (clean[factor].cast(pl.String) == worse).mean()
            row = (
                name,
                f"{len(hurt):,}",
                f"{hit:.1%}",
                f"{len(clean):,}",
                f"{alarm:.1%}",
                f"{(hit + 1 - alarm) / 2:.3f}",
            )
            lines.append("| " + " | ".join(row) + " |")
    return "Factors against the painted damage, images with that damage alone against undamaged ones:\n\n" + "\n".join(
        lines
    )


def pose(job: Job, frame: pl.DataFrame) -> str:
    """Yaw against FSA-Net's, which knows nothing of MediaPipe."""
    entry = load_registry().get("fsanet")
    labeler = open_labeler(entry, "cpu")
    index = job.stages["index"]
    yaw, keys = [], []
    for shard in sorted(job.store.present_shards(index)):
        rows = job.store.read(index, shard)
        if sum(map(len, keys)) >= POSE_IMAGES:
            break
        faces, _ = decode_batch(rows["key"].to_numpy(), rows["identity"].to_numpy(), job.source.read(rows))
        yaw.append(labeler(faces).columns["yaw_deg"])
        keys.append(rows["key"].to_numpy())
    other = pl.DataFrame({"key": np.concatenate(keys), "other_yaw": np.concatenate(yaw)})
    pair = frame.join(other, on="key").drop_nulls("yaw_deg")
    return f"Yaw of {job.settings.pose} against FSA-Net's, which knows nothing of it:\n\n" + "\n".join([
        "| images | mean absolute difference | correlation | same of the three classes |",
        "|---|---|---|---|",
        _agreement("all", pair),
        _agreement("undamaged", pair.filter(pl.col("kinds") == "")),
    ])  # fmt: skip


def _agreement(name: str, pair: pl.DataFrame) -> str:
    """One row of the comparison of two yaws."""
    ours, theirs = pair["yaw_deg"].to_numpy(), pair["other_yaw"].to_numpy()
    same = (np.digitize(np.abs(ours), [10, 25]) == np.digitize(np.abs(theirs), [10, 25])).mean()
    difference, correlated = np.abs(ours - theirs).mean(), np.corrcoef(ours, theirs)[0, 1]
    return f"| {name}, {len(pair):,} | {difference:.2f} degrees | {correlated:+.3f} | {same:.1%} |"


def replace_section(page: Path, text: str, marks: tuple[str, str] = MARKS) -> None:
    """Replace what stands between the marks of a page."""
    before, rest = page.read_text().split(marks[0])
    after = rest.split(marks[1])[1]
    content = f"{before}{marks[0]}\n\n{text}\n\n{marks[1]}{after}"
    write_atomically(page, lambda file: file.write(content.encode()))


if __name__ == "__main__":
    main()
