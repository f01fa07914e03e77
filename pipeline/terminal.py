"""The terminal, to which texts go as they are."""

from __future__ import annotations

from rich.console import Console


def make_console(*, stderr: bool = False) -> Console:
    """A console that takes no text for markup: names and paths hold brackets, and a setting is called [execution].

    What is to be coloured is a `rich.text.Text` with a style.
    """
    return Console(stderr=stderr, markup=False, emoji=False)
