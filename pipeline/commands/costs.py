"""What a run would cost, as `plan` and `doctor` tell it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.table import Column, Table

from data_manifests.durations import describe_time_taken
from data_manifests.storage.environment import memory_bytes
from pipeline.commands.common import human_bytes
from pipeline.config.job import free_bytes
from pipeline.label_report.command import find_command
from pipeline.stages.forecast import BY_CENTRE
from pipeline.storage.shards import MAX_PART_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.config.job import Job
    from pipeline.stages.forecast import Forecast


def cost_table(forecasts: Iterable[Forecast]) -> Table:
    """The stages whose costs are known."""
    right = [Column(name, justify="right") for name in ("images", "images/s", "time", "disk", "memory")]
    table = Table("stage", *right, "judged by", title="what it would cost")
    for found in forecasts:
        if (run := found.run) is not None:
            table.add_row(
                found.stage,
                f"{found.images:,}",
                f"{1 / run.seconds_an_image:,.0f}",
                describe_time_taken(found.seconds),
                human_bytes(found.disk_bytes),
                human_bytes(found.memory_bytes) if run.peak_bytes else "",
                f"{run.images:,} images, {run.processes} process{'es' if run.processes > 1 else ''}",
            )
    return table


def sum_costs(job: Job, forecasts: list[Forecast], task: str) -> list[str]:
    """The whole in a line, what is not known with the command that would tell, and what does not fit into memory."""
    known = [found for found in forecasts if found.run]
    held = max((found.memory_bytes for found in known), default=0)
    lines = []
    if known:
        time, disk = (sum(getattr(found, name) for found in known) for name in ("seconds", "disk_bytes"))
        free = free_bytes(job.store.root)
        alone = f"; of {', '.join(found.stage for found in known)} alone" if len(known) < len(forecasts) else ""
        lines.append(
            f"about {describe_time_taken(time)} of computing, {human_bytes(disk)} of disk ({human_bytes(free)} free) "
            f"and {human_bytes(held)} of memory ({human_bytes(memory_bytes())} here), on this machine with as many "
            f"processes as the runs by which this is judged; each stage takes seconds more to start{alone}"
        )
    unknown = [found for found in forecasts if not found.run]
    if known and any(found.stage == BY_CENTRE for found in unknown):
        lines.append(
            f"{BY_CENTRE} come on top: every image with every person, which few images do not tell; "
            "`python -m benchmarks.nearest_speed` does"
        )
        unknown = [found for found in unknown if found.stage != BY_CENTRE]
    if any(found.images > trial_images() for found in unknown):
        names = ", ".join(found.stage for found in unknown)
        lines.append(f"what {names} would cost is not known; this would tell: {trial_command(job, task)}")
    return lines + ([slow] if forecasts and (slow := reads_slowly(job, held)) else [])


def trial_command(job: Job, task: str) -> str:
    """The command whose receipts would tell what a task costs: enough images that every core has a part."""
    cores = os.cpu_count() or 1
    text = find_command(replace(job, limit=0)).text.replace(" LabelAll ", f" {task} ")
    return f"{text} --limit {trial_images()} --workers {cores}"


def trial_images() -> int:
    """So many images that every core has a part of the work, and of one core that the start does not count."""
    return MAX_PART_ROWS * max(2, os.cpu_count() or 1)


def reads_slowly(job: Job, held: int) -> str:
    """One line where the images do not fit into the memory that a run leaves; empty where they do.

    Args:
        job: whose images.
        held: bytes that the processes of the run hold.
    """
    if job.source.record_file is None:
        return ""
    return describe_memory(job.source.record_file.name, job.source.record_file.stat().st_size, memory_bytes(), held)


def describe_memory(name: str, size: int, memory: int, held: int) -> str:
    """What a file means for reading that jumps, by its size, the machine's memory and what of it is taken, in bytes."""
    if size <= memory - held:
        return ""
    return (
        f"{name} has {size / 1e9:.1f} GB, but a run leaves {max(0, memory - held) / 1e9:.1f} GB of memory: labelling "
        "reads it from front to end, a training however image by image at random (about 4 KB each), mostly from the "
        "disk: keep it on a local SSD"
    )
