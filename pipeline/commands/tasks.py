"""`tasks`: what Luigi can be asked for, with its options."""

from __future__ import annotations

import inspect
import re
from typing import Annotated

import luigi
import typer
from luigi.parameter import ParameterVisibility
from rich.table import Column, Table

import pipeline
from pipeline.commands.common import choose_from, console
from pipeline.tasks.publish import LabelAll
from pipeline.tasks.stage import Stage

_COMMAND = re.compile(r":? `luigi [^`]*`")
_SECTIONS = re.compile(r"\n\n(?:Args|Attributes|Raises):\n")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tasks")(tasks)


def tasks(task: Annotated[str, typer.Argument(help="One of them, for its options.")] = "") -> None:
    """List what Luigi makes, or the options of one of them.

    Example: python -m pipeline tasks LabelAll
    """
    known = {found.__name__: found for found in user_tasks()}
    if not task:
        table = Table("task", "what it makes", title="luigi --module pipeline TASK")
        for name, found in known.items():
            table.add_row(name, _COMMAND.sub("", document(found).partition("\n\n")[0].replace("\n", " ")))
        console.print(table)
        return
    if task not in known:
        raise typer.BadParameter(f"there is no task {task}: {choose_from(task, known)}")
    console.print(document(known[task]), highlight=False, soft_wrap=True)
    table = Table(Column("option", no_wrap=True), "default", "what it is")
    for option, default, text in list_options(known[task]):
        table.add_row(option, default, text)
    console.print(table)
    console.print("It also takes --workers N, and every setting: python -m pipeline plan --help lists them.")


def user_tasks() -> list[type[luigi.Task]]:
    """The tasks that are called by name, LabelAll first; the stages they are made of are not."""
    classes = [getattr(pipeline, name) for name in pipeline.__all__]
    found = [c for c in classes if not issubclass(c, Stage)]
    return sorted(found, key=lambda task: (task is not LabelAll, task.__name__))


def document(thing: type) -> str:
    """A docstring without what it says of arguments."""
    return _SECTIONS.split(inspect.getdoc(thing) or "")[0]


def list_options(task: type[luigi.Task]) -> list[tuple[str, str, str]]:
    """The options of a task with their defaults and texts."""
    return [
        (f"--{name.replace('_', '-')}", show_default(parameter), parameter.description or "")
        for name, parameter in task.get_params()
        if parameter.visibility == ParameterVisibility.PUBLIC and name != "fingerprint"
    ]


def show_default(parameter: luigi.Parameter) -> str:
    """The default of a parameter as it is written; Luigi has no public way to ask for it."""
    default = parameter._default
    match getattr(parameter, "shown", None) if default is None else default:
        case bool(value):
            return str(value).lower()
        case float(value):
            return f"{value:g}"
        case (str() | int()) as value:
            return str(value)
        case tuple(value):
            return ",".join(map(str, value))
    return ""
