"""All tables side by side: as the papers print them, by several judges, and beside published numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.evaluation.report.judges import compare_judges
from pipeline.evaluation.report.paper_tables import list_paper_tables
from pipeline.evaluation.report.published import compare_published

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.evaluation.report.frames import Frames
    from pipeline.evaluation.report.paper_tables import PaperTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of an evaluation beside its tables.

    Attributes:
        published: benchmarks that are published ones -> their published names.
        makers: method -> the recogniser of its labels.
        warnings: what may make the numbers say something else than they seem to, in sentences.
    """

    published: Mapping[str, str] = field(default_factory=dict)
    makers: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def list_side_by_side(frames: Frames, known: Known) -> list[PaperTable]:
    """All of them, in the order of a report; some hold one column, or no number."""
    metrics = frames["metrics"]
    return [
        *list_paper_tables(metrics),
        *compare_judges(metrics, known.makers),
        *compare_published(frames, known.published),
    ]
