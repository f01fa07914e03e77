"""What a person should know of a label set: causes of nulls, class shares, and what looks wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from rich.table import Table
from rich.text import Text

from data_manifests.manifest import Centres as CentresKind
from data_manifests.tables.stages import CLASSES, Factor, Status
from labelers.rules import BlurSource, LabelRecipe, LabelSettings
from pipeline.label_report.shared_photos import shared_photo_warnings
from pipeline.storage.receipts import sum_notes
from pipeline.terminal import tell

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.job import Job
    from pipeline.label_report.command import Command

FEW = 100
"""Of fewer images no share is worth a warning."""

RARE = 0.01
"""A class with a smaller share is nearly empty (docs/fidelity.md, blur classes)."""

SAMPLED = 200_000
"""Rows, evenly spread, that say how two scores are correlated: within 0.005 of all rows."""

DISAGREEING = 0.2
"""Under this Spearman correlation, cpbd and sobel order the images against each other."""

UNREAD = [Status.MISSING.value, Status.RECORD_ERROR.value, Status.DECODE_ERROR.value, Status.WRONG_SIZE.value]
"""The causes that lie in the stored image, not in the face."""

SHOWN = 12
"""Keys that one line names."""

MISALIGNED = 0.1
"""A data set with a larger share of faces far from the template is probably not aligned."""


NEAREST = 0.5
"""Where a smaller share of the images is nearest to its own person's centre, the centres are hardly those people's."""


def class_shares(labels: pl.LazyFrame) -> dict[Factor, dict[str, float]]:
    """The share of every class among the images that have one, by factor, worst class first."""
    shares = {}
    for factor, names in CLASSES.items():
        counts = dict(
            labels.select(pl.col(factor.value).drop_nulls()).collect()[factor.value].value_counts().iter_rows()
        )
        total = sum(counts.values())
        shares[factor] = {name: counts.get(name, 0) / total if total else 0.0 for name in names}
    return shares


def rank_correlation(labels: pl.LazyFrame) -> float:
    """Spearman's correlation of cpbd and sobel, of SAMPLED rows at most; NaN where one of them is constant."""
    pair = labels.select("cpbd", "sobel").drop_nulls().collect()
    pair = pair.gather_every(-(-len(pair) // SAMPLED) or 1)
    value = pair.lazy().select(pl.corr("cpbd", "sobel", method="spearman")).collect().item()
    return float("nan") if value is None else float(value)


def warnings_of(labels: pl.LazyFrame, settings: LabelSettings, command: Command) -> list[str]:
    """What looks wrong with the classes, each with what to do; nothing for a handful of images."""
    if labels.select(pl.len()).collect().item() < FEW:
        return []
    found = [
        f"{factor.value}: only {share:.2%} of the images are {name!r}"
        for factor, names in class_shares(labels).items()
        for name, share in names.items()
        if share < RARE
    ]
    if settings.recipe != LabelRecipe.PAPER or settings.blur_source is not BlurSource.CPBD:
        return found
    correlation = rank_correlation(labels)
    if correlation < DISAGREEING:
        found.append(f"blur: cpbd and sobel order the images against each other (Spearman {correlation:.2f})")
    hazy, clear = (_median_quality(labels, name) for name in ("hazy", "clear"))
    if hazy is not None and clear is not None and hazy > clear:
        found.append(
            f"blur: the hazy images have the higher quality, {hazy:.2f} at the median, the clear ones {clear:.2f}"
        )
    if any(line.startswith("blur") for line in found):
        found.append(
            "blur: the published score and thresholds hardly fit real faces; "
            f"classes that follow known blur (docs/labels.md), by measuring blur alone anew: {command.robust}"
        )
    return found


def _median_quality(labels: pl.LazyFrame, blur: str) -> float | None:
    """The median quality of a class of blur; None where none of its images has one."""
    found: float | None = labels.filter(pl.col("blur") == blur).select(pl.col("quality").median()).collect().item()
    return found


def centre_warnings(job: Job, anchors: pl.LazyFrame) -> list[str]:
    """What looks wrong with class centres, by the columns `ccs` and `nnccs`: they are other people's."""
    share = anchors.select((pl.col("ccs") > pl.col("nnccs")).mean()).collect().item()
    if share is None or share >= NEAREST:
        return []
    causes = {
        CentresKind.HEAD: f"the rows of {job.settings.head} are hardly these people in this order, which is that of "
        "the table `identities`: take the head that was trained with this recogniser on this data set",
        CentresKind.MEAN: "the images may not be sorted by person, or the recogniser does not fit them",
    }
    return [f"only {share:.1%} of the images are nearest to their own class centre: {causes[job.settings.centres]}"]


def copy_warnings(table: pl.LazyFrame) -> list[str]:
    """Which images are copies of another one of their person."""
    copies = _with_status(table, [Status.COPY.value])
    if copies.is_empty():
        return []
    return [
        f"{len(copies):,} images are copies of another one of their person and have no quality: {_name_keys(copies)}"
    ]


def image_warnings(job: Job, labels: pl.LazyFrame, rows: int) -> list[str]:
    """What looks wrong with the images: centres of others, copies, wrong names, sizes and alignment."""
    found = centre_warnings(job, labels) + copy_warnings(labels) + shared_photo_warnings(job, labels)
    wrong = labels.select((pl.col("status").cast(pl.String).str.contains("wrong_size")).sum()).collect().item()
    if wrong:
        found.append(f"{wrong:,} images are not 112 x 112 and have no measures: align the photos by AlignFaces first")
    misaligned = sum_notes(job.store, job.stages["pose"]).get("misaligned", 0)
    if misaligned > MISALIGNED * rows:
        found.append(
            f"in {misaligned / rows:.1%} of the images the landmarks lie far from the ArcFace template: the set may "
            "not be aligned, and then no measure here means much"
        )
    return found


def print_summary(job: Job, command: Command) -> None:
    """Print causes of nulls, class shares, warnings, where the labels lie and how to open them.

    Args:
        job: whose labels.
        command: that made them.
    """
    folder = job.store.root / "labels" / "current"
    labels = pl.scan_parquet(folder, glob=False)
    rows = labels.select(pl.len()).collect().item()
    tell(_status_table(labels, rows), _share_table(labels))
    for line in warnings_of(labels, job.settings.labels, command) + image_warnings(job, labels, rows):
        _warn(line)
    print_unread(folder)
    tell(f"{rows:,} labels lie in {folder}", f'open them: polars.scan_parquet("{folder}")')


def unread_images(table: pl.LazyFrame) -> str:
    """One line on the images that could not be read: how many, why, and the first of them; empty where all could."""
    unread = _with_status(table, UNREAD)
    if unread.is_empty():
        return ""
    counts = unread["status"].cast(pl.String).value_counts(sort=True).iter_rows()
    why = ", ".join(f"{count:,} {name}" for name, count in counts)
    return f"{len(unread):,} images could not be read ({why}): {_name_keys(unread)}"


def _with_status(table: pl.LazyFrame, causes: list[str]) -> pl.DataFrame:
    """Key and status of the images that have one of these causes."""
    theirs = pl.col("status").cast(pl.String).str.split("+")
    return table.filter(theirs.list.set_intersection(causes).list.len() > 0).select("key", "status").collect()


def _name_keys(images: pl.DataFrame) -> str:
    """The keys of the first images."""
    return f"keys {', '.join(map(str, images['key'].head(SHOWN)))}{', …' if len(images) > SHOWN else ''}"


def print_unread(folder: Path) -> None:
    """Say which images of a stage could not be read."""
    if line := unread_images(pl.scan_parquet(folder, glob=False)):
        _warn(line)


def print_anchors(job: Job) -> None:
    """Say which images could not be read, and what looks wrong with the anchors."""
    folder = job.store.folder(job.stages["anchors"])
    anchors = pl.scan_parquet(folder, glob=False)
    for line in centre_warnings(job, anchors) + copy_warnings(anchors):
        _warn(line)
    print_unread(folder)


def _warn(line: str) -> None:
    """Print a warning."""
    tell(Text.assemble(("warning:", "yellow"), f" {line}"))


def _status_table(labels: pl.LazyFrame, rows: int) -> Table:
    """Causes of nulls with their counts."""
    counts = labels.select(pl.col("status").cast(pl.String).value_counts(sort=True)).unnest("status").collect()
    table = Table("status", "images", "share", title="Status")
    for name, count in counts.iter_rows():
        table.add_row(name, f"{count:,}", f"{count / rows:.1%}")
    return table


def _share_table(labels: pl.LazyFrame) -> Table:
    """Class shares by factor, worst class first."""
    table = Table("factor", "class", "share", "", title="Classes")
    for factor, names in class_shares(labels).items():
        for place, (name, share) in enumerate(names.items()):
            table.add_row(factor.value if place == 0 else "", name, f"{share:.1%}", "▇" * round(30 * share))
        table.add_section()
    return table
