"""Finds the images of a benchmark that the rows of a list of scores are about."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data_manifests.image_paths import clean_path, find_among
from pipeline.evaluation.score_columns import BENCHMARK, KEY, PATH, QUALITY, SHOWN, ScoreListError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.evaluation.score_lists import ScoreList

    Find = Callable[[Any], int | None]

_FEW = 3
"""Names of rows, and of images, that are shown where they do not match."""
_NUMBERED = re.compile(r"(?:.*/)?(\d{5,9})\.jpg", re.ASCII | re.DOTALL)
"""How CR-FIQA's extract_bin.py names image n of a .bin, from 0."""

_ALIKE = 1e-4
"""Two qualities of one image may differ by so much of them: a network's batches do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The images of a benchmark.

    Attributes:
        name: the benchmark's name, for lists about several.
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
        missing = int(np.isnan(self.quality).sum())
        strangers = f"; {self.unknown:,} rows name no image{_list(self.strangers, self.unknown)}" * bool(self.unknown)
        lacking = f"; {missing:,} images have no score and are rejected first{_list(self.lacking, missing)}" * bool(
            missing
        )
        return (
            f"{self.known:,} of {self.rows:,} rows name {len(self.quality) - missing:,} of "
            f"{len(self.quality):,} images by {self.how}{strangers}{lacking}"
        )

    def show_both(self) -> str:
        """A name of each side, where nothing matches."""
        strangers = f"rows are called like {self.strangers[0][:SHOWN]!r}" if self.strangers else "no row is about it"
        return f"by {self.how}: {strangers}" + "".join(f", images like {name[:SHOWN]!r}" for name in self.lacking[:1])


def match_scores(scores: ScoreList, target: Target, *, alone: bool = True) -> Matched:
    """Find the images that the rows of a list are about.

    By `path`, where the images are files and the list names any, as `find_among` understands it; where that finds
    none, and all paths are in one folder, by the names of the files alone. By the number in `00000.jpg`, from 0, where
    the images are those of a .bin and the list has no keys: so CR-FIQA's extract_bin.py names them. Else by `key`.

    Two rows may name one image where they give it one quality, to four digits: lists made from pairs repeat images.

    Args:
        scores: the list.
        target: whose images are looked for.
        alone: whether this is the only benchmark that the list is used for. Otherwise numbers, and names of files
            alone, are those of this benchmark only behind a folder that is called like it, or like the .bin.

    Raises:
        ScoreListError: if two rows give one image two qualities, or it cannot be told which images the rows are about.
    """
    columns = scores.rows.columns
    benchmark, paths, packed = target.name, target.paths, target.packed
    rows = scores.rows.filter(benchmark=benchmark) if BENCHMARK in columns else scores.rows
    names = rows[PATH].to_list() if PATH in columns else []
    own = set[str]() if alone or BENCHMARK in columns else {benchmark.casefold(), packed.casefold()}
    places = {key: place for place, key in enumerate(target.keys.tolist())}
    find: Find | None
    if PATH in columns and paths is not None:
        find, how = _find_files(names, paths, own)
        return _fill(scores, rows.select("number", PATH, QUALITY).rows(), find, how, paths)
    if KEY in columns:
        if BENCHMARK not in columns and not alone:
            raise ScoreListError(
                f"{scores.file}: its keys are those of one benchmark, but several are evaluated: add a column "
                f"`{BENCHMARK}`, or evaluate one"
            )
        return _fill(scores, rows.select("number", KEY, QUALITY).rows(), places.get, KEY, [str(key) for key in places])
    rows = rows.filter([bool(name) and _is_within(name, own) for name in names]) if own and names else rows
    find = _find_numbered(scores, rows[PATH].to_list(), places, own) if packed and PATH in columns else None
    if find is None:
        raise ScoreListError(
            f"{scores.file}: the images of {benchmark} are {'no files' if paths is None else 'files'}, so they need a "
            f"column {'key' if paths is None else 'path or key'}: add it"
        )
    images = [f"{packed}/images/{key - 1:05d}.jpg" for key in places]
    how = "number, as CR-FIQA's extract_bin.py names the images of a .bin, from 00000.jpg on"
    return _fill(scores, rows.select("number", PATH, QUALITY).rows(), find, how, images)


def _find_files(names: Sequence[str | None], paths: Sequence[str], own: set[str]) -> tuple[Find, str]:
    """What finds an image by its path, and what that goes by."""
    find = find_among(paths)
    mine = {name: clean_path(name).rpartition("/") for name in names if name and _is_within(name, own)}
    folders = {folder for folder, _, _ in mine.values()}
    if len(folders) != 1 or folders == {""} or any(find(name) is not None for name in names):
        return find, PATH
    alone = {name: find(last) for name, (_, _, last) in mine.items()}
    if all(place is None for place in alone.values()):
        return find, PATH
    return alone.get, f"name alone, as all are in the folder {folders.pop()[:SHOWN]!r}"


def _find_numbered(
    scores: ScoreList, names: Sequence[str | None], places: Mapping[int, int], own: set[str]
) -> Find | None:
    """What finds an image of a .bin by its number; None where no name has one, and the list is of nothing else.

    Raises:
        ScoreListError: if the numbers do not begin where those of the released extraction do.
    """
    found = {name: _NUMBERED.fullmatch(clean_path(name)) for name in names if name}
    numbers = {name: int(number[1]) for name, number in found.items() if number}
    if names and not numbers and not own:
        return None
    if numbers and 0 not in numbers.values():
        raise ScoreListError(
            f"{scores.file}: numbers images from {min(numbers.values()):05d}.jpg on, but CR-FIQA's extract_bin.py from "
            f"00000.jpg on, so it cannot be told which they are: add a column {KEY}, which is 1 for the first image"
        )
    return lambda name: places.get(numbers[name] + 1) if name in numbers else None


def _is_within(name: str, folders: set[str]) -> bool:
    """Whether a path leads through one of these folders, in any case; without folders, always."""
    return not folders or not folders.isdisjoint(clean_path(name).casefold().split("/")[:-1])


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
    """The first names in brackets."""
    return f" ({', '.join(repr(name[:SHOWN]) for name in names)}{', ...' if count > len(names) else ''})"
