"""Parses the lists of verification pairs that people publish as text: which two images, and whether the person is one.

Two forms are read:

- LFW's pairs.txt (vis-www.cs.umass.edu/lfw, README), which XQLFW keeps: a first line with the number of folds and of
  genuine pairs a fold (impostors are as many), or with the latter alone; then `NAME i j` for a genuine pair and
  `NAME i OTHER j` for an impostor. Image i of NAME is NAME/NAME_000i, with whatever suffix it has.
- two paths and 0 or 1 in every line: with commas in a .csv, tabs in a .tsv, white space in all other files. In a .csv
  or .tsv the first line may name the columns.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from data_manifests.image_folder import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_FLAGS = ("0", "1")
_NUMBER = re.compile(r"[0-9]{1,9}")
_SHOWN = 60


class PairsError(ValueError):
    """A list of pairs is damaged, or names what is not there; names file, line and remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPair:
    """One pair of a list.

    Attributes:
        line: number in the file, from 1.
        first: path of an image below the folder of images; without its suffix in LFW's form.
        second: path of the other one.
        same: whether both show the same person.
    """

    line: int
    first: str
    second: str
    same: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPairs:
    """The pairs of a list.

    Attributes:
        pairs: in the order of the file.
        folds: how many folds of equal size the list says it has; None where it says nothing.
        bare: whether the paths lack their suffixes.
    """

    pairs: tuple[NamedPair, ...]
    folds: int | None
    bare: bool


def parse_pairs(path: Path) -> NamedPairs:
    """Read a list of pairs by its names.

    Raises:
        PairsError: if it cannot be read, is neither of the two forms, or has not as many lines as its first line says.
    """
    lines = _read_lines(path)
    if not lines:
        raise PairsError(f"{path}: no line; get the list again")
    if path.suffix.lower() in _DELIMITERS:
        return _parse_paths(path, list(_split_table(path, lines)))
    fields = [(number, line.split("\t") if "\t" in line else line.split()) for number, line in lines]
    fields = [(number, [field.strip() for field in row]) for number, row in fields]
    if len(fields[0][1]) < 3:
        return _parse_lfw(path, fields)
    return _parse_paths(path, fields)


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise PairsError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise PairsError(f"{path}, line {line}: not a text in UTF-8; get the list again") from error
    # split by hand: splitlines also splits at characters that a name may hold
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _split_table(path: Path, lines: list[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    """The fields of a .csv or .tsv, whose first line may name the columns."""
    delimiter = _DELIMITERS[path.suffix.lower()]
    for place, (number, line) in enumerate(lines):
        try:
            row = next(csv.reader([line.rstrip("\r")], delimiter=delimiter, strict=True))
        except csv.Error as error:
            raise PairsError(f"{path}, line {number}: {error}; get the list again") from error
        fields = [field.strip() for field in row]
        if place or not _are_titles(fields):
            yield number, fields


def _are_titles(fields: list[str]) -> bool:
    """Whether the first line of a table names its columns."""
    return len(fields) == 3 and fields[2] not in _FLAGS and not any(_is_image(field) for field in fields)


def _parse_paths(path: Path, rows: list[tuple[int, list[str]]]) -> NamedPairs:
    """Two paths and 0 or 1 in every line."""
    pairs = list[NamedPair]()
    for number, row in rows:
        if len(row) != 3 or row[2] not in _FLAGS or not (_is_image(row[0]) and _is_image(row[1])):
            problem = f"not two paths of images ({', '.join(SUFFIXES)}) and 0 or 1"
            raise _error(path, number, row, f"{problem}, nor the first line of LFW's form" if not pairs else problem)
        first, second = (PurePosixPath(name).as_posix() for name in row[:2])
        pairs.append(NamedPair(line=number, first=first, second=second, same=row[2] == "1"))
    if not pairs:
        raise PairsError(f"{path}: no pair; get the list again")
    return NamedPairs(pairs=tuple(pairs), folds=None, bare=False)


def _parse_lfw(path: Path, rows: list[tuple[int, list[str]]]) -> NamedPairs:
    """LFW's form."""
    number, head = rows[0]
    if not all(_NUMBER.fullmatch(field) for field in head):
        raise _error(path, number, head, "not the number of folds and of genuine pairs a fold")
    folds, each = (int(head[0]), int(head[1])) if len(head) == 2 else (1, int(head[0]))
    pairs = tuple(_parse_lfw_pair(path, *row) for row in rows[1:])
    if len(pairs) != 2 * folds * each or not pairs:
        raise PairsError(
            f"{path}: the first line promises {folds} x {each} genuine pairs and as many impostors, which are "
            f"{2 * folds * each:,} lines, but {len(pairs):,} follow: the list is cut short or damaged; get it again"
        )
    return NamedPairs(pairs=pairs, folds=folds if len(head) == 2 else None, bare=True)


def _parse_lfw_pair(path: Path, number: int, row: list[str]) -> NamedPair:
    """One pair in LFW's form."""
    match row:
        case [name, i, j] if name and _NUMBER.fullmatch(i) and _NUMBER.fullmatch(j):
            other = name
        case [name, i, other, j] if name and other and _NUMBER.fullmatch(i) and _NUMBER.fullmatch(j):
            if name == other:
                raise _error(path, number, row, "an impostor pair of one person")
        case _:
            raise _error(path, number, row, "neither `NAME i j` nor `NAME i OTHER j`")
    first, second = (f"{who}/{who}_{int(which):04d}" for who, which in ((name, i), (other, j)))
    return NamedPair(line=number, first=first, second=second, same=len(row) == 3)


def _is_image(name: str) -> bool:
    """Whether a field is the path of an image."""
    return name.lower().endswith(SUFFIXES)


def _error(path: Path, line: int, row: list[str], problem: str) -> PairsError:
    return PairsError(f"{path}, line {line}: {problem}: {' '.join(row)[:_SHOWN]!a}; get the list again, or correct it")
