"""Measuring the images of a part gives the same bytes however they are read."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from pipeline.job import resolve
from pipeline.measure import MeasureImages, forget_labeler
from pipeline.openers import for_model
from pipeline.run import StageRun
from tests.pipeline.conftest import Factory

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("readers", [1, 3, 16])
def test_reading_ahead_in_threads_changes_no_byte(
    readers: int, labelled_sample: Factory, sample_weights: None, tmp_path: Path
) -> None:
    """Beside a GPU one process measures, and threads read and decode for it."""
    workspace = tmp_path / "workspace"
    job = resolve("sample", workspace=workspace, stage="embeddings")
    shutil.copytree(labelled_sample.workspace / "sample" / "index", workspace / "sample" / "index", symlinks=True)
    work = MeasureImages(
        store=job.store,
        spec=job.stages["embeddings"],
        index=job.stages["index"],
        source=job.source,
        opener=for_model(job.models["recognition"], "cpu"),
        readers=readers,
    )
    StageRun(store=job.store, spec=job.stages["embeddings"], index=job.stages["index"], work=work, processes=1).make()
    made = Factory(workspace=workspace)
    assert made.files("sample", "embeddings") == labelled_sample.files("sample", "embeddings")
    forget_labeler()
