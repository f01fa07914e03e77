"""An evaluation as one HTML page that needs nothing else: no network and no other file."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from training.evaluation.report.gallery import FACES
from training.evaluation.report.lineup import MEANINGS, check_tables, list_methods
from training.evaluation.report.metric_sheets import Choice, average, build_metric_sheet, list_choices
from training.evaluation.report.plots import assign_styles
from training.evaluation.report.sections import build_overview, build_sections, list_left_out, list_rates
from training.evaluation.report.sheet import show_rate
from training.pages.document import LIMIT, render_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

    from training.evaluation.report.gallery import Face
    from training.evaluation.report.sections import Section

LOG = logging.getLogger(__name__)

_USUAL = Choice(protocol="fixed", fmr=1e-3)
"""What is shown first where it can be: CLIB-FIQA's Tables 1 to 3."""

_STEPS = ((FACES, True), (8, True), (4, True), (2, True), (0, True), (0, False))
"""Faces at each end, and whether there are figures: what is tried until a page is under the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageInput:
    """What a page is made of.

    Attributes:
        tables: by name, as `data_manifests.tables.evaluation` has them; an absent table is passed over.
        gallery: benchmark -> method -> the faces rejected first, worst first, and last, best first.
        left_out: benchmark -> recogniser -> pairs of a list, or images of an identity set, without an embedding.
        notes: heading -> name -> text, such as fingerprints and versions.
        title: of the page.
    """

    tables: Mapping[str, pa.Table]
    gallery: Mapping[str, Mapping[str, tuple[Sequence[Face], Sequence[Face]]]] = field(default_factory=dict)
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    notes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    title: str = "Evaluation of face image quality"


def render_page(evaluation: PageInput) -> str:
    """The page.

    It stays under `LIMIT`: where all pictures would be more, fewer faces are shown, then no curves, and the page says
    so. Numbers are never left out for that. Without its script the page shows all panels one after another.

    Raises:
        ReportError: if a table has other columns, or does not say which benchmark or recogniser a row is of.
    """
    tables = evaluation.tables
    check_tables(tables)
    metrics = tables["metrics"].to_pylist() if "metrics" in tables else []
    choices = list_choices(metrics)
    styles = assign_styles(list_methods(tables))
    sections = list(build_sections(tables, evaluation.gallery, styles))
    means = [(choice, *average(metrics, choice)) for choice in choices]
    content = {
        "title": evaluation.title,
        "notes": evaluation.notes,
        "styles": styles,
        "meanings": MEANINGS,
        "overview": build_overview(tables, evaluation.left_out),
        "overview_rates": [show_rate(rate) for rate in list_rates(metrics)],
        "left_out": list_left_out(tables, evaluation.left_out),
        "averages": [(choice, build_metric_sheet(rows, choice), notes) for choice, rows, notes in means],
        "averaged": any(rows for _, rows, _ in means),
        "recognisers": list(dict.fromkeys(row["recogniser"] for row in metrics)),
        "rates": list(dict.fromkeys(choice.rate for choice in choices)),
        "protocols": list(dict.fromkeys(choice.protocol for choice in choices)),
        "begin": _find_begin(sections, choices),
    }
    return _fit(content, sections)


def _find_begin(sections: Sequence[Section], choices: Sequence[Choice]) -> Choice | None:
    """What is shown first: the usual choice, or else the first that has numbers."""
    shown = {panel.choice for section in sections for panel in section.panels if not panel.sheet.empty}
    return next((choice for choice in (_USUAL, *choices) if choice in shown), next(iter(choices), None))


def _fit(content: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """The page with as many pictures as the limit allows."""
    has_faces = any(section.gallery for section in sections)
    page = ""
    for faces, figures in _STEPS:
        shown = [section.shorten(faces, figures=figures) for section in sections]
        cuts = list(_describe_cuts(faces, has_faces, figures))
        page = render_document(
            "training.evaluation.report",
            {**content, "sections": shown, "has_faces": has_faces and faces > 0, "cuts": cuts},
        )
        if len(page.encode()) <= LIMIT:
            return page
    LOG.warning(
        "the tables alone make a page of %s bytes, over the limit of %s", f"{len(page.encode()):,}", f"{LIMIT:,}"
    )
    return page


def _describe_cuts(faces: int, has_faces: bool, figures: bool) -> Iterable[str]:
    """What was left out for the size of the page."""
    limit = f"the page would be over {LIMIT / 1e6:g} MB"
    if has_faces and faces < FACES:
        yield f"faces: {faces} at each end instead of {FACES}, as {limit}" if faces else f"all faces, as {limit}"
    if not figures:
        yield f"curves and histograms, as {limit}; their points stand in the tables curves and qualities"
