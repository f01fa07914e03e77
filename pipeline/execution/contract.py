"""Work on one part and its outcome: the contract of whoever hands parts out with the processes that compute them."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from data_manifests.storage.atomic import DiskFullError
from data_manifests.storage.environment import peak_bytes
from data_manifests.storage.shard_file import DamagedShardError
from labelers.labeler import LabelerError
from labelers.runtime.denormals import flush_denormals

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.storage.shards import Part

WORKER_VARIABLE = "FIQA_WORKER"
"""Set for processes that compute parts: they need no tasks, and without Luigi they start in a third of the time."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
"""One thread a process: the processes are the parallelism, and sums do not depend on how many there are."""

WORKER_ENVIRONMENT = dict.fromkeys((*THREAD_VARIABLES, WORKER_VARIABLE), "1")
"""The variables with which this machine's processes for parts are started."""

KILLER = "it ends its worker process each time (out of memory?)"
"""The error of a part that is given up because no process survives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOutcome:
    """How a part went.

    Attributes:
        part: which part.
        figures: the seconds and counts that the work measured.
        error: what went wrong, with its trace where it does not say by itself what to do; empty if nothing did.
        is_general: whether what went wrong is no matter of this part, so that no other one can do better.
        peak_bytes: the most memory that the process had held until then.
    """

    part: Part
    figures: dict[str, float]
    error: str = ""
    is_general: bool = False
    peak_bytes: int = 0


class PartWork(Protocol):
    """Computes and stages one part; picklable, and the same on every machine."""

    def __call__(self, part: Part, advance: Callable[[int], None]) -> dict[str, float]:
        """Do the part, call `advance` with the rows done since the last call, and return its figures."""
        ...


def attempt(work: PartWork, part: Part, advance: Callable[[int], None]) -> PartOutcome:
    """Compute one part; whatever it raises becomes part of the outcome, so that the others go on."""
    try:
        with flush_denormals():
            figures = work(part, advance)
        return PartOutcome(part=part, figures=figures, peak_bytes=peak_bytes())
    except (DiskFullError, DamagedShardError, LabelerError) as error:
        return PartOutcome(part=part, figures={}, error=str(error), is_general=True)
    except Exception:
        return PartOutcome(part=part, figures={}, error=traceback.format_exc())


def quieten_process() -> None:
    """Hold the libraries of this process to one thread, and OpenCV's remarks on broken images back."""
    import cv2  # noqa: PLC0415 - only processes that compute load it
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_SILENT
    )  # an image that does not decode is a row with its status, not a line on the terminal
    threadpool_limits(1)
