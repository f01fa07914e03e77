"""Reads qualities that were made elsewhere: a Parquet or CSV file with one row an image.

Columns: `quality`, or `score` where there is no `quality`; `path` or `key`, which say whose it is; and, where a file is
about several benchmarks, `benchmark`. Others are not looked at. An empty quality is an image without one.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.image_paths import find_among

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

DELIMITERS = {".csv": ",", ".tsv": "\t"}
VALUES = ("quality", "score")
OWNERS = ("path", "key")
BENCHMARK = "benchmark"

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_SHOWN = 60
_LARGEST_KEY = 10**18 - 1
_LARGEST = float(np.finfo(np.float32).max)


class ScoreListError(ValueError):
    """A list of scores cannot be used; names file, line and remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreList:
    """The rows of a file.

    Attributes:
        file: where they are from.
        unit: what a row's number counts: `line` of a text, from 1, or `row` of Parquet, from 0.
        rows: `number` and `quality` (null where the file has none); `path`, `key` and `benchmark`, where the file has
            such a column with anything in it.
    """

    file: Path
    unit: str
    rows: pl.DataFrame

    def __len__(self) -> int:
        """The number of rows."""
        return self.rows.height


def read_scores(file: Path) -> ScoreList:
    """Read a list of scores.

    Args:
        file: .parquet; or .csv or .tsv with a first line that names the columns.

    Raises:
        ScoreListError: if the file is not there, is damaged, lacks a column, or holds what is no finite number.
    """
    if not file.is_file():
        raise ScoreListError(f"{file}: no such file: give a .parquet, .csv or .tsv with one row an image")
    if file.suffix == ".parquet":
        unit, numbers, cells = "row", *_read_parquet(file)
    elif file.suffix in DELIMITERS:
        unit, numbers, cells = "line", *_read_text(file, DELIMITERS[file.suffix])
    else:
        raise ScoreListError(f"{file}: is neither .parquet nor {' nor '.join(DELIMITERS)}: save it as one of these")
    rows = {"number": pl.Series(numbers, dtype=pl.Int64)}
    for name, column in cells.items():
        convert, dtype = _CONVERSIONS[name]
        found = [
            _convert(cell, convert, f"{file}, {unit} {number}: column {name}")
            for number, cell in zip(numbers, column, strict=True)
        ]
        if name in VALUES or any(value is not None for value in found):
            rows["quality" if name in VALUES else name] = pl.Series(found, dtype=dtype)
    return ScoreList(file=file, unit=unit, rows=pl.DataFrame(rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """What a list says of the images of a benchmark.

    Attributes:
        quality: float64 [N]; NaN where it gives none.
        rows: how many rows are about this benchmark.
        unknown: how many of these name no image of it.
    """

    quality: NDArray[np.float64]
    rows: int
    unknown: int

    @property
    def known(self) -> int:
        """How many rows name an image."""
        return self.rows - self.unknown


def match_scores(
    scores: ScoreList, benchmark: str, keys: NDArray[np.int32], paths: Sequence[str] | None, *, alone: bool = True
) -> Matched:
    """Find the images that the rows of a list are about.

    By `path`, where the images are files and the list names any, as `find_among` understands it. Else by `key`.

    Args:
        scores: the list.
        benchmark: the benchmark's name, for lists about several.
        keys: int32 [N].
        paths: of the images below their folder [N]; None where they are no files.
        alone: whether this is the only benchmark that the list is used for.

    Raises:
        ScoreListError: if two rows name one image, or it cannot be told which images the rows are about.
    """
    columns = scores.rows.columns
    rows = scores.rows.filter(benchmark=benchmark) if BENCHMARK in columns else scores.rows
    if "path" in columns and paths is not None:
        find, owner = find_among(paths), "path"
    elif "key" in columns:
        if BENCHMARK not in columns and not alone:
            raise ScoreListError(
                f"{scores.file}: its keys are those of one benchmark, but several are evaluated: add a column "
                f"`{BENCHMARK}`, or evaluate one"
            )
        find, owner = {key: place for place, key in enumerate(keys.tolist())}.get, "key"
    else:
        raise ScoreListError(
            f"{scores.file}: the images of {benchmark} are {'no files' if paths is None else 'files'}, so they need a "
            f"column {'key' if paths is None else 'path or key'}: add it"
        )
    quality = np.full(len(keys), np.nan)
    seen = dict[int, int]()
    unknown = 0
    for number, name, value in rows["number", owner, "quality"].rows():
        place = find(name)
        if place is None:
            unknown += 1
            continue
        if place in seen:
            raise ScoreListError(
                f"{scores.file}, {scores.unit} {number}: {str(name)[:_SHOWN]!r} has a score already, in "
                f"{scores.unit} {seen[place]}: leave one"
            )
        seen[place] = number
        quality[place] = np.nan if value is None else value
    return Matched(quality=quality, rows=rows.height, unknown=unknown)


def _convert(cell: Any, convert: Callable[[Any], Any], where: str) -> Any:
    """A cell that is not empty, checked."""
    try:
        return None if cell is None else convert(cell)
    except ValueError as error:
        raise ScoreListError(f"{where}: {str(cell)[:_SHOWN]!r} {error}") from None


def _to_number(cell: Any) -> float:
    """A quality."""
    if not _is_number(cell, _NUMBER):
        raise ValueError("is no number: correct it, or leave it empty where an image has no quality")
    number = float(cell)
    if not abs(number) <= _LARGEST:
        raise ValueError("is no finite float32: correct it, or leave it empty where an image has no quality")
    return number


def _to_key(cell: Any) -> int:
    """A key."""
    if not _is_number(cell, _WHOLE) or (not isinstance(cell, str) and cell % 1 != 0):
        raise ValueError("is no key, which is a whole number: correct it")
    key = int(cell)
    if abs(key) > _LARGEST_KEY:
        raise ValueError("is no key, which has 18 digits at most: correct it")
    return key


def _is_number(cell: Any, form: re.Pattern[str]) -> bool:
    """Whether a cell is a number, or a text in that form."""
    if isinstance(cell, str):
        return form.fullmatch(cell) is not None
    return isinstance(cell, int | float | Decimal) and not isinstance(cell, bool)


def _to_text(cell: Any) -> str:
    """A path or a name."""
    if not isinstance(cell, str):
        raise ValueError("is no text: give a column of texts")  # noqa: TRY004 - of the file, not of this program
    return cell


_CONVERSIONS: dict[str, tuple[Callable[[Any], Any], type[pl.DataType]]] = {
    **dict.fromkeys(VALUES, (_to_number, pl.Float64)),
    "path": (_to_text, pl.String),
    "key": (_to_key, pl.Int64),
    BENCHMARK: (_to_text, pl.String),
}
"""Column -> how a cell is checked, and its type."""


def _read_parquet(file: Path) -> tuple[Sequence[int], dict[str, list[Any]]]:
    """Numbers of rows, and the cells by column; empty ones are None."""
    try:
        with pq.ParquetFile(file) as opened:
            wanted = _choose(file, opened.schema_arrow.names)
            table = opened.read(columns=wanted, use_threads=False)
        return range(table.num_rows), {name: table[name].to_pylist() for name in wanted}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ScoreListError(f"{file}: cannot be read as Parquet ({_shorten(error)}): make it again") from None


def _read_text(file: Path, delimiter: str) -> tuple[Sequence[int], dict[str, list[Any]]]:
    """Numbers of lines, and the cells by column; empty ones are None, and blank lines are left out."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        (_, names), *rows = list(_split(file, csv.reader(opened, delimiter=delimiter, strict=True))) or [(0, [])]
    wanted = _choose(file, names)
    for line, row in rows:
        if len(row) != len(names):
            raise ScoreListError(
                f"{file}, line {line}: {len(row)} fields, but the first line names {len(names)}: correct it"
            )
    cells = {name: [row[names.index(name)] or None for _, row in rows] for name in wanted}
    return [line for line, _ in rows], cells


def _split(file: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Number and stripped fields of every line that is not blank."""
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if any(fields):
                yield reader.line_num, fields
    except (csv.Error, UnicodeDecodeError) as error:
        raise ScoreListError(
            f"{file}, line {reader.line_num + 1}: cannot be read ({_shorten(error)}): save it as UTF-8 text with the "
            "delimiter that its suffix says"
        ) from None


def _choose(file: Path, names: Sequence[str]) -> list[str]:
    """The columns that are read, of those that a file has.

    Raises:
        ScoreListError: if one is missing, or there twice.
    """
    wanted = [name for name in VALUES if name in names][:1]
    owners = [name for name in OWNERS if name in names]
    if not wanted or not owners:
        lacking = " or ".join(OWNERS if wanted else VALUES)
        there = ", ".join(names)[: 4 * _SHOWN] or "none"
        raise ScoreListError(f"{file}: there is no column {lacking} (there are {there}): add it, or rename one")
    wanted += [*owners, *([BENCHMARK] if BENCHMARK in names else [])]
    for name in wanted:
        if list(names).count(name) > 1:
            raise ScoreListError(f"{file}: there are several columns {name}: leave one")
    return wanted


def _shorten(error: Exception) -> str:
    """The beginning of a foreign message."""
    return str(error).split("\n")[0][: 3 * _SHOWN]
