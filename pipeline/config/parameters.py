"""Parameters of tasks and settings that say what is wrong with a value: the option, the value, what is expected."""

from __future__ import annotations

import functools
import sys
from configparser import RawConfigParser
from typing import TYPE_CHECKING, Any, NoReturn

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import LuigiConfigParser
from luigi.interface import core

from data_manifests.storage.toml_file import suggest
from data_manifests.storage.values import Positive, reader_of
from pipeline.logs import one_message

if TYPE_CHECKING:
    import argparse


class OptionError(ValueError):
    """A value that its option cannot have; names both, and what is expected."""


def option_of(section: type[luigi.Config], name: str) -> str:
    """The option that gives a setting on the command line.

    >>> from pipeline.config.settings import labels
    >>> option_of(labels, "blur_hazy")
    '--labels-blur-hazy'
    """
    prefix = f"{section.__name__}-" if section.use_cmdline_section else ""
    return f"--{prefix}{name.replace('_', '-')}"


def given_text(section: type[luigi.Config], name: str) -> str | None:
    """What the command line of this process gives a setting; None where it leaves it to luigi.cfg."""
    parser = CmdlineParser.get_instance()
    text = getattr(parser.known_args, f"{section.__name__}_{name}", None) if parser else None
    return None if text in (None, "") else str(text)


def file_with(section: str, name: str = "") -> str:
    """The file of settings that decides: of those that Luigi reads, the last that has the section, or its setting."""
    for path in reversed(LuigiConfigParser._config_paths):
        found = RawConfigParser()
        found.read(path)
        if found.has_section(section) and (not name or {name, name.replace("_", "-")} & set(found[section])):
            return str(path)
    return "luigi.cfg"


class TypedParameter(luigi.Parameter):
    """A parameter whose text is read as a value of a type; Luigi would say of a wrong one what Python said.

    A true or false may be given without a word, which means true.

    Args:
        kind: the type, bounds included, as pydantic reads it.
        shown: what a default of None stands for, where that is known.
        given: what Luigi's own parameters take.
    """

    _owner: type
    _name: str

    def __init__(self, kind: Any, *, shown: Any = None, **given: Any) -> None:
        super().__init__(**given)
        self.kind, self.shown = kind, shown
        self._read = reader_of(kind)

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)
        self._owner, self._name = owner, name

    def parse(self, x: Any) -> Any:
        """Read a value; nothing is the default where that is nothing too."""
        if x == "" and not self._default:
            return self._default
        with one_message():
            try:
                return self._read(x)
            except ValueError as error:
                raise OptionError(f"{self._place(x)}: {error}") from None

    def serialize(self, x: Any) -> str:
        """The text of a value."""
        return "" if x is None else str(x)

    def _parser_kwargs(self, param_name: str, task_name: str | None = None) -> dict[str, Any]:
        """How argparse takes it."""
        flag = {"nargs": "?", "const": True} if self.kind is bool else {}
        return {**super()._parser_kwargs(param_name, task_name), **flag}

    def _place(self, text: Any) -> str:
        """Where a value stands: on the command line, or in luigi.cfg."""
        if not issubclass(self._owner, luigi.Config):
            return f"--{self._name.replace('_', '-')} {text}"
        if given_text(self._owner, self._name) == str(text):
            return f"{option_of(self._owner, self._name)} {text}"
        section = self._owner.__name__
        return f"{file_with(section, self._name)}: [{section}] {self._name} = {text}"


def explain_options() -> None:
    """Let Luigi say of an option that it does not know which one may be meant, instead of how all of them are used."""
    build = CmdlineParser._build_parser

    def build_explaining(root_task: str | None = None, help_all: bool = False) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = build(root_task, help_all)
        parser.error = functools.partial(_end, parser, root_task)  # type: ignore[method-assign]
        return parser

    CmdlineParser._build_parser = staticmethod(build_explaining)


_UNKNOWN = "unrecognized arguments: "
_USAGE_ERROR = 2
_LUIGIS = ("--email-", "--smtp-", "--sendgrid-", "--batch-email-", "--scheduler-", "--worker-", "--execution-summary-")
"""How options begin that set up Luigi itself."""


def _end(parser: argparse.ArgumentParser, task: str | None, message: str) -> NoReturn:
    """End the program with what is wrong with its command line, in one sentence."""
    if message.startswith(_UNKNOWN):
        words = message.removeprefix(_UNKNOWN).split()
        options = [word.partition("=")[0] for word in words if word.startswith("-")]
        known = [name for name in parser._option_string_actions if not name.startswith((f"--{task}-", *_LUIGIS))]
        message = "; ".join(f"there is no option {name}{_suggest(name, known)}" for name in options)
        message = message or f"{words[0]!r} belongs to no option"
    sys.stderr.write(f"error: {message}; `luigi --module pipeline {task or 'TASK'} --help` lists the options\n")
    sys.exit(_USAGE_ERROR)


def _suggest(option: str, known: list[str]) -> str:
    """The nearest known option as a question, or nothing; the dashes in front of all of them make none alike."""
    return suggest(option.lstrip("-"), [name.lstrip("-") for name in known]).replace("mean ", "mean --")


def bound_workers() -> None:
    """Let Luigi refuse `--workers 0`, which it takes, and then waits for ever."""
    workers = TypedParameter(Positive, default=1, description=core.workers.description)
    workers.__set_name__(core, "workers")
    core.workers = workers
