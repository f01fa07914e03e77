"""`describe`: the columns of a table, their units and sources."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table as Grid

from data_manifests.tables import TABLES
from pipeline.commands.common import console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("describe")(describe)


def describe(
    table: Annotated[str, typer.Argument(help=f"One of: {', '.join(TABLES)}.")] = "labels",
) -> None:
    """Show the columns of a table. Example: python -m pipeline describe labels."""
    if table not in TABLES:
        raise typer.BadParameter(f"there is no table {table!r}: choose one of {', '.join(TABLES)}")
    found = TABLES[table]
    grid = Grid("column", "type", "what it holds", "source", title=f"{table}: {found.text}")
    for column in found.columns:
        kind = " < ".join(column.categories) if column.categories else str(column.type)
        grid.add_row(column.name, kind, column.text, column.source)
    console.print(grid)
