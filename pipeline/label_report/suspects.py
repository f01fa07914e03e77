"""Images whose labels contradict each other: where a person who looks finds mistakes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from data_manifests.tables.stages import CLASSES
from pipeline.pages.people import first_of_people

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.label_report.labels_table import LabelTable
    from pipeline.label_report.ranked import Ranked

_TAIL = 0.05
"""Share of the images whose quality is called low, and of those whose quality is called high."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspects:
    """Images with one contradiction.

    Attributes:
        title: what contradicts what.
        text: what is wrong perhaps.
        where: the condition on the labels, in SQL; empty where the labels alone do not tell.
        score: that tells which are the worst.
        table: that tells it instead, where it is not in the labels.
        images: how many there are.
        rows: places of the worst of them.
    """

    title: str
    text: str
    where: str
    score: str
    images: int
    rows: NDArray[np.int64]
    table: Path | None = None


def find_suspects(labels: LabelTable, quality: Ranked) -> Iterator[Suspects]:
    """Contradictions that the labels hold, each with the images in which it is greatest.

    Args:
        labels: the labels of N images.
        quality: theirs.
    """
    yield from _find(
        labels,
        "Nearer to another person than to their own",
        "The person may be the wrong one, the picture may be too bad to tell, or two folders show the same person. "
        "Where most images are here, the folders are perhaps no people.",
        "ccs < nnccs",
        "certainty_ratio",
    )
    if not quality.known:
        return
    low, high = quality.quantile(_TAIL), quality.quantile(1 - _TAIL)
    without = " AND ".join(f"{factor} <> '{classes[0]}'" for factor, classes in CLASSES.items())
    yield from _find(
        labels,
        "Low quality, and no factor says why",
        "A damage that no factor sees, the wrong person, or a person with one other image.",
        f"quality <= {low:.6g} AND {without}",
        "quality",
    )
    damages = " + ".join(f"CAST({factor} = '{classes[0]}' AS INT)" for factor, classes in CLASSES.items())
    yield from _find(
        labels,
        "High quality in spite of two damages or more",
        "A factor may see what is not there.",
        f"quality >= {high:.6g} AND {damages} >= 2",
        "quality",
        descending=True,
    )
    if labels.confidence is not None:
        yield from _find_unsure(labels, labels.confidence)


def _find_unsure(labels: LabelTable, table: Path) -> Iterator[Suspects]:
    """The images in which a model finds quality and factors to differ most, where it was trained on any."""
    known = pl.scan_parquet(table, glob=False).select("key", "confidence").drop_nulls()
    rows = labels.frame.select("key").with_row_index("row")
    found = rows.join(known, on="key").sort("confidence", "row").collect()
    least = found.head(int(found.height * _TAIL))
    if least.height:
        yield Suspects(
            title="Least confidence after a training",
            text="One in twenty of the images that a model learned from: what it made of quality and what it made "
            "of the factors differ most (CLIB-FIQA Eq. 8 and 9). A class or the quality may be wrong, or the damage "
            "is one that no factor has. At most two of a person are shown.",
            where="",
            score="quality",
            images=least.height,
            rows=first_of_people(least["row"].to_numpy().astype("int64"), labels.people),
            table=table,
        )


def _find(  # noqa: PLR0913 - what is looked for, and in which order it is shown
    labels: LabelTable, title: str, text: str, where: str, score: str, *, descending: bool = False
) -> Iterator[Suspects]:
    """The images that meet a condition, if there are any."""
    found = labels.frame.with_row_index("row").filter(pl.sql_expr(where)).select("row", score).collect()
    rows = found.sort(score, "row", descending=[descending, False])["row"].to_numpy().astype("int64")
    if rows.size:
        first = first_of_people(rows, labels.people)
        yield Suspects(title=title, text=text, where=where, score=score, images=rows.size, rows=first)
