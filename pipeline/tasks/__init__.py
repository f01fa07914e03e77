"""Luigi tasks, thin: parameters, what is required, and one call of a function that knows nothing of Luigi."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import luigi
from luigi.task_register import TaskClassException

from pipeline.config.parameters import bound_workers
from pipeline.logs import set_up_logs, shorten_traces, wants_trace

if TYPE_CHECKING:
    from types import TracebackType


def _set_up_logs(task: luigi.Task) -> None:
    """With several workers a task runs in a process of its own, which knows nothing of its parent's logging."""
    if type(task).__module__.startswith(__name__):
        set_up_logs()


def _explain_command(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in few lines that there is no such task: Luigi would show where in its code it found out."""
    if isinstance(error, TaskClassException) and not wants_trace():
        sys.stderr.write(f"error: {error}\n")
    else:
        sys.__excepthook__(kind, error, trace)


shorten_traces()
bound_workers()
luigi.Task.event_handler(luigi.Event.START)(_set_up_logs)
if sys.excepthook is sys.__excepthook__:
    sys.excepthook = _explain_command
