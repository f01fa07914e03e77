"""Parameters of tasks and settings that say what is wrong with a value: the option, the value, what is expected."""

from __future__ import annotations

from typing import Any

import luigi
from luigi.cmdline_parser import CmdlineParser

from pipeline.logs import one_message


class OptionError(ValueError):
    """A value that its option cannot have; names both, and what is expected."""


def option_of(section: type[luigi.Config], name: str) -> str:
    """The option that gives a setting on the command line.

    >>> from pipeline.settings import labels
    >>> option_of(labels, "blur_hazy")
    '--labels-blur-hazy'
    """
    return f"--{section.__name__}-{name.replace('_', '-')}"


def given_text(section: type[luigi.Config], name: str) -> str | None:
    """What the command line of this process gives a setting; None where it leaves it to luigi.cfg."""
    parser = CmdlineParser.get_instance()
    text = getattr(parser.known_args, f"{section.__name__}_{name}", None) if parser else None
    return None if text in (None, "") else str(text)


class _Explained(luigi.Parameter):
    """Says which option a value that cannot be read was given to; Luigi would say what Python said."""

    _owner: type
    _name: str

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)
        self._owner, self._name = owner, name

    @property
    def expected(self) -> str:
        """What is expected."""
        raise NotImplementedError

    def parse(self, x: Any) -> Any:
        """Read a value."""
        with one_message():
            try:
                return super().parse(x)
            except ValueError:
                raise OptionError(f"{self._place(x)}: {self.expected} is expected") from None

    def _place(self, text: Any) -> str:
        """Where a value stands: on the command line, or in luigi.cfg."""
        if not issubclass(self._owner, luigi.Config):
            return f"--{self._name.replace('_', '-')} {text}"
        if given_text(self._owner, self._name) == text:
            return f"{option_of(self._owner, self._name)} {text}"
        return f"luigi.cfg: [{self._owner.__name__}] {self._name} = {text}"


class IntParameter(_Explained, luigi.IntParameter):
    """A whole number."""

    expected = "a whole number"


class FloatParameter(_Explained, luigi.FloatParameter):
    """A number."""

    expected = "a number"


class BoolParameter(_Explained, luigi.BoolParameter):
    """True or false."""

    expected = "true or false"


class ChoiceParameter(_Explained, luigi.ChoiceParameter):
    """One of several words."""

    @property
    def expected(self) -> str:
        """The words."""
        return f"one of {', '.join(sorted(self._choices))}"
