"""`fiqa`, also `python -m pipeline`: label, score, what is there, what would run and why, what a number rests on."""

from __future__ import annotations

import inspect
import logging
import sys

import typer

from pipeline.commands import clean, describe, explain, export, label, plan, score, status, tasks, weights
from pipeline.commands.doctor import command as doctor
from pipeline.logs import set_up_logs, wants_trace

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Label faces and score them; check the machine, see what would run and why, trace a number, tidy up.\n\n"
    "Photos or aligned faces to labels and their page:  fiqa label FOLDER\n\n"
    "All that Luigi makes, trainings and evaluations too:  fiqa tasks",
)
for module in (label, score, doctor, weights, tasks, plan, status, describe, explain, export, clean):
    module.register(app)
for _command in app.registered_commands:
    # Typer would keep the ends of the docstring's lines, which no terminal is as wide as.
    _paragraphs = inspect.getdoc(_command.callback).split("\n\n")  # type: ignore[union-attr]  # each has one
    _command.help = "\n\n".join(" ".join(text.split()) for text in _paragraphs)


def main() -> None:
    """Run the command; a mistake ends with its one message, or with a trace where FIQA_TRACE is set."""
    set_up_logs(logging.WARNING)
    try:
        app()
    except (ValueError, OSError, RuntimeError) as error:
        if wants_trace():
            raise
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
