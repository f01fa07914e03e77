"""`python -m pipeline`: what is there, what would run and why, and what a number rests on."""

from __future__ import annotations

import logging
import sys

import typer

from pipeline.commands import clean, describe, explain, export, plan, status, tasks, weights
from pipeline.commands.doctor import command as doctor
from pipeline.logs import set_up_logs, wants_trace

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Look after label sets: check the machine, see what would run and why, trace a number, tidy up.\n\n"
    "Labels are made by Luigi:  luigi --module pipeline LabelAll --dataset NAME --workers 2\n\n"
    "All that it makes:  python -m pipeline tasks",
)
for module in (doctor, weights, tasks, plan, status, describe, explain, export, clean):
    module.register(app)


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
