"""The settings of luigi.cfg as options of a command, spelt as Luigi's command line spells them."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Annotated, Any

import luigi
import typer
from luigi.cmdline_parser import CmdlineParser

from pipeline.config.parameters import option_of
from pipeline.config.settings import list_sections

if TYPE_CHECKING:
    from collections.abc import Callable

PANEL = "Settings of luigi.cfg, for this command alone"
"""The heading above them in --help."""

_TASK = "LabelAll"
"""Luigi reads no settings without a task; it is not run."""


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every setting of luigi.cfg as an option; while it runs, Luigi finds them as on its own."""
    options = {
        f"{section.__name__}_{name}": (option_of(section, name), parameter)
        for section in list_sections()
        for name, parameter in section.get_params()
    }

    @functools.wraps(command)
    def run(**given: Any) -> None:
        values = {name: given.pop(name) for name in options}
        words = [f"{options[name][0]}={value}" for name, value in values.items() if value]
        with CmdlineParser.global_instance([_TASK, *words]):
            command(**given)

    added = [_option(name, *option) for name, option in options.items()]
    signature = inspect.signature(command, eval_str=True)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]  # typer asks for it
    run.__annotations__ = {**command.__annotations__, **{option.name: option.annotation for option in added}}
    return run


def _option(name: str, flag: str, parameter: luigi.Parameter) -> inspect.Parameter:
    """One setting, as typer reads it."""
    option = typer.Option(flag, help=parameter.description, show_default=False, rich_help_panel=PANEL)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default="", annotation=Annotated[str, option])
