"""The figures of a measurement of speed, and how they are shown."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from data_manifests.storage.atomic import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.speed_probe import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What is wanted and what was reached."""

    text: str
    wanted: float
    reached: float


@dataclass(slots=True, kw_only=True)
class Report:
    """All figures of a run.

    Attributes:
        machine: what was measured, and on what.
        parts: the lines of the table, by name.
        matrix_tflops: by number type, the rate of a large matrix product.
        gflop_per_image: forward and backward.
        ideal: images a second, if the training did nothing but matrix products in its number type.
        waits: how often a step waits for the GPU; None without one.
        workers: for every number of workers the loader's images a second, by threads and by processes.
        aims: wanted and reached.
    """

    machine: dict[str, Any]
    parts: dict[str, Part] = field(default_factory=dict)
    matrix_tflops: dict[str, float] = field(default_factory=dict)
    gflop_per_image: float = math.nan
    ideal: float = math.nan
    waits: int | None = None
    workers: list[dict[str, float]] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)

    def add(self, part: Part) -> None:
        """Keep a part, and say that it is done."""
        self.parts[part.name] = part
        sys.stderr.write(f"{part.name}: {part.timing.rate:,.1f} images/s\n")

    def rate(self, name: str) -> float:
        """Images a second of a part."""
        return self.parts[name].timing.rate

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        parts = [
            {
                "name": part.name,
                "images_per_second": part.timing.rate,
                "images": part.timing.images,
                "steps": part.timing.steps,
                "seconds": part.timing.seconds,
                "cold": part.timing.cold,
                "share_of_ideal": part.timing.rate / self.ideal if part.trains else None,
                "peak_rss_mib": part.rss_mib,
                "peak_gpu_mib": part.gpu_mib,
            }
            for part in self.parts.values()
        ]
        aims = [{"text": aim.text, "wanted": aim.wanted, "reached": aim.reached} for aim in self.aims]
        return {
            "machine": self.machine,
            "parts": parts,
            "ideal": {
                "matrix_tflops": self.matrix_tflops,
                "gflop_per_image": self.gflop_per_image,
                "images_per_second": self.ideal,
            },
            "waits_per_step": self.waits,
            "workers": self.workers,
            "aims": aims,
        }


def write_report(report: Report, path: Path | None) -> None:
    """Write all figures into a file, if one is named."""
    if path:
        write_atomically(path, lambda file: file.write(json.dumps(report.to_json(), indent=1).encode()))


def print_report(report: Report) -> None:
    """All figures as tables."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False, emoji=False)
    console.print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in report.machine.items()))
    rates = ", ".join(f"{kind} {rate:,.4g} TFLOP/s" for kind, rate in report.matrix_tflops.items())
    console.print(
        f"matrix product: {rates}; forward and backward of an image: {report.gflop_per_image:.2f} GFLOP; "
        f"ideal: {report.ideal:,.1f} images/s"
    )
    if report.waits is not None:
        console.print(f"the processor waits for the GPU {report.waits} times a step")
    if any(part.trains and part.timing.rate > report.ideal for part in report.parts.values()):
        console.print("a part beats its ceiling: the machine does other work too; measure again when it is idle")
    console.print(_tabulate_parts(report))
    if report.workers:
        console.print(_tabulate_workers(report))
    if report.aims:
        console.print(_tabulate_aims(report))


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _tabulate_parts(report: Report) -> Table:
    table = _table("parts", "part", "images/s", "of ideal", "images", "steps", "seconds", "RSS MiB", "GPU MiB")
    for part in report.parts.values():
        timing = part.timing
        table.add_row(
            part.name,
            f"{timing.rate:,.4g}" if timing.rate < 1000 else f"{timing.rate:,.0f}",
            f"{timing.rate / report.ideal:.1%}" if part.trains else "",
            f"{timing.images:,}",
            f"{timing.steps:,}{' cold' if timing.cold else ''}",
            f"{timing.seconds:.1f}",
            f"{part.rss_mib:,.0f}",
            "" if part.gpu_mib is None else f"{part.gpu_mib:,.0f}",
        )
    return table


def _tabulate_workers(report: Report) -> Table:
    table = _table("loader, images/s", "workers", "threads", "processes")
    for row in report.workers:
        table.add_row(*(f"{row[name]:,.0f}" for name in ("workers", "threads", "processes")))
    return table


def _tabulate_aims(report: Report) -> Table:
    table = _table("aims", "aim", "wanted", "reached")
    for aim in report.aims:
        table.add_row(aim.text, f"{aim.wanted:,g}", f"{aim.reached:,.2f}")
    return table
