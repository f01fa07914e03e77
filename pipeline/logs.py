"""Logging for the command line: one line an event, to standard error; traces only where they are asked for."""

from __future__ import annotations

import logging
import os
import sys

from luigi.parameter import ParameterException
from rich.console import Console
from rich.logging import RichHandler

PACKAGES = ("pipeline", "labelers", "training", "data_manifests")
TRACE_VARIABLE = "FIQA_TRACE"
"""Set to anything, errors come with their trace."""

_EXPECTED = (ValueError, OSError, RuntimeError, ParameterException)
"""Errors that say by themselves what to do; any other is a defect and keeps its trace."""


def wants_trace() -> bool:
    """Whether errors are to come with their trace."""
    return bool(os.environ.get(TRACE_VARIABLE))


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
        return RichHandler(console=Console(stderr=True), show_path=False, log_time_format="%H:%M:%S")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    return handler


def _shorten(record: logging.LogRecord) -> bool:
    """Replace the trace of an expected error by its message."""
    if record.exc_info and isinstance(record.exc_info[1], _EXPECTED) and not wants_trace():
        task = record.args[-1] if isinstance(record.args, tuple) and record.args else None
        failed = f"{getattr(task, 'task_family', task)} failed: " if task else ""
        record.msg = f"{failed}{record.exc_info[1]}"
        record.args = None
        record.exc_info = None
    return True
