"""Logging for the command line: one line an event, to standard error; traces only where they are asked for."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from typing import TYPE_CHECKING

from luigi.cmdline_parser import CmdlineParser
from luigi.parameter import ParameterException
from luigi.rpc import RPCError
from rich.logging import RichHandler

from pipeline.terminal import make_console

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("pipeline", "labelers", "training", "data_manifests")
TRACE_VARIABLE = "FIQA_TRACE"
"""Set to anything, errors come with their trace."""

_UNREAD = re.compile(r"\w+\[.*\]: Error when parsing the default value of '(\w+)'", re.DOTALL)
"""What Luigi says of a value of its own options that it cannot read: the cause stands behind it."""

_EXPECTED = (ValueError, OSError, RuntimeError, ParameterException, RPCError)
"""Errors that say by themselves what to do; any other is a defect and keeps its trace."""


def wants_trace() -> bool:
    """Whether errors are to come with their trace."""
    return bool(os.environ.get(TRACE_VARIABLE))


@contextlib.contextmanager
def one_message() -> Iterator[None]:
    """On the command line, end the program with a mistake's one message instead of a trace."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        if CmdlineParser.get_instance() is None or wants_trace():
            raise
        sys.exit(f"error: {_message_of(error)}")


def set_up_logs(level: int = logging.INFO) -> None:
    """Show what the factory's own packages say; once a process."""
    for name in PACKAGES:
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(_handler())
            logger.setLevel(level)
            logger.propagate = False


def shorten_traces() -> None:
    """Keep Luigi's traces of expected errors away; once a process."""
    luigi = logging.getLogger("luigi-interface")
    if _shorten not in luigi.filters:
        luigi.addFilter(_shorten)


def _handler() -> logging.Handler:
    """Coloured lines in a terminal, plain ones elsewhere."""
    if sys.stderr.isatty():
        return RichHandler(console=make_console(stderr=True), show_path=False, log_time_format="%H:%M:%S")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    return handler


def _shorten(record: logging.LogRecord) -> bool:
    """Replace the trace of an expected error by its message."""
    if record.exc_info and isinstance(record.exc_info[1], _EXPECTED) and not wants_trace():
        task = record.args[-1] if isinstance(record.args, tuple) and record.args else None
        failed = f"{getattr(task, 'task_family', task)} failed: " if task else ""
        record.msg = f"{failed}{_message_of(record.exc_info[1])}"
        record.args = None
        record.exc_info = None
    return True


def _message_of(error: BaseException) -> str:
    """What an expected error says."""
    if isinstance(error, RPCError):
        return (
            f"no scheduler answers ({error}): start luigid there, or set local_scheduler = true in [core] of "
            "the settings"
        )
    unread = _UNREAD.fullmatch(str(error))
    return f"{unread[1]}: {error.__cause__}" if unread and error.__cause__ else str(error)
