"""Lists of scores as text: tables with a delimiter, and lines of a path and what a repository wrote behind it."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.evaluation.score_columns import (
    PATH,
    QUALITY,
    SCALAR,
    SHOWN,
    ScoreListError,
    find_decimal_comma,
    find_owners,
    is_header,
    is_number,
    shorten,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DELIMITERS = {".csv": ",", ".tsv": "\t"}
FEATURES = 32
"""From so many numbers behind a path on, they are an embedding, whose length is the quality (MagFace's gen_feat.py)."""

_HEADLESS = (2, 7)
"""Fields of a table without a header: path and score; CLIB-FIQA's labels have five classes behind them."""
_PICKLES = (".pkl", ".pickle")
_REPACK = (
    "where it was made, run python -c \"import pickle; [print(k, float(v)) for k, v in pickle.load(open('{name}', "
    "'rb')).items()]\" > scores.txt, and name scores.txt"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """The cells of a text.

    Attributes:
        names: of its columns; a column without one has an empty name.
        lines: number of the line of every row, from 1.
        rows: the fields of every row, as many as names, without white space around them.
        quality: what the quality is, where no column names it; empty where one does.
    """

    names: list[str]
    lines: list[int]
    rows: list[list[str]]
    quality: str = ""


def read_text(file: Path, column: str = "") -> TextTable:
    """Read a list of scores that is text; blank lines are left out.

    The first line decides. It names columns, between commas, semicolons or tabs; or it is a path and a number between
    them; or a path, white space, and a number, where the path may hold blanks. The delimiter that the suffix says is
    tried first.

    Args:
        file: of any suffix.
        column: the name of the column that is the quality; empty: the usual ones.

    Raises:
        ScoreListError: if it is a pickle, no UTF-8, a list of pairs, or a line is damaged.
    """
    _refuse_pickle(file)
    try:
        first = _first_line(file)
        if not first:
            raise ScoreListError(f"{file}: is empty, so there is no column quality or score (there are none): add it")
        _refuse_decimal_comma(file, first)
        if found := _find_table(first, DELIMITERS.get(file.suffix, ","), column):
            delimiter, names = found
            return _read_delimited(file, delimiter, names)
        if column:
            raise ScoreListError(f"{file}: its first line names no columns, so there is no column {column}: leave it")
        return _read_lines(file, _count_numbers(first.split()) >= FEATURES)
    except UnicodeDecodeError as error:
        raise ScoreListError(f"{file}: cannot be read ({shorten(error)}): save it as UTF-8 text") from None


def _refuse_pickle(file: Path) -> None:
    """A pickle may run anything when it is read."""
    with file.open("rb") as opened:
        start = opened.read(2)
    if file.suffix in _PICKLES or (start[:1] == b"\x80" and start[1:] <= b"\x05"):
        remedy = _REPACK.format(name=file.name)
        raise ScoreListError(f"{file}: is a pickle, which may run anything and is not read: {remedy}")


def _refuse_decimal_comma(file: Path, first: str) -> None:
    """A first line of a path and a number with a decimal comma would be read as a table between commas."""
    for delimiter in (None, ";", "\t"):
        path, *number = (part.strip() for part in first.strip().rsplit(delimiter, 1))
        if number and PurePosixPath(path).suffix and (written := find_decimal_comma(number[0])):
            raise ScoreListError(
                f"{file}: {number[0][:SHOWN]!r} in the first line has a decimal comma: write {written[:SHOWN]} there, "
                "and a point in all numbers"
            )


def _first_line(file: Path) -> str:
    """The first line that is not blank."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        return next((line for line in opened if line.strip()), "")


def _find_table(first: str, own: str, column: str) -> tuple[str, list[str] | None] | None:
    """Delimiter and names of columns of a table; None where the first line is a path, white space and numbers.

    The names are None where the first line is a row, and a header that lacks a column is given as it is.
    """
    delimiters = tuple(dict.fromkeys((own, ",", ";", "\t")))
    headers = {delimiter: _split_first(first, delimiter) for delimiter in delimiters}
    for delimiter, names in headers.items():
        if is_header(names, column):
            return delimiter, names
    for delimiter, fields in headers.items():
        if len(fields) in _HEADLESS and is_number(fields[1]) and not column:
            return delimiter, None
    words = first.split()
    if len(words) > 1 and (is_number(words[-1]) or _names_line(words)):
        return None
    return next(((delimiter, names) for delimiter, names in headers.items() if find_owners(names)), (own, headers[own]))


def _names_line(words: list[str]) -> bool:
    """Whether a line names path and score, and nothing else."""
    return len(words) == 2 and is_header(words) and PATH in find_owners(words[:1])


def _split_first(first: str, delimiter: str) -> list[str]:
    """Fields of the first line; none where it cannot be split so."""
    try:
        return [field.strip() for field in next(csv.reader([first], delimiter=delimiter, strict=True), [])]
    except csv.Error:
        return []


def _read_delimited(file: Path, delimiter: str, names: list[str] | None) -> TextTable:
    """A table; where names are None, its first line is a row."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        numbered = list(_split(file, csv.reader(opened, delimiter=delimiter, strict=True)))
    lines, rows = [line for line, _ in numbered], [row for _, row in numbered]
    if names is None:
        names, said = [PATH, QUALITY, *[""] * (len(rows[0]) - 2)], "the second field of a line"
        table = TextTable(names=names, lines=lines, rows=rows, quality=said)
    else:
        table = TextTable(names=names, lines=lines[1:], rows=[_fill(row, names) for row in rows[1:]])
    for line, row in zip(table.lines, table.rows, strict=True):
        if len(row) != len(names):
            said = "has" if table.quality else "names"
            comma = delimiter == "," and any(part.isdecimal() for part in row[1:])
            remedy = ", or, where a number has a decimal comma, write it with a point" if comma else ""
            raise ScoreListError(
                f"{file}, line {line}: {len(row)} fields, but the first line {said} {len(names)}: correct it{remedy}"
            )
    return table


def _fill(row: list[str], names: Sequence[str]) -> list[str]:
    """A row of OFIQ with all fields: its header alone ends with a delimiter, and an unread image has no measures."""
    if not any(name.endswith(SCALAR) for name in names):
        return row
    missing = len(names) - len(row)
    if missing > 1 and len(row) > 2 and not any(row[1:3]):
        return [row[0], *[""] * (len(names) - 1)]
    return [*row, ""] if missing == 1 and not names[-1] else row


def _split(file: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Number and stripped fields of every line that is not blank."""
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if any(fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise ScoreListError(
            f"{file}, line {reader.line_num + 1}: cannot be read ({shorten(error)}): save it as UTF-8 text with one "
            "delimiter"
        ) from None


def _count_numbers(words: Sequence[str]) -> int:
    """How many words at the end of a line are numbers, but for its first word."""
    return sum(1 for _ in takewhile(is_number, reversed(words[1:])))


def _read_lines(file: Path, embeddings: bool) -> TextTable:
    """Lines of a path, white space, and a score or an embedding."""
    with file.open(encoding="utf-8-sig") as opened:
        numbered = [(number, line.strip()) for number, line in enumerate(opened, 1) if line.strip()]
    lines = [number for number, _ in numbered]
    if embeddings:
        width = 1 + _count_numbers(numbered[0][1].split())
        rows = [_measure(file, number, line, width) for number, line in numbered]
        said = f"the length of the {width - 1} numbers of a line"
    elif all(_is_pair(line) for _, line in numbered):
        raise ScoreListError(
            f"{file}: is a list of pairs (two names and 0 or 1 in every line), not of images: name the file with a "
            "path and a score in every line"
        )
    else:
        rows, said = [_split_last(line) for _, line in numbered], "the last field of a line"
    headed = int(_names_line(rows[0]))
    return TextTable(names=[PATH, QUALITY], lines=lines[headed:], rows=rows[headed:], quality=said)


def _is_pair(line: str) -> bool:
    """Whether a line is one of CR-FIQA's ERC: two images, whether they are of one person, and perhaps a score."""
    words = line.split()
    return (
        len(words) in (3, 4)
        and words[2] in ("0", "1")
        and PurePosixPath(words[0]).suffix == PurePosixPath(words[1]).suffix
    )


def _split_last(line: str) -> list[str]:
    """Path and score; a line of one word is a path without a score."""
    words = line.rsplit(None, 1)
    return words if len(words) > 1 else [line, ""]


def _measure(file: Path, number: int, line: str, width: int) -> list[str]:
    """Path, and length of the embedding behind it."""
    path, *numbers = words = line.split()
    if len(words) > width and _count_numbers(words) >= width - 1:
        name = " ".join(words[: 1 - width])
        raise ScoreListError(
            f"{file}, line {number}: the name {name[:SHOWN]!r} before the {width - 1} numbers holds a blank, which "
            "ends a name in such a list: give the images names without blanks, or write lines of a path and one score, "
            "the length of the numbers"
        )
    if len(numbers) != width - 1 or not all(map(is_number, numbers)):
        raise ScoreListError(
            f"{file}, line {number}: is not a path and {width - 1} numbers, as the first line is: correct it"
        )
    return [path, repr(math.hypot(*map(float, numbers)))]
