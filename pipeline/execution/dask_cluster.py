"""Parts on a Dask cluster. The only module that knows Dask.

Every fit worker has one part in hand, and gets the next when that is done. So a worker that dies tells which part it
died of, one that joins late gets parts at once, and none is given work before it was examined.
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

from distributed import CancelledError, Client, Future, KilledWorker, LocalCluster

from data_manifests.storage.environment import environment
from pipeline import WORKER_VARIABLE
from pipeline.execution.local import KILLER, THREAD_VARIABLES, PartOutcome
from pipeline.execution.workers import (
    GPU,
    START_WORKERS,
    Cluster,
    ClusterError,
    Standing,
    compute_part,
    examine,
    find_faults,
    show_token,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pipeline.execution.local import PartWork
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
        ClusterError: if the scheduler does not answer for the cluster's `wait_seconds` or was started anew, if there is
            no fit worker for as long, or if a worker that was there at the start is unfit.
    """
    if parts:
        with connect(cluster) as client, show_token(cluster.folder) as token:
            yield from _Foreman(client, cluster, work, parts, token).outcomes(show)


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
            stack.enter_context(environment(dict.fromkeys((*THREAD_VARIABLES, WORKER_VARIABLE), "1")))
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
        answers = {address: client.submit(examine, token, workers=[address], pure=False) for address in listed}
        version = _ask(client, "versions")["packages"]["distributed"]
        found = []
        for address, about in listed.items():
            faults = _thread_faults(about, cluster)
            try:
                faults += find_faults(answers[address].result(timeout=cluster.wait_seconds), here, cluster.folder)
            except Exception as error:  # whatever a broken installation raises
                faults.append(f"cannot run the factory: {_describe(error)}")
            found.append(
                WorkerFinding(
                    address=address, threads=about["nthreads"], has_gpu=GPU in about["resources"], faults=tuple(faults)
                )
            )
        return version, found


@dataclass(slots=True, kw_only=True)
class _Seat:
    """A worker process.

    Attributes:
        address: where it listens.
        has_gpu: whether it declares one.
        founder: whether it was there at the start.
        awake: whether it takes work at present.
        fit: whether it may compute; None until it was examined.
        future: what it was sent: a part, or the examination.
        part: the part in its hands.
    """

    address: str
    has_gpu: bool
    founder: bool
    awake: bool = True
    fit: bool | None = None
    future: Any = None
    part: Part | None = None


class _Foreman:
    """Hands parts to workers, one each, until all are done."""

    def __init__(self, client: Client, cluster: Cluster, work: PartWork, parts: Sequence[Part], token: Path) -> None:
        self._client = client
        self._cluster = cluster
        self._work = work
        self._todo = deque(parts)
        self._token = token
        self._here = examine(token)
        self._seats: dict[str, _Seat] = {}
        self._holders: dict[object, _Seat] = {}  # by the key of what they were sent
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._ready: deque[PartOutcome] = deque()
        self._deaths: Counter[Part] = Counter()
        self._processors = {self._here.processor}
        self._scheduler = ""
        self._next_look = 0.0
        self._answered = self._manned = time.monotonic()

    def outcomes(self, show: Callable[[int], None]) -> Iterator[PartOutcome]:
        """Work until every part has its outcome."""
        rows = 0
        while self._todo or self._ready or any(seat.part for seat in self._holders.values()):
            while self._ready:
                outcome = self._ready.popleft()
                rows += 0 if outcome.error else outcome.part.rows
                show(rows)
                yield outcome
            if time.monotonic() >= self._next_look:
                self._look()
                self._next_look = time.monotonic() + _LOOK_SECONDS
            self._hand_out()
            self._collect()
            show(rows)

    def _look(self) -> None:
        """See who has come and who is gone."""
        now = time.monotonic()
        try:
            if self._client.status == "closed":  # it gave up, after as long
                raise self._gone()
            state = _ask(self._client, "identity", n_workers=-1)
        except OSError:
            if now - self._answered > self._cluster.wait_seconds:
                raise self._gone() from None
            return
        self._answered = time.monotonic()
        if self._scheduler and state["id"] != self._scheduler:
            raise ClusterError(f"the Dask scheduler at {self._cluster.address} was started anew. {_RESUME}")
        for address in self._seats.keys() - state["workers"].keys():
            self._miss(self._seats.pop(address))
        for address, about in state["workers"].items():
            self._greet(address, about)
        self._scheduler = state["id"]
        self._check_manned()

    def _gone(self) -> ClusterError:
        """The scheduler is silent."""
        return ClusterError(
            f"the Dask scheduler at {self._cluster.address} is gone: it has not answered for "
            f"{time.monotonic() - self._answered:.0f} s. Start it and its workers. {_RESUME}"
        )

    def _greet(self, address: str, about: dict[str, Any]) -> None:
        """Take a worker's state down; one with several threads is turned away."""
        seat = self._seats.get(address)
        if seat is None:
            seat = _Seat(address=address, has_gpu=GPU in about["resources"], founder=not self._scheduler)
            self._seats[address] = seat
            if faults := _thread_faults(about, self._cluster):
                self._turn_away(seat, faults)
        seat.awake = about["status"] == "running"

    def _miss(self, seat: _Seat) -> None:
        """A worker is gone; unless it had finished, its part is done again."""
        if seat.future is None or seat.future.status == "finished":
            return
        del self._holders[seat.future.key]
        if seat.part is not None:
            self._blame(seat.part, seat.address)

    def _blame(self, part: Part, address: str) -> None:
        """A worker died with a part in hand: do it again, or give it up."""
        self._deaths[part] += 1
        if self._deaths[part] >= MAX_DEATHS:
            self._ready.append(PartOutcome(part=part, figures={}, error=KILLER))
            return
        logger.warning("worker %s ended unexpectedly; the part it had in hand is done again", address)
        self._todo.appendleft(part)

    def _check_manned(self) -> None:
        """Stop when there has been no fit worker for long."""
        if any(seat.fit for seat in self._seats.values()):
            self._manned = time.monotonic()
        elif time.monotonic() - self._manned > self._cluster.wait_seconds:
            address, wait = self._cluster.address, self._cluster.wait_seconds
            mute = sum(seat.fit is None for seat in self._seats.values())
            raise ClusterError(
                f"the Dask cluster at {address} has had no fit worker for {wait:g} s ({len(self._seats)} workers, "
                f"{mute} have not answered): start some with `{START_WORKERS.format(address=address)}`. {_RESUME}"
            )

    def _hand_out(self) -> None:
        """Send the examination to newcomers, and a part to everyone who has none."""
        if self._client.status != "running":
            return
        able = [seat for seat in self._seats.values() if seat.fit is not False]
        chosen = [seat for seat in able if seat.has_gpu == self._cluster.on_gpu] or able
        for seat in able:
            if seat.future is not None or not seat.awake:
                continue
            if seat.fit is None:
                self._send(seat, self._client.submit(examine, self._token, workers=[seat.address], pure=False))
            elif self._todo and seat in chosen:
                seat.part = self._todo.popleft()
                resources = {GPU: 1} if self._cluster.on_gpu and seat.has_gpu else None
                submit = self._client.submit
                self._send(
                    seat,
                    submit(
                        compute_part, self._work, seat.part, workers=[seat.address], pure=False, resources=resources
                    ),
                )

    def _send(self, seat: _Seat, future: Future[Any]) -> None:
        """Note what a worker was sent."""
        seat.future = future
        self._holders[future.key] = seat
        future.add_done_callback(self._ended.put)

    def _collect(self) -> None:
        """Wait a moment for workers to end what they have in hand, and take all that is ended."""
        with contextlib.suppress(queue.Empty):
            future = self._ended.get(timeout=_POLL_SECONDS)
            while True:
                if seat := self._holders.pop(future.key, None):
                    part, seat.part, seat.future = seat.part, None, None
                    self._settle(seat, future, part)
                future = self._ended.get_nowait()

    def _settle(self, seat: _Seat, future: Future[Any], part: Part | None) -> None:
        """Take an answer: an outcome, a standing, an error, or nothing where the connection broke."""
        try:
            answer = future.result(timeout=_ANSWER_SECONDS)
        except KilledWorker:
            if part is not None:
                self._blame(part, seat.address)
        except (CancelledError, OSError):  # the answer is lost, and its worker or the connection with it
            if part is not None:
                self._todo.appendleft(part)
        except Exception as error:  # whatever a broken installation raises when work is unpickled
            if part is None:
                self._turn_away(seat, [f"cannot run the factory: {_describe(error)}"])
            else:
                trace = "".join(traceback.format_exception(error))
                self._ready.append(PartOutcome(part=part, figures={}, error=trace))
        else:
            if isinstance(answer, PartOutcome):
                self._ready.append(answer)
            else:
                self._judge(seat, answer)

    def _judge(self, seat: _Seat, standing: Standing) -> None:
        """Admit a worker or turn it away."""
        if faults := find_faults(standing, self._here, self._cluster.folder):
            self._turn_away(seat, faults)
            return
        seat.fit = True
        self._manned = time.monotonic()
        if standing.processor not in self._processors:
            self._processors.add(standing.processor)
            logger.warning(
                "worker %s has the processor %s, this machine has %s: bytes are promised equal for one kind alone",
                seat.address, standing.processor, self._here.processor,
            )  # fmt: skip

    def _turn_away(self, seat: _Seat, faults: list[str]) -> None:
        """An unfit worker stops a run that begins; one that comes later gets nothing to do."""
        seat.fit = False
        text = f"worker {seat.address} of the Dask cluster at {self._cluster.address} {'; it '.join(faults)}"
        if seat.founder:
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


def _describe(error: Exception) -> str:
    """The kind and text of an error."""
    return traceback.format_exception_only(error)[-1].strip()
