"""Luigi tasks, thin: parameters, what is required, and one call of a function that knows nothing of Luigi."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import types
from typing import TYPE_CHECKING

import luigi
from luigi.execution_summary import LuigiRunResult, _summary_dict
from luigi.task_register import TaskClassException

from pipeline.config.parameters import bound_workers, explain_options
from pipeline.execution.dispatch import check_locks, die_with_parent
from pipeline.logs import one_message, set_up_logs, shorten_traces, wants_trace
from pipeline.tasks.stage import Stage
from pipeline.tasks.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType


def _prepare_process(task: luigi.Task) -> None:
    """With several workers a task runs in a process of its own: it dies with its parent, and logs as that does.

    One that makes a stage ends at Ctrl-C without a word, for its parent says one; a training saves first.
    """
    if type(task).__module__.startswith(__name__):
        die_with_parent()
        set_up_logs()
        own = multiprocessing.parent_process() is not None
        if isinstance(task, Stage) and own and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _start_without_ctrl_c(process: luigi.worker.TaskProcess) -> None:
    """Start the process of a task, which hears of Ctrl-C when it has imported all: before, it would show a trace."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        super(luigi.worker.TaskProcess, process).start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_INTERRUPTED = 128 + signal.SIGINT
"""The exit code of what Ctrl-C ends."""


class _LocalQueue(queue.Queue[object]):
    """The results of tasks within one process."""

    def close(self) -> None:
        """Luigi closes what lies between processes."""


def _make_queue() -> object:
    """Luigi's queue of results: it wants one between processes also for one worker, which does without."""
    try:
        return multiprocessing.Queue()
    except OSError:
        with one_message():
            if luigi.interface.core().workers > 1:
                check_locks()
        return _LocalQueue()


def _explain_command(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line that there is no such task, or that the run was stopped: Luigi would show where in its code."""
    if isinstance(error, KeyboardInterrupt) and not wants_trace():
        sys.stderr.write("stopped; what is done is kept: run the same command again to go on\n")
    elif isinstance(error, TaskClassException) and not wants_trace():
        sys.stderr.write(f"error: {error}\n")
    else:
        sys.__excepthook__(kind, error, trace)


class _RunResult(LuigiRunResult):
    """Luigi's result of a run; of one that failed it says what is done, what is not, and what to do."""

    def __init__(self, worker: luigi.worker.Worker, worker_add_run_status: bool = True) -> None:
        super().__init__(worker, worker_add_run_status)
        tasks = _summary_dict(worker)
        failed = {*tasks["failed"], *tasks["scheduling_error"]}
        if not failed:
            return
        waiting = set(worker._scheduled_tasks.values()) - failed - {*tasks["completed"], *tasks["already_done"]}
        parts = {"failed": failed, "done": {*tasks["completed"], *tasks["already_done"]}, "not begun": waiting}
        said = "; ".join(f"{what}: {_name_all(found)}" for what, found in parts.items() if found)
        sys.stderr.write(f"not finished; {said}. What is done is kept: mend the cause, run the same command again\n")


def _name_all(tasks: Iterable[luigi.Task]) -> str:
    """What tasks make, by the names of their kinds."""
    named = {f"{task.task_family} of {task.model}" if isinstance(task, Weights) else task.task_family for task in tasks}
    return ", ".join(sorted(named))


shorten_traces()
bound_workers()
explain_options()
luigi.worker.multiprocessing = types.SimpleNamespace(**{**vars(multiprocessing), "Queue": _make_queue})
luigi.worker.TaskProcess.start = _start_without_ctrl_c
luigi.Task.event_handler(luigi.Event.START)(_prepare_process)
luigi.interface.LuigiRunResult = _RunResult
if sys.excepthook is sys.__excepthook__:
    sys.excepthook = _explain_command
