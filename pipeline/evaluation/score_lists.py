"""Reads qualities that were made elsewhere: a Parquet file or a text with one row an image, as their authors write it.

Columns: `quality`, or `score` where there is no `quality`; `path` or `key`, which say whose it is; and, where a file is
about several benchmarks, `benchmark`; or other spellings and words for these (`choose_columns`). Others are not looked
at. A text may also be lines of a path and a score without a header (`read_text`). An empty quality is an image without
one, and so is one that OFIQ could not assess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from data_manifests.storage.shard_file import READ_ERRORS
from pipeline.evaluation.score_columns import (
    ASSESSED,
    BENCHMARK,
    KEY,
    PATH,
    QUALITY,
    SHOWN,
    ScoreListError,
    choose_columns,
    find_decimal_comma,
    is_number,
    shorten,
    unwrap,
)
from pipeline.evaluation.score_texts import read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LOWER = "-"
"""Before the name of a column, or alone: a lower number is a better image."""

_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_LARGEST_KEY = 10**18 - 1
_LARGEST = float(np.finfo(np.float32).max)
_NOT_ASSESSED = -1
_NANS = ("nan", "+nan", "-nan", "na", "n/a", "none", "null")
"""What programs write where there is no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreList:
    """The rows of a file.

    Attributes:
        file: where they are from.
        unit: what a row's number counts: `line` of a text, from 1, or `row` of Parquet, from 0.
        said: what of a row is its quality.
        rows: `number` and `quality` (null where the file has none), a higher one better; `path`, `key` and
            `benchmark`, where the file has such a column with anything in it.
    """

    file: Path
    unit: str
    said: str
    rows: pl.DataFrame

    def __len__(self) -> int:
        """The number of rows."""
        return self.rows.height


def read_scores(file: Path, column: str = "") -> ScoreList:
    """Read a list of scores.

    Args:
        file: .parquet; any other suffix is a text.
        column: the name of the column that is the quality; empty: the usual ones. LOWER before it, or alone, negates
            the numbers.

    Raises:
        ScoreListError: if the file is not there, is damaged, lacks a column, or holds what is no finite number.
    """
    if not file.is_file():
        what = "is a folder, or no plain file" if file.exists() else "no such file"
        raise ScoreListError(f"{file}: {what}: give a file with a row an image, Parquet or text")
    name = column.removeprefix(LOWER)
    if file.suffix == ".parquet":
        unit, numbers, cells, said = "row", *_read_parquet(file, name)
    else:
        unit, numbers, cells, said = "line", *_read_text(file, name)
    rows = {}
    for role, (header, column_cells) in cells.items():
        convert, dtype = _CONVERSIONS[role]
        found = [
            _convert(cell, convert, f"{file}, {unit} {number}: column {header}")
            for number, cell in zip(numbers, column_cells, strict=True)
        ]
        if role == QUALITY or any(value is not None for value in found):
            rows[role] = pl.Series(found, dtype=dtype)
    if not numbers:
        raise ScoreListError(f"{file}: holds no row: give a file with a row an image")
    lower = column.startswith(LOWER)
    table = _drop_unassessed(pl.DataFrame({"number": pl.Series(numbers, dtype=pl.Int64), **rows}))
    return ScoreList(
        file=file,
        unit=unit,
        said=said + ", where lower is better" * lower,
        rows=table.with_columns(-pl.col(QUALITY)) if lower else table,
    )


def _drop_unassessed(rows: pl.DataFrame) -> pl.DataFrame:
    """No quality where OFIQ could not assess the image."""
    if ASSESSED not in rows.columns:
        return rows
    assessed = pl.when(pl.col(ASSESSED) != _NOT_ASSESSED).then(pl.col(QUALITY))
    return rows.with_columns(assessed.alias(QUALITY)).drop(ASSESSED)


def _convert(cell: Any, convert: Callable[[Any], Any], where: str) -> Any:
    """A cell that is not empty, checked."""
    try:
        return None if cell is None else convert(cell)
    except ValueError as error:
        raise ScoreListError(f"{where}: {str(cell)[:SHOWN]!r} {error}") from None


def _to_number(cell: Any) -> float:
    """A quality."""
    if _is_nan(cell):
        raise ValueError("says that the method gave the image no score: leave the field empty, or the row out")
    if isinstance(cell, str) and (written := find_decimal_comma(cell)):
        raise ValueError(f"has a decimal comma: write {written} there, and a point in all numbers")
    if not _is_number(cell):
        raise ValueError("is no number: correct it, or leave it empty where an image has no quality")
    number = float(unwrap(cell) if isinstance(cell, str) else cell)
    if not abs(number) <= _LARGEST:
        raise ValueError("is no finite float32: correct it, or leave it empty where an image has no quality")
    return number


def _is_nan(cell: Any) -> bool:
    """Whether a cell is NaN, or a text of it."""
    return unwrap(cell).casefold() in _NANS if isinstance(cell, str) else isinstance(cell, float) and cell != cell  # noqa: PLR0124


def _to_key(cell: Any) -> int:
    """A key."""
    if not (_WHOLE.fullmatch(cell) if isinstance(cell, str) else _is_number(cell) and cell % 1 == 0):
        raise ValueError("is no key, which is a whole number: correct it")
    key = int(cell)
    if abs(key) > _LARGEST_KEY:
        raise ValueError("is no key, which has 18 digits at most: correct it")
    return key


def _is_number(cell: Any) -> bool:
    """Whether a cell is a number, or a text of one."""
    if isinstance(cell, str):
        return is_number(cell)
    return isinstance(cell, int | float | Decimal) and not isinstance(cell, bool)


def _to_text(cell: Any) -> str:
    """A path or a name."""
    if not isinstance(cell, str):
        raise ValueError("is no text: give a column of texts")  # noqa: TRY004 - of the file, not of this program
    return cell


_CONVERSIONS: dict[str, tuple[Callable[[Any], Any], type[pl.DataType]]] = {
    **dict.fromkeys((QUALITY, ASSESSED), (_to_number, pl.Float64)),
    PATH: (_to_text, pl.String),
    KEY: (_to_key, pl.Int64),
    BENCHMARK: (_to_text, pl.String),
}
"""What a column is -> how a cell is checked, and its type."""


Cells = dict[str, tuple[str, list[Any]]]
"""What a column is -> its name and cells; empty ones are None."""


def _read_parquet(file: Path, column: str) -> tuple[Sequence[int], Cells, str]:
    """Numbers of rows, the cells, and what the quality is."""
    try:
        with pq.ParquetFile(file) as opened:
            wanted = choose_columns(file, opened.schema_arrow.names, column)
            table = opened.read(columns=list(wanted.values()), use_threads=False)
        cells = {role: (name, table[name].to_pylist()) for role, name in wanted.items()}
        return range(table.num_rows), cells, f"column {wanted[QUALITY]}"
    except ScoreListError:
        raise
    except READ_ERRORS as error:
        raise ScoreListError(f"{file}: cannot be read as Parquet ({shorten(error)}): make it again") from None


def _read_text(file: Path, column: str) -> tuple[Sequence[int], Cells, str]:
    """Numbers of lines, the cells, and what the quality is."""
    text = read_text(file, column)
    wanted = choose_columns(file, text.names, column)
    places = {role: (name, text.names.index(name)) for role, name in wanted.items()}
    cells: Cells = {role: (name, [row[place] or None for row in text.rows]) for role, (name, place) in places.items()}
    return text.lines, cells, text.quality or f"column {wanted[QUALITY]}"
