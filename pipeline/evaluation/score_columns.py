"""Which columns of a list of scores hold its paths, keys and qualities, however their header spells them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from data_manifests.storage.values import first_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

QUALITY, PATH, KEY, BENCHMARK, ASSESSED = "quality", "path", "key", "benchmark", "assessed"
"""What a column may be. `assessed` is OFIQ's value of 0 to 100, which is -1 where it could not measure."""
SCALAR = ".scalar"
"""The end of the names of OFIQ's values of 0 to 100; the columns of the same name without it hold raw measures."""
SHOWN = 60

_QUALITIES = ("quality", "score")
_PATHS = (
    "path", "filename", "filepath", "imagepath", "imgpath", "image", "img", "imagename", "imgname", "file", "name",
)  # fmt: skip
_ALL_QUALITIES = (*_QUALITIES, "qualityscore", "unifiedqualityscore" + SCALAR)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)


class ScoreListError(ValueError):
    """A list of scores cannot be used; names file, line and remedy."""


def choose_columns(file: Path, names: Sequence[str], column: str = "") -> dict[str, str]:
    """The columns that are read, of those that a file has: what one is -> its name.

    `quality`, `score`, `path`, `key` and `benchmark` are looked for first; then, in any case and with or without
    underscores, hyphens and blanks, the other words that people use: `Filename`, `image_path`, `img`,
    `quality_score`, OFIQ's `UnifiedQualityScore.scalar`. A word for `path` beside the first is looked for only where
    there is no `key` either.

    Args:
        file: for messages.
        names: of its columns.
        column: the one that is the quality; empty: as described.

    Raises:
        ScoreListError: if one is missing, or there twice.
    """
    quality = _find_quality(names) if not column else column if column in names else ""
    owners = find_owners(names)
    if not quality or not owners:
        lacking = column or (f"{PATH} or {KEY}" if quality else " or ".join(_QUALITIES))
        there = ", ".join(filter(None, names))[: 4 * SHOWN] or "none"
        raise ScoreListError(f"{file}: there is no column {lacking} (there are {there}): add it, or rename one")
    found = {QUALITY: quality, **owners}
    assessed = quality.removesuffix(SCALAR) + SCALAR
    if assessed in names:
        found[ASSESSED] = assessed
    for role, name in found.items():
        exact = name in (role, column, *_QUALITIES)
        if sum(other == name if exact else _spell(other) == _spell(name) for other in names) > 1:
            raise ScoreListError(f"{file}: there are several columns {name}: leave one")
    return found


def find_owners(names: Sequence[str]) -> dict[str, str]:
    """The columns that say whose a row is: what one is -> its name; without path and key, none."""
    exact = {name: name for name in (PATH, KEY) if name in names}
    spelled = {PATH: _find_spelled(names, _PATHS), KEY: _find_spelled(names, (KEY,))}
    owners = exact or {role: name for role, name in spelled.items() if name}
    benchmark = BENCHMARK if BENCHMARK in names else _find_spelled(names, (BENCHMARK,))
    return {**owners, BENCHMARK: benchmark} if owners and benchmark else owners


def is_header(names: Sequence[str], column: str = "") -> bool:
    """Whether these are names of columns that make a list."""
    return bool(find_owners(names)) and (column in names if column else bool(_find_quality(names)))


def is_number(cell: str) -> bool:
    """Whether a text is a number, as it is or in the brackets in which NumPy prints an array of one."""
    return _NUMBER.fullmatch(unwrap(cell)) is not None


def find_decimal_comma(cell: str) -> str:
    """A number with a decimal comma as it has to be written; empty where a text is none."""
    return unwrap(cell).replace(",", ".") if _DECIMAL_COMMA.fullmatch(unwrap(cell)) else ""


def unwrap(cell: str) -> str:
    """A text without such brackets."""
    while cell.startswith("[") and cell.endswith("]"):
        cell = cell[1:-1].strip()
    return cell


def shorten(error: Exception) -> str:
    """The beginning of a foreign message."""
    return first_line(error)[: 3 * SHOWN]


def _find_quality(names: Sequence[str]) -> str:
    """The column that is the quality where none is named; empty where there is none."""
    return next((name for name in _QUALITIES if name in names), "") or _find_spelled(names, _ALL_QUALITIES)


def _find_spelled(names: Sequence[str], words: Sequence[str]) -> str:
    """The first column that is one of these words in another spelling; empty where there is none."""
    spelled = {_spell(name): name for name in reversed(names)}
    return next((spelled[word] for word in words if word in spelled), "")


def _spell(name: str) -> str:
    """A name of a column in one spelling."""
    return re.sub(r"[\s_-]", "", name).casefold()
