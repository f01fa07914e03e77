"""`weights`: which weight files are at hand, and fetching those that are not."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from data_manifests.weights.entry import ModelEntry
from data_manifests.weights.files import WeightsError, WeightsMissingError, fetch, find
from data_manifests.weights.registry import load_registry
from pipeline.commands.common import console, human_bytes

_group = typer.Typer(invoke_without_command=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(_group, name="weights")


@_group.callback()
def listing(context: typer.Context) -> None:
    """List every model with its licence and whether its files are at hand.

    Example: python -m pipeline weights
    """
    if context.invoked_subcommand:
        return
    table = Table("model", "kind", "size", "licence", Column("state", overflow="fold"), title="Weight files")
    for entry in load_registry().entries.values():
        size = sum(file.bytes or 0 for file in entry.files)
        table.add_row(entry.name, entry.kind.value, human_bytes(size) if size else "?", entry.licence, _state(entry))
    console.print(table)
    console.print("fetch one, or be told where to get it: python -m pipeline weights fetch NAME")


def _state(entry: ModelEntry) -> str | Text:
    """Whether a model's files are at hand."""
    try:
        paths = find(entry)
    except WeightsMissingError:
        return "not here" if all(file.sources for file in entry.files) else "bring it yourself"
    except WeightsError as error:
        return Text(str(error), style="red")
    return f"ready in {paths[0].parent}"


@_group.command("fetch")
def fetch_command(
    names: Annotated[list[str], typer.Argument(help="Names of models.toml.")],
) -> None:
    """Fetch and verify weight files.

    Example: python -m pipeline weights fetch fr_feature fr_pose

    They come into the cache (FIQA_CACHE). Files that you bring yourself are found in the folders of FIQA_MODELS.
    """
    registry = load_registry()
    for name in names:
        with console.status(Text(f"fetching {name}")):
            paths = fetch(registry.get(name))
        for path in paths:
            console.print(f"{name}: {path}", highlight=False, soft_wrap=True)
