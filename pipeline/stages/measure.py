"""The work on images: read, decode, measure, stage. It runs in a worker process and holds its model there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from data_manifests.tables.scores import STAGE_TABLES
from data_manifests.tables.stages import INDEX, Status
from pipeline.stages.columns import make_table
from pipeline.storage.receipts import NOTE

if TYPE_CHECKING:
    from collections.abc import Callable

    from labelers.faces import FaceBatch
    from labelers.labeler import Labeler, Measures
    from pipeline.storage.fingerprint import StageSpec
    from pipeline.storage.images import ImageSource
    from pipeline.storage.shards import Part
    from pipeline.storage.store import Store

SLICE_ROWS = 256
"""Images decoded and measured at a time (38 MB). The batch of every network divides it, so that an image stands at
the same place of the same batch however the work is divided."""


class LabelerFactory(Hashable, Protocol):
    """Opens a labeler in the process that will use it; hashable, so that each is opened once."""

    def open(self) -> Labeler:
        """Load the model."""
        ...


@lru_cache(maxsize=1)
def _labeler(factory: LabelerFactory) -> Labeler:
    """The labeler that this process holds."""
    return factory.open()


def forget_labeler() -> None:
    """Close the labeler that this process holds, if there is one."""
    _labeler.cache_clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureImages:
    """Measure the images of one part and stage the table.

    Attributes:
        store: where tables lie.
        spec: the stage that is made.
        index: the stage that says where the images lie.
        source: where they are read from.
        factory: opens the labeler.
    """

    store: Store
    spec: StageSpec
    index: StageSpec
    source: ImageSource
    factory: LabelerFactory

    def __call__(self, part: Part, advance: Callable[[int], None]) -> dict[str, float]:
        """Measure, stage, and return the seconds spent on each step and the labeler's notes."""
        figures: Counter[str] = Counter()
        with Stopwatch(figures, "open_seconds"):
            labeler = _labeler(self.factory)
        rows = self.store.read_once(self.index, part.shard, INDEX.names).slice(part.start, part.rows)
        pieces = []
        for start in range(0, part.rows, SLICE_ROWS):
            piece = rows.slice(start, SLICE_ROWS)
            with Stopwatch(figures, "read_seconds"):
                faces, status = self._read(piece)
            with Stopwatch(figures, "compute_seconds"):
                measures = labeler(faces)
            figures.update({f"{NOTE}{name}": count for name, count in measures.notes.items()})
            columns, causes = _merge(measures, status)
            pieces.append(make_table(STAGE_TABLES[self.spec.name], piece["key"].to_numpy(), columns, causes))
            advance(piece.num_rows)
        with Stopwatch(figures, "write_seconds"):
            self.store.write_part(self.spec, part, pa.concat_tables(pieces).unify_dictionaries())
        return dict(figures)

    def _read(self, rows: pa.Table) -> tuple[FaceBatch, list[Status]]:
        """Read and decode some images."""
        from labelers.faces import decode_batch  # noqa: PLC0415 - the planning process needs no decoder

        stored = self.source.read(rows)
        return decode_batch(rows["key"].to_numpy(), rows["identity"].to_numpy(), stored)


def _merge(measures: Measures, status: list[Status]) -> tuple[dict[str, Any], list[str]]:
    """Blank the measures of images that could not be read; their own cause outranks the labeler's."""
    unread = np.array([s != Status.OK for s in status])
    columns = {}
    for name, values in measures.columns.items():
        columns[name] = values.copy()
        columns[name][unread] = np.nan
    pairs = zip(status, measures.status, strict=True)
    return columns, [(read if read != Status.OK else measured).value for read, measured in pairs]


class Stopwatch:
    """Adds the seconds of its block to a counter."""

    def __init__(self, figures: Counter[str], name: str) -> None:
        self._figures = figures
        self._name = name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        # Counter is typed for integers; seconds are added all the same.
        self._figures[self._name] += time.perf_counter() - self._started  # type: ignore[assignment]
