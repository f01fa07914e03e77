"""What looks wrong with a label set, as the terminal says it too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.settings import BlurSource
from pipeline.label_report.summary import advise_blur, image_warnings, warnings_of

if TYPE_CHECKING:
    from pipeline.config.job import Job
    from pipeline.label_report.command import Command
    from pipeline.label_report.labels_table import LabelTable
    from pipeline.label_report.summary import BlurAdvice


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Warnings, and what to do about blur.

    Attributes:
        warnings: each with what to do; a command stands at its end.
        advice: thresholds of blur that the data suggest, where the present ones do not fit.
    """

    warnings: tuple[str, ...]
    advice: BlurAdvice | None


def list_findings(job: Job, labels: LabelTable, command: Command) -> Findings:
    """Look for what is wrong.

    Args:
        job: whose labels.
        labels: the labels.
        command: that makes them again.
    """
    settings = job.settings.labels
    warnings = warnings_of(labels.frame, settings, command) + image_warnings(job, labels.frame, labels.rows)
    suspicious = settings.blur_source is BlurSource.CPBD and any(line.startswith("blur") for line in warnings)
    advice = advise_blur(labels.frame, settings, command) if suspicious else None
    if advice is not None and not 0 <= advice.low < advice.high <= 1:
        advice = None
    return Findings(warnings=tuple(warnings), advice=advice)
