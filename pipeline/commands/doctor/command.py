"""`doctor`: whether this machine, its packages, weights and data are fit for a run."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import TYPE_CHECKING

import luigi
import typer
from rich.table import Column, Table
from rich.text import Text

from data_manifests.installation import REPAIR, SHARED_MODULES, find_missing_landmarker_library
from data_manifests.manifest import LABELLED_FORMATS
from data_manifests.recordio.record_file import UNKNOWN_IDENTITY
from data_manifests.storage.environment import memory_bytes
from data_manifests.weights.files import WeightsError, find
from data_manifests.weights.registry import DETECTOR, load_registry
from labelers.runtime.device import Device, ProviderError
from labelers.runtime.precision import check_processor
from pipeline.commands.common import Dataset, console, human_bytes, job_of
from pipeline.commands.costs import sum_costs
from pipeline.commands.doctor.finding import Finding, Verdict
from pipeline.commands.doctor.gpu import check_gpu
from pipeline.commands.doctor.network_speed import check_speed
from pipeline.commands.settings import with_settings
from pipeline.config.job import MEASURED_STAGES, free_bytes, needs_landmarker, workspace_root
from pipeline.config.pixel_stages import PIXEL_STAGES
from pipeline.execution.dask_workers import START_WORKERS, ClusterError
from pipeline.execution.dispatch import check_locks
from pipeline.stages.forecast import forecast
from pipeline.stages.index import index_images
from pipeline.storage.integrity import compare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from data_manifests.weights.entry import ModelEntry
    from pipeline.config.job import Job


_COLOURS = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.BAD: "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(with_settings(doctor))


def doctor(dataset: Dataset = "") -> None:
    """Check packages, providers, weights, disk and the data set.

    Example: python -m pipeline doctor --dataset ms1mv2

    It ends with exit code 1 where something is bad; a note is no obstacle.
    """
    job = job_of(dataset)
    table = Table("", "what", Column("found", overflow="fold"), title="doctor")
    findings = [*check_machine(), *check_packages(), *check_libraries(job), *check_gpu(needed=needs_gpu(job))]
    findings += [
        *check_cluster(job),
        *check_precision(job),
        *check_weights(job),
        *check_speed(job),
        *check_data(job),
        *check_tables(job),
        *check_costs(job),
    ]
    for finding in findings:
        colour = _COLOURS[finding.verdict]
        table.add_row(Text(finding.verdict.value, style=colour), finding.subject, finding.text)
    console.print(table)
    if any(f.verdict is Verdict.BAD for f in findings):
        raise typer.Exit(1)


def check_machine() -> Iterator[Finding]:
    """Python, cores, processes, disk and luigi.cfg."""
    yield Finding(verdict=Verdict.OK, subject="Python", text=sys.version.split()[0])
    yield Finding(verdict=Verdict.OK, subject="cores", text=str(len(os.sched_getaffinity(0))))
    yield check_processes()
    root = workspace_root()
    yield Finding(verdict=Verdict.OK, subject="disk", text=f"{human_bytes(free_bytes(root))} free for {root}")
    local = luigi.configuration.get_config().getboolean("core", "local_scheduler", False)
    text = (
        "local scheduler" if local else "no local_scheduler in luigi.cfg: run from the project's folder, or run luigid"
    )
    yield Finding(verdict=Verdict.OK if local else Verdict.NOTE, subject="luigi.cfg", text=text)


def check_processes() -> Finding:
    """Processes can share locks, without which `--workers` has no second one."""
    try:
        check_locks()
    except OSError as error:
        return Finding(verdict=Verdict.BAD, subject="processes", text=str(error))
    return Finding(verdict=Verdict.OK, subject="processes", text="share locks in shared memory")


def check_packages() -> Iterator[Finding]:
    """Each of the modules that several distributions provide is there once."""
    providers = importlib.metadata.packages_distributions()
    for module in SHARED_MODULES:
        found = sorted(set(providers.get(module, [])))
        if len(found) == 1:
            text = f"{found[0]} {importlib.metadata.version(found[0])}"
            yield Finding(verdict=Verdict.OK, subject=module, text=text)
        else:
            text = f"provided by {', '.join(found) or 'nothing'}: run `{REPAIR}`, which installs exactly one"
            yield Finding(verdict=Verdict.BAD, subject=module, text=text)


def check_libraries(job: Job) -> Iterator[Finding]:
    """Whether the system has the libraries of MediaPipe's FaceLandmarker, where it is needed."""
    if needs_landmarker(job):
        fault = find_missing_landmarker_library()
        verdict = Verdict.BAD if fault else Verdict.OK
        yield Finding(verdict=verdict, subject="MediaPipe", text=fault or "the system has its libraries")


def check_precision(job: Job) -> Iterator[Finding]:
    """Whether the processor computes in the numbers that are asked for."""
    try:
        if not job.settings.dask:  # whose workers see for themselves
            check_processor(job.settings.precision)
    except ProviderError as error:
        yield Finding(verdict=Verdict.BAD, subject="precision", text=str(error))
    else:
        yield Finding(verdict=Verdict.OK, subject="precision", text=job.settings.precision.value)


def needs_gpu(job: Job) -> bool:
    """Whether the run computes on a GPU of this machine, not on those of a cluster."""
    cluster = job.settings.cluster(job.store.root, on_gpu=True)
    return job.settings.device is Device.CUDA and (cluster is None or cluster.local_processes > 0)


def check_cluster(job: Job) -> Iterator[Finding]:
    """The Dask cluster and each of its workers, where one is configured."""
    cluster = job.settings.cluster(job.store.root, on_gpu=False)
    if cluster is None:
        return
    from pipeline.execution.dask_cluster import survey  # noqa: PLC0415 - Dask is loaded where it is asked for

    try:
        version, workers = survey(cluster)
    except ClusterError as error:
        yield Finding(verdict=Verdict.BAD, subject="Dask", text=str(error))
        return
    threads = sum(worker.threads for worker in workers)
    gpus = sum(worker.has_gpu for worker in workers)
    text = f"{cluster.address}: {len(workers)} workers, {threads} threads, {gpus} with a GPU; distributed {version}"
    remedy = "" if workers else f": start some with `{START_WORKERS.format(address=cluster.address)}`"
    yield Finding(verdict=Verdict.OK if workers else Verdict.BAD, subject="Dask", text=text + remedy)
    for worker in workers:
        if worker.faults:
            yield Finding(verdict=Verdict.BAD, subject=worker.address, text="; ".join(worker.faults))


def check_weights(job: Job) -> Iterator[Finding]:
    """The weight files of the models that the data set's labels need, and of the detector that aligns photos."""
    stages = {stage.role: stage.name for stage in PIXEL_STAGES if stage.role}
    for role, entry in job.models.items():
        is_needed = not job.store.is_complete(job.stages[stages[role]])
        yield _check_model(f"{role} model", entry, Verdict.BAD if is_needed else Verdict.NOTE)
    yield _check_model("face detector", load_registry().get(DETECTOR), Verdict.NOTE)


def _check_model(subject: str, entry: ModelEntry, missing: Verdict) -> Finding:
    """Whether a model's weight files are here, and what it is where they are not."""
    try:
        paths = find(entry)
    except WeightsError as error:
        return Finding(verdict=missing, subject=subject, text=str(error))
    return Finding(verdict=Verdict.OK, subject=subject, text=f"{entry.name} in {paths[0].parent}, verified")


def check_costs(job: Job) -> Iterator[Finding]:
    """What the labels would cost, and whether it fits this machine; nothing where they are there."""
    labelled = job.manifest.format in LABELLED_FORMATS
    specs = job.stages.values() if labelled else [job.stages[name] for name in MEASURED_STAGES]
    forecasts = forecast(job, specs)
    for line in sum_costs(job, forecasts, "LabelAll" if labelled else "EmbeddingsAll"):
        yield Finding(verdict=Verdict.OK, subject="costs", text=line)
    disk = sum(found.disk_bytes for found in forecasts)
    if disk > (free := free_bytes(job.store.root)):
        text = f"{human_bytes(disk)} of disk are needed, {human_bytes(free)} are free: move FIQA_WORKSPACE"
        yield Finding(verdict=Verdict.BAD, subject="disk", text=text)
    memory = max((found.memory_bytes for found in forecasts), default=0)
    if memory > memory_bytes():
        text = f"{human_bytes(memory)} are needed, {human_bytes(memory_bytes())} are here: run with fewer --workers"
        yield Finding(verdict=Verdict.NOTE, subject="memory", text=text)


def check_tables(job: Job) -> Iterator[Finding]:
    """Every shard that is there against what was written, and its keys against the index."""
    checked = compare(job.store, job.stages.values(), record=False)
    for fault in checked.faults:
        text = f"{fault.path} is damaged ({fault.why}): run LabelAll with --recheck, which makes it again"
        yield Finding(verdict=Verdict.BAD, subject="tables", text=text)
    if checked.shards + checked.unknown and not checked.faults:
        text = f"{checked.shards} shards hold what was written"
        if checked.unknown:
            text += f"; of {checked.unknown} more that is not known: run LabelAll with --recheck, which records it"
        yield Finding(verdict=Verdict.OK, subject="tables", text=text)


def check_data(job: Job) -> Iterator[Finding]:
    """The data set's counts against its manifest."""
    indexed = index_images(job.manifest).table
    people = len(set(indexed["identity"].to_pylist()) - {UNKNOWN_IDENTITY})
    promised = " as its manifest promises" if job.manifest.images else ""
    whom = f" of {people:,} people" if people else ""
    text = f"{job.manifest.name}: {indexed.num_rows:,} images{whom}{promised}"
    yield Finding(verdict=Verdict.OK, subject="data", text=text)
