"""Parts on a Dask cluster. The only module that knows Dask.

Every fit worker has one part in hand, and gets the next when that is done. So a worker that dies tells which part it
died of, and one that joins late gets parts at once. A worker examines itself before it begins a part.
"""

# Distributed is typed in part.
# mypy: allow-untyped-calls

from __future__ import annotations

import contextlib
import logging
import queue
import time
import traceback
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distributed import CancelledError, Client, Future, LocalCluster

from data_manifests.storage.environment import environment
from pipeline.execution.contract import KILLER, WORKER_ENVIRONMENT, PartOutcome
from pipeline.execution.dask_workers import (
    GPU,
    START_WORKERS,
    Cluster,
    ClusterError,
    compute_part,
    examine,
    find_faults,
    show_token,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pipeline.execution.contract import PartWork
    from pipeline.storage.shards import Part

logger = logging.getLogger(__name__)

MAX_DEATHS = 3
"""A part is given up when so many workers died with it in hand."""

_POLL_SECONDS = 0.5
_LOOK_SECONDS = 1.0
_ANSWER_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
_RESUME = "What was finished is kept; run the same command again and it goes on from there"


def run_on_cluster(
    work: PartWork, parts: Sequence[Part], cluster: Cluster, show: Callable[[int], None]
) -> Iterator[PartOutcome]:
    """Compute parts on a cluster and give each one's outcome as it ends, in no particular order.

    Args:
        work: the function; it is pickled for every part, so it holds descriptions, not data.
        parts: what to compute.
        cluster: where.
        show: called about twice a second with the rows done so far.

    Raises:
        ClusterError: if the scheduler does not answer for the cluster's `wait_seconds`, if there is no fit worker for
            as long, or if a worker that was there at the start is unfit.
    """
    if parts:
        with connect(cluster) as client, show_token(cluster.folder) as token:
            yield from _Dispatcher(client, cluster, work, parts, token).outcomes(show)


@contextlib.contextmanager
def connect(cluster: Cluster) -> Iterator[Client]:
    """A client of the cluster; a local cluster lives as long as this block.

    Raises:
        ClusterError: if no scheduler answers.
    """
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is said here, once
    with contextlib.ExitStack() as stack:
        address = cluster.address
        if cluster.local_processes:
            stack.enter_context(environment(WORKER_ENVIRONMENT))
            local = LocalCluster(
                n_workers=cluster.local_processes,
                threads_per_worker=1,
                dashboard_address=None,
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            )
            stack.enter_context(local)
            address = local.scheduler_address
        try:
            client = Client(address, timeout=cluster.wait_seconds, set_as_default=False)
        except (OSError, ImportError) as error:
            raise ClusterError(
                f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`, or leave "
                "[execution] dask empty to compute on this machine"
            ) from error
        stack.callback(client.close, timeout=_CLOSE_SECONDS)
        yield client


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFinding:
    """A worker as `doctor` shows it.

    Attributes:
        address: where it listens.
        threads: how many it has.
        has_gpu: whether it declares one.
        faults: why it cannot compute; empty if it can.
    """

    address: str
    threads: int
    has_gpu: bool
    faults: tuple[str, ...]


def survey(cluster: Cluster) -> tuple[str, list[WorkerFinding]]:
    """The scheduler's version of Distributed, and how each worker is.

    Raises:
        ClusterError: if no scheduler answers.
    """
    with connect(cluster) as client, show_token(cluster.folder) as token:
        here = examine(token)
        listed = _ask(client, "identity", n_workers=-1)["workers"]
        answers = client.run(examine, token, workers=list(listed), on_error="return")
        version = _ask(client, "versions")["packages"]["distributed"]
        found = []
        for address, about in listed.items():
            faults, answer = _thread_faults(about, cluster), answers[address]
            broken = isinstance(answer, Exception)
            faults += [_explain(answer)] if broken else find_faults(answer, here, cluster.folder)
            found.append(
                WorkerFinding(
                    address=address, threads=about["nthreads"], has_gpu=GPU in about["resources"], faults=tuple(faults)
                )
            )
        return version, found


class _Dispatcher:
    """Hands parts to workers, one each, until all are done."""

    def __init__(self, client: Client, cluster: Cluster, work: PartWork, parts: Sequence[Part], token: Path) -> None:
        self._client = client
        self._cluster = cluster
        self._work = work
        self._todo = deque(parts)
        self._token = token
        self._here = examine(token)
        self._workers: dict[str, dict[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
        self._at_start = frozenset(self._workers)
        self._unfit: set[str] = set()
        self._processors = {self._here.processor}
        self._in_hand: dict[Future[Any], tuple[str, Part]] = {}
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._deaths: Counter[Part] = Counter()
        self._next_look = 0.0
        self._answered = self._manned = time.monotonic()

    def outcomes(self, show: Callable[[int], None]) -> Iterator[PartOutcome]:
        """Work until every part has its outcome."""
        rows = 0
        while self._todo or self._in_hand:
            if time.monotonic() >= self._next_look:
                self._look()
                self._next_look = time.monotonic() + _LOOK_SECONDS
            lost = list(self._take_back())
            self._hand_out()
            for outcome in (*lost, *self._collect()):
                rows += 0 if outcome.error else outcome.part.rows
                show(rows)
                yield outcome
            show(rows)

    def _look(self) -> None:
        """Ask the scheduler who is there; stop if it is silent for long, or has no fit worker for long."""
        cluster = self._cluster
        with contextlib.suppress(OSError):
            if self._client.status != "closed":  # it gives up after as long
                self._workers = _ask(self._client, "identity", n_workers=-1)["workers"]
                self._answered = time.monotonic()
        now = time.monotonic()
        if now - self._answered > cluster.wait_seconds:
            raise ClusterError(
                f"the Dask scheduler at {cluster.address} is gone: it has not answered for "
                f"{now - self._answered:.0f} s. Start it and its workers. {_RESUME}"
            )
        for address in self._workers.keys() - self._unfit:
            if faults := _thread_faults(self._workers[address], cluster):
                self._turn_away(address, faults[0])
        if self._workers.keys() - self._unfit:
            self._manned = now
        elif now - self._manned > cluster.wait_seconds:
            raise ClusterError(
                f"the Dask cluster at {cluster.address} has had no fit worker for {cluster.wait_seconds:g} s "
                f"({len(self._workers)} workers): start some with `{START_WORKERS.format(address=cluster.address)}`. "
                f"{_RESUME}"
            )

    def _take_back(self) -> Iterator[PartOutcome]:
        """Do again what workers that are gone had in hand; give up a part with which several of them went."""
        for future, (address, part) in list(self._in_hand.items()):
            if address in self._workers or future.done():
                continue
            del self._in_hand[future]
            future.release()  # or Dask would do it again where a worker comes back at the same address
            self._deaths[part] += 1
            if self._deaths[part] >= MAX_DEATHS:
                yield PartOutcome(part=part, figures={}, error=KILLER)
            else:
                logger.warning("worker %s ended unexpectedly; the part it had in hand is done again", address)
                self._todo.appendleft(part)

    def _hand_out(self) -> None:
        """Send a part to every fit worker that has none."""
        busy = {address for address, _ in self._in_hand.values()}
        fit = [address for address in self._workers if address not in self._unfit]
        kin = [address for address in fit if (GPU in self._workers[address]["resources"]) == self._cluster.on_gpu]
        for address in kin or fit:
            if not self._todo or self._client.status != "running":
                return
            if address in busy or self._workers[address]["status"] != "running":
                continue
            part = self._todo.popleft()
            future = self._client.submit(
                compute_part, self._work, part, self._token, self._here, workers=[address], pure=False
            )
            self._in_hand[future] = (address, part)
            future.add_done_callback(self._ended.put)

    def _collect(self) -> Iterator[PartOutcome]:
        """Wait a moment for parts to end, and take all that have."""
        with contextlib.suppress(queue.Empty):
            future = self._ended.get(timeout=_POLL_SECONDS)
            while True:
                if future in self._in_hand:
                    yield from self._settle(future, *self._in_hand.pop(future))
                future = self._ended.get_nowait()

    def _settle(self, future: Future[Any], address: str, part: Part) -> Iterator[PartOutcome]:
        """Take an answer. Where there is none, the part is done again."""
        if future.status == "error":  # the worker's own: what goes wrong in the work is part of the outcome
            self._todo.appendleft(part)
            self._turn_away(address, _explain(future.exception(timeout=_ANSWER_SECONDS)))
            return
        try:
            processor, outcome = future.result(timeout=_ANSWER_SECONDS)
        except (CancelledError, OSError):  # the answer is lost, and its worker or the connection with it
            self._todo.appendleft(part)
            return
        if processor not in self._processors:
            self._processors.add(processor)
            logger.warning(
                "worker %s has the processor %s, this machine has %s: bytes are promised equal for one kind alone",
                address, processor, self._here.processor,
            )  # fmt: skip
        yield outcome

    def _turn_away(self, address: str, fault: str) -> None:
        """An unfit worker stops a run that begins; one that comes later gets nothing to do."""
        self._unfit.add(address)
        text = f"worker {address} of the Dask cluster at {self._cluster.address} {fault}"
        if address in self._at_start:
            raise ClusterError(text)
        logger.error("%s. It gets no work", text)


def _ask(client: Client, question: str, **words: Any) -> Any:
    """Ask the scheduler; an OSError says that it did not answer in time."""
    return client.sync(getattr(client.scheduler, question), callback_timeout=_ANSWER_SECONDS, **words)


def _thread_faults(about: dict[str, Any], cluster: Cluster) -> list[str]:
    """A worker with several threads would share one model among them, and sums would depend on it."""
    threads = about["nthreads"]
    command = START_WORKERS.format(address=cluster.address)
    return [] if threads == 1 else [f"has {threads} threads: start it with one, and more workers instead (`{command}`)"]


def _explain(error: Exception) -> str:
    """Why a worker cannot compute, by what it raised."""
    if isinstance(error, ClusterError):
        return str(error)
    text = traceback.format_exception_only(error)[-1].strip()
    return f"cannot run the factory ({text}): install the same code there and start the worker anew"
