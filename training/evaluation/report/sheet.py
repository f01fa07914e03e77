"""Tables as a reader sees them: text in cells, the best marked, and footnotes that say what was left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING

from training.evaluation.report.lineup import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ABSENT = "-"
"""Stands where a number was left out."""

_SIGNS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_SUPERSCRIPTS = str.maketrans("0123456789", _SIGNS)


class Mark(StrEnum):
    """Rank of a number in its column."""

    PLAIN = "plain"
    BEST = "best"
    SECOND = "second"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number.

    Attributes:
        text: as it is shown.
        mark: its rank.
        interval: its confidence interval as text, or nothing.
        shade: -1 to 1, for a column that is coloured by its numbers.
    """

    text: str
    mark: Mark = Mark.PLAIN
    interval: str = ""
    shade: float = 0.0

    @property
    def left_out(self) -> bool:
        """Whether there is no number."""
        return self.text.rstrip(_SIGNS) == ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method (or benchmark) with its numbers."""

    name: str
    kind: Kind
    cells: tuple[Cell, ...]
    footnote: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A table.

    Attributes:
        corner: what its rows are.
        columns: group (a recogniser, or nothing) and name of every column.
        rows: in order; groups of rows follow from their kinds.
        footnotes: from 1 on.
    """

    corner: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether all numbers were left out."""
        return all(cell.left_out for row in self.rows for cell in row.cells)

    @property
    def has_intervals(self) -> bool:
        """Whether any number has one."""
        return any(cell.interval for row in self.rows for cell in row.cells)

    @property
    def numbered(self) -> list[tuple[str, str]]:
        """The footnotes with their signs."""
        return [(superscript(number), text) for number, text in enumerate(self.footnotes, 1)]

    @property
    def heads(self) -> list[tuple[str, int]]:
        """Neighbouring columns of one group: its name, and how many they are."""
        heads: list[tuple[str, int]] = []
        for group, _ in self.columns:
            if heads and heads[-1][0] == group:
                heads[-1] = (group, heads[-1][1] + 1)
            else:
                heads.append((group, 1))
        return heads

    def groups(self) -> Iterator[list[Row]]:
        """Rows that stand together: what is judged; baselines and chance; the bound."""
        for kinds in ({Kind.METHOD}, {Kind.BASELINE, Kind.RANDOM}, {Kind.FLOOR}):
            rows = [row for row in self.rows if row.kind in kinds]
            if rows:
                yield rows


@dataclass(frozen=True, slots=True)
class Footnotes:
    """Collects footnotes; the same text is written once."""

    texts: list[str] = field(default_factory=list)

    def refer(self, text: str) -> str:
        """The sign that leads to a footnote."""
        if text not in self.texts:
            self.texts.append(text)
        return superscript(self.texts.index(text) + 1)


def superscript(number: int) -> str:
    """A number as the sign of a footnote."""
    return str(number).translate(_SUPERSCRIPTS)


def rank_column(values: Mapping[str, float], digits: int, *, larger: bool = False) -> dict[str, Mark]:
    """Mark the best and the second best number as they are shown: equal text, equal mark.

    Args:
        values: of those that compete; one alone gets no mark.
        digits: decimals shown.
        larger: whether larger is better.
    """
    shown = {name: round(value, digits) for name, value in values.items() if isfinite(value)}
    if len(shown) < 2:
        return {}
    best, *others = sorted(set(shown.values()), reverse=larger)
    marks = {best: Mark.BEST} | ({others[0]: Mark.SECOND} if others else {})
    return {name: marks[value] for name, value in shown.items() if value in marks}


def show_signed(number: float, digits: int) -> str:
    """A number with its sign; zero is positive.

    >>> show_signed(-0.001, 2)
    '+0.00'
    """
    return f"{round(number, digits) + 0.0:+.{digits}f}"


def show_rate(rate: float) -> str:
    """A rate as the papers write it.

    >>> show_rate(0.001), show_rate(2.5e-4)
    ('1e-3', '2.5e-4')
    """
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
