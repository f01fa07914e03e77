"""Where parts are computed: here, in processes beside this one, or on a Dask cluster, always by the same function."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from data_manifests.storage.environment import environment
from labelers.runtime.device import VISIBLE, choose_gpus
from pipeline.execution.contract import KILLER, WORKER_ENVIRONMENT, PartOutcome, attempt, quieten_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pipeline.execution.contract import PartWork
    from pipeline.execution.dask_workers import Cluster
    from pipeline.storage.shards import Part

logger = logging.getLogger(__name__)

_PDEATHSIG = 1
_POLL_SECONDS = 0.5


def run_parts(  # noqa: PLR0913 - what, and where
    work: PartWork,
    parts: Sequence[Part],
    processes: int,
    show: Callable[[int], None],
    cluster: Cluster | None = None,
    *,
    gpus: int = 0,
) -> Iterator[PartOutcome]:
    """Compute parts and give each one's outcome as it ends, in no particular order.

    A part that fails does not stop the others; a worker process that dies is replaced, and what it had in hand is
    done again.

    Args:
        work: the function.
        parts: what to compute.
        processes: how many processes; 1, or a single part, is computed here.
        show: called about twice a second with the rows done so far in this call.
        cluster: where to compute instead of in processes of this machine.
        gpus: over how many GPUs the processes are spread, each of which sees one; 0 leaves them alone.

    Raises:
        ClusterError: if the cluster is gone, or has no fit worker.
        ProviderError: if there are fewer GPUs.
        OSError: if the processes cannot share locks.
    """
    if cluster is not None:
        from pipeline.execution.dask_cluster import run_on_cluster  # noqa: PLC0415 - Dask is loaded where it is asked for

        yield from run_on_cluster(work, parts, cluster, show)
        return
    visible = choose_gpus(gpus) if gpus and parts else ()
    useful = min(processes, len(parts))
    if useful <= 1:
        yield from _run_here(work, parts, show)
    else:
        yield from _run_in_pool(work, parts, useful, show, visible)


def _run_here(work: PartWork, parts: Sequence[Part], show: Callable[[int], None]) -> Iterator[PartOutcome]:
    """Compute one part after the other in this process."""
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        show(done)

    quieten_process()
    for part in parts:
        yield attempt(work, part, advance)


def _run_in_pool(
    work: PartWork, parts: Sequence[Part], processes: int, show: Callable[[int], None], gpus: Sequence[str]
) -> Iterator[PartOutcome]:
    """Compute parts in processes of their own; start the processes anew when one dies."""
    check_locks()
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)

    def poll() -> None:
        show(counter.value)

    todo = list(parts)
    while todo:
        try:
            with _pool(context, processes, counter, gpus) as pool:
                for outcome in _collect(_submit(pool, work, todo), poll):
                    todo.remove(outcome.part)
                    yield outcome
        except BrokenProcessPool:
            # Parts are handed out in order, so the culprit is among the first; alone, it shows itself.
            suspects = todo[:processes]
            logger.warning("a worker process ended unexpectedly; %d parts are done again", len(suspects))
            for part in suspects:
                todo.remove(part)
                with _pool(context, 1, counter, gpus) as pool:
                    (future,) = _submit(pool, work, [part])
                    yield _run_alone(future, part, poll)


def _submit(pool: ProcessPoolExecutor, work: PartWork, parts: Sequence[Part]) -> list[Future[PartOutcome]]:
    """Hand parts out, with which the processes start: from the first moment on they leave Ctrl-C to this one."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    try:
        return [pool.submit(_run_one, work, part) for part in parts]
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)


def _collect(futures: Sequence[Future[PartOutcome]], poll: Callable[[], None]) -> Iterator[PartOutcome]:
    """Give the outcomes as they come, and say between them how far all are."""
    pending = set(futures)
    while pending:
        finished, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
        poll()
        # A dead process breaks every future at once: what was whole before is given out first.
        for future in sorted(finished, key=lambda f: f.exception() is not None):
            yield future.result()


def _run_alone(future: Future[PartOutcome], part: Part, poll: Callable[[], None]) -> PartOutcome:
    """The outcome of a part that has a process to itself; if that dies too, the part is given up."""
    try:
        return next(_collect([future], poll))
    except BrokenProcessPool:
        return PartOutcome(part=part, figures={}, error=KILLER)


@contextmanager
def _pool(context: Any, processes: int, counter: Any, gpus: Sequence[str]) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that end with this block, and with this process."""
    with environment(WORKER_ENVIRONMENT):
        started = (counter, context.Value("q", 0), gpus)
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker, initargs=started)
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_counter: Any = None


def _start_worker(counter: Any, seats: Any, gpus: Sequence[str]) -> None:
    """Prepare a worker process: it dies with its parent, leaves Ctrl-C to it, and uses one thread and one GPU."""
    global _counter  # noqa: PLW0603 - a shared value reaches a worker only at its start
    _counter = counter
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpus:
        with seats.get_lock():
            os.environ[VISIBLE] = gpus[seats.value % len(gpus)]
            seats.value += 1
    quieten_process()


def die_with_parent(parent: int | None = None, by: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to end this process when its parent dies, so that no orphan goes on writing (Linux).

    Args:
        parent: number of the process that started this one; None: the one that did so by multiprocessing, if any.
        by: the signal.
    """
    if parent is None:
        started = multiprocessing.parent_process()
        if started is None:
            return
        parent = started.pid
    ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, by)
    if os.getppid() != parent:  # it died before it was asked
        os.kill(os.getpid(), by)


def check_locks() -> None:
    """Find out whether processes can share locks, without which there is no second one.

    Raises:
        OSError: names what is missing and the remedy.
    """
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        raise OSError(
            f"no locks in shared memory ({error}): make /dev/shm writable, or run with --workers 1"
        ) from error


def _run_one(work: PartWork, part: Part) -> PartOutcome:
    """Compute one part in a worker process."""
    return attempt(work, part, _advance)


def _advance(rows: int) -> None:
    """Add to the rows that all workers have done."""
    with _counter.get_lock():
        _counter.value += rows
