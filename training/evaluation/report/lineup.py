"""The methods of an evaluation, by kind and in the order in which every table and picture shows them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from data_manifests.tables.evaluation import EVALUATION_TABLES
from training.evaluation.methods.command_line import BASELINES, FLOOR, MethodKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa


class ReportError(ValueError):
    """Tables that cannot be shown; says which and why."""


class Kind(StrEnum):
    """What a method is, in the order in which kinds are shown."""

    METHOD = "method"
    BASELINE = "baseline"
    RANDOM = "random"
    FLOOR = "floor"

    @property
    def competes(self) -> bool:
        """Whether it can be the best: chance and the bound stand beside the others for comparison."""
        return self in {Kind.METHOD, Kind.BASELINE}


MEANINGS: dict[str, str] = {
    MethodKind.NORM: "length of the recogniser's embedding",
    MethodKind.CERTAINTY_RATIO: "how certainly the recogniser tells the person from others (CR-FIQA Eq. 4)",
    MethodKind.CPBD: "sharpness (CPBD)",
    MethodKind.SOBEL: "mean gradient of the lightness",
    MethodKind.RANDOM: "drawn by chance; an area near 1",
    FLOOR: "the similarity of the pair itself: no quality of images can reject better",
}
"""What the methods are that need no training, and the bound."""


def kind_of(method: str) -> Kind:
    """The kind, which the name decides: `methods.parse_methods` gives a baseline's name to nothing else.

    Where several recognisers judge, a baseline that differs between them has theirs after it: `norm (fr_feature)`.
    """
    name = method.partition(" (")[0]
    if name == FLOOR:
        return Kind.FLOOR
    if name == MethodKind.RANDOM:
        return Kind.RANDOM
    return Kind.BASELINE if name in list(BASELINES) else Kind.METHOD


def order(methods: Iterable[str]) -> tuple[str, ...]:
    """Methods without repetition: first those that are judged, then baselines, chance and the bound."""
    kinds = list(Kind)
    return tuple(sorted(dict.fromkeys(methods), key=lambda name: kinds.index(kind_of(name))))


def list_methods(tables: Mapping[str, pa.Table]) -> tuple[str, ...]:
    """The methods of all tables of an evaluation, in order; those of `templates` alone are no qualities of images."""
    found = [name for table in ("metrics", "qualities", "correlations") for name in distinct(tables, table, "method")]
    return order(found)


def list_benchmarks(tables: Mapping[str, pa.Table]) -> tuple[str, ...]:
    """The benchmarks of all tables, in the order in which they appear."""
    return tuple(dict.fromkeys(name for table in tables for name in distinct(tables, table, "benchmark")))


def distinct(tables: Mapping[str, pa.Table], table: str, column: str) -> list[str]:
    """The values of a column in the order in which they appear; none where the table is absent."""
    if table not in tables:
        return []
    names: list[str] = pc.unique(tables[table].column(column)).to_pylist()
    return names


def check_tables(tables: Mapping[str, pa.Table]) -> None:
    """Refuse tables that are not those of an evaluation.

    Raises:
        ReportError: an unknown name, other columns, or rows that do not say which benchmark or recogniser they are of.
    """
    for name, table in tables.items():
        if name not in EVALUATION_TABLES:
            raise ReportError(f"no evaluation has a table {name!r}; it has {', '.join(EVALUATION_TABLES)}")
        expected = EVALUATION_TABLES[name].names
        if tuple(table.column_names) != expected:
            raise ReportError(
                f"the table {name} has the columns {', '.join(table.column_names)}, not {', '.join(expected)}: it is "
                "of another version, so evaluate again"
            )
        for column in ("benchmark", "recogniser", "method"):
            if column in expected and table.column(column).null_count:
                raise ReportError(f"rows of the table {name} have no {column}: set it with evaluate.stamp")
