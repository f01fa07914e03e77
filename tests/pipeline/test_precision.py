"""The setting `[models] precision`, from the command line to the bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from labelers.runtime import precision as module
from labelers.runtime.device import Device, ProviderError
from labelers.runtime.precision import Precision, check_processor
from pipeline.commands.doctor.command import Verdict, check_precision
from pipeline.config.catalogue import Inputs, build_stages
from pipeline.config.job import require_device, resolve
from tests.pipeline.conftest import Factory

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.job import Job
    from pipeline.storage.fingerprint import StageSpec

NETWORKS = {"pose", "factors", "embeddings"}


def stages_in(job: Job, precision: Precision, **settings_too: object) -> dict[str, StageSpec]:
    """The stages of a job in another precision."""
    settings = job.settings.model_copy(update={"precision": precision, **settings_too})
    hashes = {name: value for stage in job.stages.values() for name, value in stage.weights.items()}
    index = job.stages["index"]
    return build_stages(
        Inputs(
            data=index.data,
            layout=index.parameters["layout"],
            limit=job.limit,
            settings=settings,
            models=job.models,
            hashes=hashes,
        )
    )


def test_float32_is_in_no_fingerprint_and_others_are(tmp_path: Path, sample_weights: None) -> None:
    job = resolve("sample", workspace=tmp_path)
    assert stages_in(job, Precision.FLOAT32) == dict(job.stages)
    for name in NETWORKS:
        assert set(job.stages[name].parameters) == {"model", "entry", "batch"}
    prints = {p: {s.name: s.fingerprint for s in stages_in(job, p).values()} for p in Precision}
    for name in NETWORKS | {"centres", "anchors", "anchor_range", "labels"}:
        assert len({prints[p][name] for p in Precision}) == len(Precision)
    for name in ("index", "blur"):
        assert len({prints[p][name] for p in Precision}) == 1


def test_a_stage_that_stays_on_the_processor_computes_in_float32(tmp_path: Path, sample_weights: None) -> None:
    job = resolve("sample", workspace=tmp_path)
    stages = stages_in(job, Precision.FLOAT16, device=Device.CUDA, cpu_stages=("pose",))
    assert stages["pose"] == job.stages["pose"]
    assert stages["embeddings"].parameters["precision"] == Precision.FLOAT16


def test_gpus_on_the_command_line_bring_their_device(labelled_sample: Factory) -> None:
    words = ("EmbeddingsAll", "--models-precision", "float16")
    without = labelled_sample.luigi(*words, check=False)
    assert "precision: float16 is for device = cuda, not cpu" in without.stderr
    assert "asked for 99 GPU(s)" in labelled_sample.luigi(*words, "--gpus", "99", check=False).stderr


def test_the_command_line_and_a_file_of_settings_name_it(labelled_sample: Factory, tmp_path: Path) -> None:
    settings = tmp_path / "mine.cfg"
    settings.write_text("[models]\nprecision = bfloat16\n")
    by_file = labelled_sample.command("plan", "LabelAll", LUIGI_CONFIG_PATH=str(settings)).stdout
    by_word = labelled_sample.command("plan", "LabelAll", "--models-precision", "bfloat16").stdout
    for said in (by_file, by_word):
        assert said.count("parameters.precision: (none) -> bfloat16") == len(NETWORKS)
    back = labelled_sample.command("plan", "LabelAll", "--models-precision", "float32", LUIGI_CONFIG_PATH=str(settings))
    assert "nothing would run" in back.stdout


def test_a_processor_without_the_instructions_is_told_before_anything_runs(
    tmp_path: Path, sample_weights: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu avx2\n")
    monkeypatch.setattr(module, "PROCESSOR", tmp_path / "cpuinfo")
    job = resolve("sample", workspace=tmp_path)
    require_device(job)
    assert [finding.verdict for finding in check_precision(job)] == [Verdict.OK]
    job = replace(job, settings=job.settings.model_copy(update={"precision": Precision.BFLOAT16}))
    with pytest.raises(ProviderError, match="AVX512_BF16"):
        require_device(job)
    (finding,) = check_precision(job)
    assert finding.verdict is Verdict.BAD
    assert "precision = float32" in finding.text
    # The processors that count are then those of Dask's workers, who look when they open the network.
    job = replace(job, settings=job.settings.model_copy(update={"dask": "tcp://host:8786"}))
    require_device(job)


def test_bfloat16_gives_the_same_bytes_in_any_process(labelled_sample: Factory, tmp_path: Path) -> None:
    try:
        check_processor(Precision.BFLOAT16)
    except ProviderError as error:
        pytest.skip(str(error))
    made = []
    for workers in ("1", "2"):
        factory = Factory(workspace=tmp_path / workers)
        factory.luigi("EmbeddingsAll", "--models-precision", "bfloat16", "--workers", workers)
        made.append(factory.files("sample", "embeddings"))
    assert made[0] == made[1]
    assert made[0].keys() != labelled_sample.files("sample", "embeddings").keys()  # another fingerprint
