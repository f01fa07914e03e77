"""The page of a label set as text."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from data_manifests.tables.scores import CONFIDENCE
from pipeline.label_report.content import build_content, show_faces
from pipeline.label_report.faces import read_faces
from pipeline.label_report.labels_table import LabelTable
from pipeline.label_report.survey import survey_labels
from pipeline.pages.document import LIMIT, render_document
from pipeline.storage.store import QUALITY_MODEL

if TYPE_CHECKING:
    from pipeline.config.job import Job
    from pipeline.label_report.command import Command

logger = logging.getLogger(__name__)


def render_labels(job: Job, command: Command, model: str) -> str:
    """The page of a job's labels, which have to be there.

    It stays under LIMIT whatever the size of the data set: the number of faces is bounded, and where stored images are
    large all of them are made small. The same labels, images and receipts give the same text.

    Args:
        job: whose labels.
        command: that makes them again, for what the page says to copy.
        model: fingerprint of a quality model that was trained from them; empty where there is none.
    """
    confidence = job.store.root / QUALITY_MODEL / model / CONFIDENCE.name if model else None
    labels = LabelTable(folder=job.store.folder(job.stages["labels"]), confidence=confidence)
    survey = survey_labels(labels, job.settings.labels)
    content = build_content(job, labels, survey, command)
    page, size = "", 0
    for small in (False, True):
        faces = show_faces(read_faces(job, labels, survey.faces, small=small))
        page = render_document("pipeline.label_report", {**content, **faces})
        size = len(page.encode())
        if size <= LIMIT:
            return page
    logger.warning(
        "the page of %s has %s bytes, over the limit of %s", job.name, f"{len(page.encode()):,}", f"{LIMIT:,}"
    )
    return page
