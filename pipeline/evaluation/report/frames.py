"""The tables of an evaluation as Polars frames, checked, and what a report asks them for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from data_manifests.tables.evaluation import EVALUATION_TABLES
from pipeline.evaluation.report.method_order import order
from training.evaluation.pairs.ranked_pairs import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa

    Frames = Mapping[str, pl.DataFrame]


class ReportError(ValueError):
    """Tables that cannot be shown; says which and why."""


def read_frames(tables: Mapping[str, pa.Table]) -> dict[str, pl.DataFrame]:
    """All tables of an evaluation by name, with names as text; an absent table is empty.

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
    found = {name: tables.get(name, described.schema().empty_table()) for name, described in EVALUATION_TABLES.items()}
    text = pl.selectors.categorical().cast(pl.String)
    return {name: pl.DataFrame(pl.from_arrow(table)).with_columns(text) for name, table in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class OperatingPoint:
    """How errors are counted: protocol and false match rate."""

    protocol: str
    fmr: float

    @property
    def rate(self) -> str:
        """The false match rate as text."""
        return show_rate(self.fmr)

    @property
    def title(self) -> str:
        """For headings."""
        return f"FMR {self.rate}" + ("" if self.protocol == Protocol.FIXED else f", protocol {self.protocol}")

    def select(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows of this point."""
        return frame.filter(protocol=self.protocol, fmr=self.fmr)


def list_points(metrics: pl.DataFrame) -> list[OperatingPoint]:
    """The operating points of an evaluation: protocol `fixed` first, large rates first."""
    found = (OperatingPoint(protocol=protocol, fmr=fmr) for protocol, fmr in metrics["protocol", "fmr"].unique().rows())
    return sorted(found, key=lambda point: (point.protocol != Protocol.FIXED, point.protocol, -point.fmr))


def list_methods(frames: Frames) -> tuple[str, ...]:
    """The methods in order; those of `templates` alone are no qualities of images."""
    return order(
        name for table in ("metrics", "qualities", "correlations") for name in distinct(frames[table], "method")
    )


def list_benchmarks(frames: Iterable[pl.DataFrame]) -> tuple[str, ...]:
    """The benchmarks of some tables, in the order in which they appear."""
    found = [distinct(frame, "benchmark") for frame in frames if "benchmark" in frame.columns]
    return tuple(dict.fromkeys(name for names in found for name in names))


def select_benchmark(frames: Frames, name: str) -> dict[str, pl.DataFrame]:
    """The rows of one benchmark, of the tables that are about benchmarks."""
    return {table: frame.filter(benchmark=name) for table, frame in frames.items() if "benchmark" in frame.columns}


def distinct(frame: pl.DataFrame, column: str) -> list[str]:
    """The values of a column in the order in which they appear."""
    names: list[str] = frame[column].unique(maintain_order=True).to_list()
    return names


def show_rate(rate: float) -> str:
    """A rate as the papers write it.

    >>> show_rate(0.001), show_rate(2.5e-4)
    ('1e-3', '2.5e-4')
    """
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
