"""Label columns, one at a time: a set of millions of rows is never held whole, and never as Python objects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from data_manifests.recordio.record_file import UNKNOWN_IDENTITY
from pipeline.label_report.scores import ABSOLUTE_YAW, SCORES, SHOWN, Score

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from data_manifests.tables.stages import Factor, Status

NO_CLASS = -1
"""Code of a row without a class."""


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """The labels of N images in key order.

    Attributes:
        folder: holds their shards.
        confidence: holds the table `confidence` of a model that was trained from them; None where there is none.
    """

    folder: Path
    confidence: Path | None = None

    @property
    def frame(self) -> pl.LazyFrame:
        """The labels, not read yet."""
        return pl.scan_parquet(self.folder, glob=False)

    @cached_property
    def rows(self) -> int:
        """N."""
        return int(self.frame.select(pl.len()).collect().item())

    @cached_property
    def shown(self) -> tuple[Score, ...]:
        """The scores that a page shows, of those that were measured."""
        there = self.frame.collect_schema().names()
        return tuple(score for score in SHOWN if score.column in there)

    def read(self, column: str) -> pl.Series:
        """One column as it is stored."""
        return self.frame.select(column).collect()[column]

    def values(self, score: str) -> NDArray[np.float32]:
        """A score, float32 [N], NaN for null."""
        values = self.read(SCORES[score].source).to_numpy().astype(np.float32, copy=False)
        return np.abs(values) if score == ABSOLUTE_YAW else values

    def codes(self, factor: Factor) -> NDArray[np.int8]:
        """The classes of a factor, int8 [N], indices into CLASSES; -1 for null."""
        return self.read(factor.value).to_physical().cast(pl.Int8).fill_null(NO_CLASS).to_numpy()

    def take(self, rows: NDArray[np.int64]) -> pl.DataFrame:
        """Whole rows by their place from 0, in the order of places, with the place as the column `row`."""
        return take_rows(self.frame, rows)

    @cached_property
    def status_counts(self) -> dict[str, int]:
        """How many rows have each status, the most frequent first."""
        counts = self.frame.select(pl.col("status").cast(pl.String).value_counts(sort=True)).unnest("status").collect()
        ordered = sorted(counts.iter_rows(), key=lambda entry: (-entry[1], entry[0]))
        return {str(name): int(count) for name, count in ordered}

    def rows_with(self, status: Status) -> NDArray[np.int64]:
        """The places of the rows among whose causes is this one."""
        texts = [text for text in self.status_counts if status.value in text.split("+")]
        wanted = pl.col("status").cast(pl.String).is_in(texts)
        found = self.frame.with_row_index("row").filter(wanted).select("row").collect()
        return found["row"].to_numpy().astype(np.int64)

    @cached_property
    def people(self) -> NDArray[np.int32]:
        """Whom the images show, int32 [N]; -1 where nobody knows."""
        return self.read("identity").cast(pl.Int32).fill_null(UNKNOWN_IDENTITY).to_numpy()

    def images_of_people(self) -> NDArray[np.int64]:
        """How many images each person has, ascending; images of no known person are left out."""
        known = self.frame.filter(pl.col("identity") >= 0)
        return known.group_by("identity").len().collect()["len"].sort().to_numpy().astype(np.int64)


def take_rows(frame: pl.LazyFrame, rows: NDArray[np.int64]) -> pl.DataFrame:
    """Rows of a table by their place from 0, in the order of places, with the place as the column `row`."""
    wanted = pl.Series("row", np.unique(rows), pl.UInt32).to_frame().lazy()
    return frame.with_row_index("row").join(wanted, on="row", how="semi").sort("row").collect(engine="streaming")
