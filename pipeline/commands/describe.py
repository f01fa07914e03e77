"""`describe`: the columns of a table, their units and sources."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table as Grid

from data_manifests.tables.alignment import ALIGNMENT
from data_manifests.tables.evaluation import EVALUATION_TABLES
from data_manifests.tables.scores import MODEL_TABLES
from data_manifests.tables.stages import TABLES
from pipeline.commands.common import console

ALL_TABLES = TABLES | MODEL_TABLES | EVALUATION_TABLES | {ALIGNMENT.name: ALIGNMENT}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("describe")(describe)


def describe(
    table: Annotated[str, typer.Argument(help=f"One of: {', '.join(ALL_TABLES)}.")] = "labels",
) -> None:
    """Show the columns of a table.

    Example: python -m pipeline describe labels
    """
    if table not in ALL_TABLES:
        raise typer.BadParameter(f"there is no table {table!r}: choose one of {', '.join(ALL_TABLES)}")
    found = ALL_TABLES[table]
    grid = Grid("column", "type", "what it holds", "source", title=f"{table}: {found.text}")
    for column in found.columns:
        grid.add_row(column.name, column.kind, column.text, column.source)
    console.print(grid)
