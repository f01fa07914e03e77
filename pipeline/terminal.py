"""The terminal, to which texts go as they are; whether it takes them decides nothing."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from rich.text import Text

logger = logging.getLogger(__name__)


def make_console(*, stderr: bool = False) -> Console:
    """A console that takes no text for markup: names and paths hold brackets, and a setting is called [execution].

    What is to be coloured is a `rich.text.Text` with a style. A character that standard output has no code for is
    shown as a question mark; standard error escapes it by itself.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(stderr=stderr, markup=False, emoji=False)


def tell(*lines: Table | Text | str) -> None:
    """Show what a run has made, which is there whether or not it can be shown.

    Where standard output takes nothing (a pipe without a reader, a full disk), the text is lost, with a warning.
    """
    try:
        console = make_console()
        for line in lines:
            console.print(line, highlight=False, soft_wrap=not isinstance(line, Table))
    except (OSError, SystemExit) as error:  # SystemExit: Rich ends a program whose pipe has no reader
        logger.warning("standard output takes nothing (%s): what was to be shown is lost", error.__context__ or error)
        with contextlib.suppress(OSError):  # what is still in its buffer would end the program with an error
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
