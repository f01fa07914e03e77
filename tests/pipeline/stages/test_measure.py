"""Where the stages that measure compute."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from data_manifests.weights.registry import load_registry
from labelers.runtime.device import Device
from pipeline.config.job import resolve
from pipeline.tasks.pixels import PIXEL_TASKS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("stage", "model", "settings", "resource"),
    [
        ("blur", "", {"device": Device.CUDA}, "cpu"),
        ("pose", "face_landmarker", {"device": Device.CUDA}, "cpu"),
        ("pose", "face_mesh", {"device": Device.CUDA}, "gpu"),
        ("pose", "face_mesh", {"device": Device.CPU}, "cpu"),
        ("pose", "face_mesh", {"device": Device.CUDA, "cpu_stages": ("pose",)}, "cpu"),
        ("factors", "factors_mini", {"device": Device.CUDA, "cpu_stages": ("pose",)}, "gpu"),
    ],
)
def test_what_cannot_or_is_not_to_use_a_gpu_keeps_its_processes(
    stage: str, model: str, settings: dict[str, Any], resource: str, tmp_path: Path
) -> None:
    job = resolve("sample", workspace=tmp_path)
    models = {**job.models, **({stage: load_registry().get(model)} if model else {})}
    job = replace(job, settings=job.settings.model_copy(update=settings), models=models)
    assert PIXEL_TASKS[stage].of(job, 4).resources == {resource: 1}
