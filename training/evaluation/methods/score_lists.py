"""Reads qualities that were made elsewhere: a Parquet or CSV file with one row an image.

Columns: `quality`, or `score` where there is no `quality`; `path` or `key`, which say whose it is; and, where a file is
about several benchmarks, `benchmark`. Others are not looked at. An empty quality is an image without one.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

T = TypeVar("T")

DELIMITERS = {".csv": ",", ".tsv": "\t"}
VALUES = ("quality", "score")
OWNERS = ("path", "key")
BENCHMARK = "benchmark"

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_SHOWN = 60
_LARGEST = float(np.finfo(np.float32).max)


class ScoreListError(ValueError):
    """A list of scores cannot be used; names file, line and remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreList:
    """The rows of a file.

    Attributes:
        file: where they are from.
        unit: what a row's number counts: `line` of a text, from 1, or `row` of Parquet, from 0.
        lines: number of each row [R].
        quality: float64 [R]; NaN where the file has none.
        path: paths [R]; None where the file has no such column, or nothing in it.
        key: keys [R]; likewise.
        benchmark: benchmarks [R]; likewise.
    """

    file: Path
    unit: str
    lines: Sequence[int]
    quality: NDArray[np.float64]
    path: Sequence[str | None] | None
    key: Sequence[int | None] | None
    benchmark: Sequence[str | None] | None

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.lines)


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
        columns = _read_parquet(file)
    elif file.suffix in DELIMITERS:
        columns = _read_text(file, DELIMITERS[file.suffix])
    else:
        raise ScoreListError(f"{file}: is neither .parquet nor {' nor '.join(DELIMITERS)}: save it as one of these")
    value = next(name for name in VALUES if name in columns.cells)
    numbers = columns.convert(value, _to_number)
    return ScoreList(
        file=file,
        unit=columns.unit,
        lines=columns.lines,
        quality=np.array([np.nan if number is None else number for number in numbers], np.float64),
        path=columns.find("path", _to_text),
        key=columns.find("key", _to_key),
        benchmark=columns.find(BENCHMARK, _to_text),
    )


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

    By `path`, where the images are files and the list names any: the path below the benchmark's folder, with or
    without folders before it, or the name of a file alone where no other image has it. Else by `key`.

    Args:
        scores: the list.
        benchmark: the benchmark's name, for lists about several.
        keys: int32 [N].
        paths: of the images below their folder [N]; None where they are no files.
        alone: whether this is the only benchmark that the list is used for.

    Raises:
        ScoreListError: if two rows name one image, or it cannot be told which images the rows are about.
    """
    rows = [row for row in range(len(scores)) if scores.benchmark is None or scores.benchmark[row] == benchmark]
    owners: Sequence[str | int | None]
    if scores.path is not None and paths is not None:
        find, owners = _find_by_path(paths), scores.path
    elif scores.key is not None:
        if scores.benchmark is None and not alone:
            raise ScoreListError(
                f"{scores.file}: its keys are those of one benchmark, but several are evaluated: add a column "
                f"`{BENCHMARK}`, or evaluate one"
            )
        find, owners = _find_by_key(keys), scores.key
    else:
        raise ScoreListError(
            f"{scores.file}: the images of {benchmark} are {'no files' if paths is None else 'files'}, so they need a "
            f"column {'key' if paths is None else 'path or key'}: add it"
        )
    quality = np.full(len(keys), np.nan)
    seen = dict[int, int]()
    unknown = 0
    for row in rows:
        place = find(owners[row])
        if place is None:
            unknown += 1
            continue
        if place in seen:
            raise ScoreListError(
                f"{scores.file}, {scores.unit} {scores.lines[row]}: {str(owners[row])[:_SHOWN]!r} has a score already, "
                f"in {scores.unit} {scores.lines[seen[place]]}: leave one"
            )
        seen[place] = row
        quality[place] = scores.quality[row]
    return Matched(quality=quality, rows=len(rows), unknown=unknown)


def _find_by_key(keys: NDArray[np.int32]) -> Callable[[Any], int | None]:
    """From a key to the place of its image."""
    return {key: place for place, key in enumerate(keys.tolist())}.get


def _find_by_path(paths: Sequence[str]) -> Callable[[Any], int | None]:
    """From a path to the place of its image."""
    places = {path: place for place, path in enumerate(paths)}
    names: dict[str, int | None] = {}
    for place, path in enumerate(paths):
        name = path.rsplit("/", 1)[-1]
        names[name] = None if name in names else place

    def find(path: str | None) -> int | None:
        if not path:
            return None
        parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
        for start in range(len(parts)):
            place = places.get("/".join(parts[start:]))
            if place is not None:
                return place
        return names.get(parts[0]) if len(parts) == 1 else None

    return find


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """The cells of a file by column, as its format gives them; empty ones are None."""

    file: Path
    unit: str
    lines: Sequence[int]
    cells: dict[str, list[Any]]

    def find(self, name: str, convert: Callable[[Any], T]) -> list[T | None] | None:
        """A column, checked; None where the file has none, or nothing in it."""
        if all(cell is None for cell in self.cells.get(name, [])):
            return None
        return self.convert(name, convert)

    def convert(self, name: str, convert: Callable[[Any], T]) -> list[T | None]:
        """A column that is there, checked."""
        found: list[T | None] = []
        for line, cell in zip(self.lines, self.cells[name], strict=True):
            try:
                found.append(None if cell is None else convert(cell))
            except ValueError as error:
                raise ScoreListError(
                    f"{self.file}, {self.unit} {line}: column {name}: {str(cell)[:_SHOWN]!r} {error}"
                ) from None
        return found


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
    return int(cell)


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


def _read_parquet(file: Path) -> _Columns:
    """The columns of a Parquet file that matter."""
    try:
        with pq.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            wanted = _choose(file, names)
            table = opened.read(columns=wanted, use_threads=False)
        cells = {name: table[name].to_pylist() for name in wanted}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ScoreListError(f"{file}: cannot be read as Parquet ({_shorten(error)}): make it again") from None
    return _Columns(file=file, unit="row", lines=range(table.num_rows), cells=cells)


def _read_text(file: Path, delimiter: str) -> _Columns:
    """The columns of a text that matter; blank lines are left out."""
    lines: list[int] = []
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = _split(file, csv.reader(opened, delimiter=delimiter, strict=True))
        names = next(((row) for _, row in rows), [])
        wanted = _choose(file, names)
        places = {name: names.index(name) for name in wanted}
        cells: dict[str, list[Any]] = {name: [] for name in wanted}
        for line, row in rows:
            if len(row) != len(names):
                raise ScoreListError(
                    f"{file}, line {line}: {len(row)} fields, but the first line names {len(names)}: correct it"
                )
            lines.append(line)
            for name, place in places.items():
                cells[name].append(row[place] or None)
    return _Columns(file=file, unit="line", lines=lines, cells=cells)


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
