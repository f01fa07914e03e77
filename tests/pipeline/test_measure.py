"""Measuring the images of a part gives the same bytes however they are read."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from data_manifests.models import load_registry
from pipeline.job import resolve
from pipeline.measure import MeasureImages, forget_labeler
from pipeline.openers import for_model
from pipeline.run import StageRun
from pipeline.tasks.measures import PIXEL_TASKS
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


@pytest.mark.parametrize(
    ("stage", "model", "device", "resource"),
    [
        ("blur", "", "cuda", "cpu"),
        ("pose", "face_landmarker", "cuda", "cpu"),
        ("pose", "face_mesh", "cuda", "gpu"),
        ("pose", "face_mesh", "cpu", "cpu"),
        ("factors", "factors_mini", "cuda", "gpu"),
    ],
)
def test_what_cannot_use_a_gpu_keeps_its_processes(
    stage: str, model: str, device: str, resource: str, tmp_path: Path
) -> None:
    job = resolve("sample", workspace=tmp_path)
    models = {**job.models, **({stage: load_registry().get(model)} if model else {})}
    job = replace(job, settings=job.settings.model_copy(update={"device": device}), models=models)
    assert PIXEL_TASKS[stage].of(job, 4).resources == {resource: 1}
