"""What a run would cost, as `plan` and `doctor` tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Column, Table

from data_manifests.durations import describe_time_taken
from data_manifests.storage.environment import memory_bytes
from pipeline.commands.common import human_bytes
from pipeline.commands.forecast import BY_CENTRE, reads_slowly, trial_command, trial_images
from pipeline.config.job import free_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.commands.forecast import Forecast
    from pipeline.config.job import Job


def cost_table(forecasts: Iterable[Forecast]) -> Table:
    """The stages whose costs are known."""
    right = [Column(name, justify="right") for name in ("images", "images/s", "time", "disk", "memory")]
    table = Table("stage", *right, "judged by", title="what it would cost")
    for found in forecasts:
        if (run := found.run) is not None:
            table.add_row(
                found.stage,
                f"{found.images:,}",
                f"{run.images / run.seconds:,.0f}",
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
            f"about {describe_time_taken(time)}, {human_bytes(disk)} of disk ({human_bytes(free)} free) "
            f"and {human_bytes(held)} of memory ({human_bytes(memory_bytes())} here), on this machine with as many "
            f"processes as the runs by which this is judged; their start counts, so longer runs are faster{alone}"
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
