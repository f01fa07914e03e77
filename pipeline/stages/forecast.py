"""What a run would cost, by the receipts of runs that did the same to fewer images."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from data_manifests.tables.scores import STAGE_TABLES
from labelers.runtime.device import Device
from pipeline.config.job import estimate_images
from pipeline.storage.footers import count_rows
from pipeline.storage.receipts import machine, read_runs
from pipeline.storage.store import RECEIPTS, Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pipeline.config.job import Job
    from pipeline.storage.fingerprint import StageSpec

BY_CENTRE = "anchors"
"""The stage whose images take the longer, the more people there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An earlier run of a stage, under the same settings and on the same machine.

    Attributes:
        images: that it did.
        start: seconds in which processes started and nearly nothing was done.
        seconds_an_image: after the start.
        bytes_an_image: of its output.
        processes: that computed.
        peak_bytes: the most that one of them held; 0 where the receipt does not tell.
    """

    images: int
    start: float
    seconds_an_image: float
    bytes_an_image: float
    processes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one stage would cost with as many processes as the run that it is judged by.

    Attributes:
        stage: its name.
        images: that are still to be done.
        run: by which it is judged; None where there is none.
    """

    stage: str
    images: int
    run: Run | None

    @property
    def seconds(self) -> float:
        """How long it would take; 0 where that is not known."""
        return self.run.start + self.images * self.run.seconds_an_image if self.run else 0.0

    @property
    def disk_bytes(self) -> float:
        """What it would write."""
        return self.images * self.run.bytes_an_image if self.run else 0.0

    @property
    def memory_bytes(self) -> int:
        """What its processes would hold together, pages that they share in each of them."""
        return self.run.processes * self.run.peak_bytes if self.run else 0


def forecast(job: Job, specs: Iterable[StageSpec]) -> list[Forecast]:
    """What the stages cost that are not there."""
    missing = [spec for spec in specs if not job.store.is_complete(spec)]
    if not missing:
        return []
    total = estimate_images(replace(job, limit=0))
    wanted = min(job.limit, total) if job.limit else total
    stores = list(_stores(job, total))
    return [
        Forecast(
            stage=spec.name,
            images=max(0, wanted - _count_rows(job.store, spec)),
            run=_find_run(job, spec, stores),
        )
        for spec in missing
    ]


def sum_seconds(job: Job, specs: Iterable[StageSpec]) -> tuple[float, str]:
    """How long the stages take together that are not there.

    Returns:
        Seconds; 0 where nothing is known. And the words that name the stages whose seconds are not known, if any.
    """
    forecasts = forecast(job, specs)
    unknown = ", ".join(found.stage for found in forecasts if not found.run)
    return sum(found.seconds for found in forecasts), f" ({unknown} not counted)" if unknown else ""


def _find_run(job: Job, spec: StageSpec, stores: Iterable[tuple[Store, int]]) -> Run | None:
    """The run of most images by which a stage can be judged, of several the last."""
    wanted = _essence(spec.describe())
    gpus = job.settings.gpus if job.settings.device_of(spec.name) is Device.CUDA else 0
    here = (machine(), gpus, job.settings.dask)
    found: list[Run] = []
    for store, most in stores:
        for folder in sorted((store.root / RECEIPTS / spec.name).glob("*")):
            made_from = store.recall(spec.name, folder.name)
            if made_from is None or _essence(made_from) != wanted:
                continue
            # With the means of few people for centres, a comparison with the centres of all is not judged.
            if spec.name == BY_CENTRE and folder.name != spec.fingerprint and _centres_are_means(spec):
                continue
            bytes_an_image = _bytes_an_image(store.root / spec.name / folder.name, spec.name, most)
            for receipt in read_runs(folder):
                there = (receipt["machine"], receipt.get("gpus", 0), receipt.get("cluster", ""))
                if there == here and receipt["rows_computed"] and receipt["wall_seconds"]:
                    found.append(_read_run(receipt, spec.name, most, bytes_an_image))
    return max(reversed(found), key=lambda run: run.images, default=None)


def _read_run(receipt: dict[str, Any], stage: str, most: int, bytes_an_image: float) -> Run:
    """A receipt as a run; a table that has no row for each image was made of all of them."""
    images = receipt["rows_computed"] if _is_by_image(stage) else most
    # Where all came at once, nothing tells the start from the work.
    first, start = (receipt["start_rows"], receipt["start_seconds"]) if receipt["start_rows"] < images else (0, 0.0)
    return Run(
        images=images,
        start=start,
        seconds_an_image=(receipt["wall_seconds"] - start) / (images - first),
        bytes_an_image=bytes_an_image,
        processes=receipt["processes"],
        peak_bytes=receipt.get("peak_process_bytes", 0),
    )


def _essence(made_from: dict[str, Any]) -> dict[str, Any]:
    """What of a stage's description decides how long an image takes: all but which images, and how many."""
    parameters = {name: value for name, value in made_from["parameters"].items() if name != "limit"}
    return {name: made_from[name] for name in ("stage", "version", "schema", "weights")} | {"parameters": parameters}


def _centres_are_means(spec: StageSpec) -> bool:
    """Whether there are as many centres as there are people among the images."""
    return spec.parameters.get("centres") == "mean"


def _stores(job: Job, total: int) -> Iterator[tuple[Store, int]]:
    """The folders of a data set, with limits and without, and how many images each is made of at most."""
    name = job.manifest.name
    workspace = job.store.root.parent
    yield Store(root=workspace / name), total
    for folder in sorted(workspace.glob(f"{glob.escape(name)}-first-*")):
        if found := re.fullmatch(r"-first-(\d+)", folder.name.removeprefix(name)):
            yield Store(root=folder), min(int(found[1]), total)


def _count_rows(store: Store, spec: StageSpec) -> int:
    """Rows of the shards that are there, where each image has one."""
    if not _is_by_image(spec.name):
        return 0
    return sum(store.rows(spec, shard) for shard in store.present_shards(spec))


def _bytes_an_image(folder: Path, stage: str, most: int) -> float:
    """What an output takes on the disk for each of its images; 0 where it was removed."""
    files = list(folder.glob("*.parquet"))
    rows = sum(count_rows(file) or 0 for file in files) if _is_by_image(stage) else most
    return sum(file.stat().st_size for file in files) / rows if rows else 0.0


def _is_by_image(stage: str) -> bool:
    """Whether a stage has a row for every image."""
    return STAGE_TABLES[stage].per_image
