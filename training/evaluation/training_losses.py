"""The losses of a training by epoch, as its curves for TensorBoard hold them (CLIB-FIQA Figure 4, right)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_manifests.tables.evaluation import LOSSES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pyarrow as pa

EVENTS, EPOCH = "events", "epoch/"
"""The folder of a run's curves, and how those begin that have one point an epoch (training.trainer)."""


def read_losses(runs: Mapping[str, Path]) -> pa.Table:
    """The table `losses`.

    Args:
        runs: method -> its network, or the folder of its training. One without curves by epoch gives no rows.
    """
    rows = []
    for method, path in runs.items():
        folder = (path if path.is_dir() else path.parent) / EVENTS
        for name, values in _read_curves(folder).items():
            rows += [{"method": method, "loss": name, "epoch": n, "mean": v} for n, v in enumerate(values, 1)]
    return LOSSES.to_arrow(rows)


def _read_curves(folder: Path) -> dict[str, list[float]]:
    """Every loss by name, one number an epoch."""
    if not folder.is_dir():
        return {}
    # TensorBoard takes seconds to import, and few evaluations have a training's folder among their methods.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(EPOCH)]
    return {tag.removeprefix(EPOCH): [point.value for point in events.Scalars(tag)] for tag in tags}
