"""Finds the images of a benchmark that the rows of a list of scores are about."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data_manifests.image_paths import clean_path, find_among
from data_manifests.manifest import shipped_names
from pipeline.evaluation.score_columns import BENCHMARK, KEY, PATH, QUALITY, SHOWN, ScoreListError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from pipeline.evaluation.score_lists import ScoreList

    Find = Callable[[Any], int | None]

_FEW = 3
"""Names of rows, and of images, that are shown where they do not match."""
_NUMBERED = re.compile(r"(?:.*/)?(\d{5,9})\.jpg", re.ASCII | re.DOTALL)
"""How CR-FIQA's extract_bin.py names image n of a .bin, from 0."""

_BY_NUMBER = "number, as CR-FIQA's extract_bin.py names the images of a .bin, from 00000.jpg on"
_ALIKE = 1e-4
"""Two qualities of one image may differ by so much of them: a network's batches do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The images of a benchmark.

    Attributes:
        name: the benchmark's name.
        keys: int32 [N].
        paths: of the images below their folder [N]; None where they are no files.
        packed: name of the .bin without its suffix; empty where the images are of none.
    """

    name: str
    keys: NDArray[np.int32]
    paths: Sequence[str] | None
    packed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """What a list says of the images of a benchmark.

    Attributes:
        quality: float64 [N]; NaN where it gives none.
        rows: how many rows are about this benchmark.
        unknown: how many of these name no image of it.
        how: by what they were matched.
        strangers: the first names of rows that name no image.
        lacking: the first names of images without a score.
    """

    quality: NDArray[np.float64]
    rows: int
    unknown: int
    how: str
    strangers: tuple[str, ...]
    lacking: tuple[str, ...]

    @property
    def known(self) -> int:
        """How many rows name an image."""
        return self.rows - self.unknown

    def describe(self) -> str:
        """The counts, and the first names on both sides that do not match, in a sentence."""
        count, missing = len(self.quality), int(np.isnan(self.quality).sum())
        strangers = f" (not {_list(self.strangers, self.unknown)})" if self.unknown else ""
        lacking = f" (not {_list(self.lacking, missing)}, which are rejected first)" if missing else ""
        return (
            f"{self.known:,} of {self.rows:,} rows name an image, by {self.how}{strangers}; "
            f"{count - missing:,} of {count:,} images have a score{lacking}"
        )

    def show_both(self) -> str:
        """A name of each side, where nothing matches."""
        strangers = f"rows are called like {self.strangers[0][:SHOWN]!r}" if self.strangers else "no row is about it"
        return f"by {self.how}: {strangers}" + "".join(f", images like {name[:SHOWN]!r}" for name in self.lacking[:1])


def match_scores(scores: ScoreList, target: Target, others: Iterable[str] = ()) -> Matched:
    """Find the images that the rows of a list are about.

    By `path`, where the images are files and the list names any, as `find_among` understands it; where that finds
    none, and all paths are in one folder, by the names of the files alone. By the number in `00000.jpg`, from 0, where
    the images are those of a .bin and the list has no keys: so CR-FIQA's extract_bin.py names them. Else by `key`.

    Where several benchmarks are evaluated and no column says which a row is about, a row in a folder that is called
    like one of them, or like its .bin, in any case, is about that one; numbers, and names of files alone, are about
    none without such a folder.

    Two rows may name one image where they give it one quality, to four digits: lists made from pairs repeat images.

    Args:
        scores: the list.
        target: whose images are looked for.
        others: names of the other benchmarks that are evaluated, and of their .bin files without suffixes.

    Raises:
        ScoreListError: if two rows give one image two qualities, or it cannot be told which images the rows are about.
    """
    columns = scores.rows.columns
    paths, packed = target.paths, target.packed
    own, foreign = _fold((target.name, packed)), _fold(others)
    rows = scores.rows
    if BENCHMARK in columns:
        rows, foreign = rows.filter(benchmark=target.name), set()
    elif foreign and PATH in columns:
        rows = rows.filter([not (name and _lies_in(name, foreign)) or _lies_in(name, own) for name in rows[PATH]])
    places = {key: place for place, key in enumerate(target.keys.tolist())}
    within = own if foreign else None
    if PATH in columns and paths is not None:
        find, how = _find_files(rows[PATH].to_list(), paths, within)
        return _fill(scores, rows.select("number", PATH, QUALITY).rows(), find, how, paths)
    if KEY in columns:
        if foreign:
            raise ScoreListError(
                f"{scores.file}: its keys are those of one benchmark, but several are evaluated: add a column "
                f"`{BENCHMARK}`, or evaluate one"
            )
        if 0 not in places and 0 in rows[KEY]:
            raise ScoreListError(
                f"{scores.file}: has a {KEY} 0, but those of {target.name} begin at {min(places, default=1)}: where "
                "its first image has 0, add 1 to each; else leave that row out"
            )
        found = _fill(scores, rows.select("number", KEY, QUALITY).rows(), places.get, KEY, [str(key) for key in places])
        if found.unknown and BENCHMARK not in columns:
            raise ScoreListError(
                f"{scores.file}: {found.unknown:,} of its {found.rows:,} keys name no image of {target.name} (not "
                f"{_list(found.strangers, found.unknown)}): a key numbers the images of one data set; if it is this "
                "one, leave those rows out"
            )
        return found
    if packed and PATH in columns:
        # A number names nothing by itself: whatever lies in the folder of another benchmark is about that one.
        elsewhere = _fold(shipped_names()) - own
        mine = rows.filter(
            [bool(name) and (_lies_in(name, own) or not (foreign or _lies_in(name, elsewhere))) for name in rows[PATH]]
        )
        numbers = _read_numbers(scores, mine[PATH].to_list())
        if numbers or foreign or not mine.height:
            by_name = {name: places.get(number + 1) for name, number in numbers.items()}
            images = [f"{packed}/images/{key - 1:05d}.jpg" for key in places]
            return _fill(scores, mine.select("number", PATH, QUALITY).rows(), by_name.get, _BY_NUMBER, images)
    raise ScoreListError(
        f"{scores.file}: the images of {target.name} are {'no files' if paths is None else 'files'}, so they need a "
        f"column {'key' if paths is None else 'path or key'}: add it"
    )


def _find_files(names: Sequence[str | None], paths: Sequence[str], within: set[str] | None) -> tuple[Find, str]:
    """What finds an image by its path, and what that goes by."""
    find = find_among(paths)
    if any(find(name) is not None for name in names):
        return find, PATH
    split = {name: clean_path(name).rpartition("/") for name in names if name and _lies_in(name, within)}
    folders = {folder for folder, _, _ in split.values()}
    alone = {name: find(last) for name, (_, _, last) in split.items()}
    if len(folders) != 1 or folders == {""} or all(place is None for place in alone.values()):
        return find, PATH
    return alone.get, f"name alone, as all are in the folder {folders.pop()[:SHOWN]!r}"


def _read_numbers(scores: ScoreList, names: Sequence[str | None]) -> dict[str, int]:
    """The numbers of images of a .bin, from 0, by the names that have one.

    Raises:
        ScoreListError: if the numbers do not begin where those of the released extraction do.
    """
    found = {name: _NUMBERED.fullmatch(clean_path(name)) for name in names if name}
    numbers = {name: int(number[1]) for name, number in found.items() if number}
    if numbers and 0 not in numbers.values():
        raise ScoreListError(
            f"{scores.file}: numbers images from {min(numbers.values()):05d}.jpg on, but CR-FIQA's extract_bin.py from "
            f"00000.jpg on, so it cannot be told which they are: add a column {KEY}, which is 1 for the first image"
        )
    return numbers


def _lies_in(name: str, folders: set[str] | None) -> bool:
    """Whether a path leads through one of these folders, in any case; through any, where they are None."""
    return folders is None or not folders.isdisjoint(clean_path(name).casefold().split("/")[:-1])


def _fold(names: Iterable[str]) -> set[str]:
    """Names in one case, without empty ones."""
    return {name.casefold() for name in names if name}


def _fill(scores: ScoreList, rows: Sequence[tuple[Any, ...]], find: Find, how: str, images: Sequence[str]) -> Matched:
    """Give the images the qualities of their rows."""
    quality = np.full(len(images), np.nan)
    seen = dict[int, int]()
    strangers: dict[str, None] = {}
    unknown = 0
    for number, name, value in rows:
        place = find(name)
        given = np.nan if value is None else value
        if place is None:
            unknown += 1
            if len(strangers) < _FEW:
                strangers[str(name)] = None
        elif place not in seen:
            seen[place] = number
            quality[place] = given
        elif not (math.isclose(quality[place], given, rel_tol=_ALIKE) or (value is None and np.isnan(quality[place]))):
            raise ScoreListError(
                f"{scores.file}, {scores.unit} {number}: {str(name)[:SHOWN]!r} has another score already, in "
                f"{scores.unit} {seen[place]}: leave one"
            )
    lacking = [images[place] for place in np.flatnonzero(np.isnan(quality))[:_FEW]]
    return Matched(
        quality=quality, rows=len(rows), unknown=unknown, how=how, strangers=tuple(strangers), lacking=tuple(lacking)
    )


def _list(names: Sequence[str], count: int) -> str:
    """The first names of so many."""
    return ", ".join(repr(name[:SHOWN]) for name in names) + ", ..." * (count > len(names))
