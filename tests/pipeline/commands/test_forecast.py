"""What a run would cost, judged by the receipts of the labelled sample; the figures of receipts themselves."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from data_manifests.storage.environment import memory_bytes, peak_bytes
from pipeline.commands.costs import cost_table, describe_memory, sum_costs, trial_command
from pipeline.config.job import resolve
from pipeline.stages.forecast import Forecast, Run, forecast, sum_seconds
from tests.pipeline.shown import job_of

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.job import Job
    from tests.pipeline.conftest import Factory

BY_IMAGE = ("index", "blur", "pose", "factors", "embeddings", "labels")


def limited(factory: Factory, limit: int) -> Job:
    job_of(factory)  # it points FIQA_WORKSPACE at the factory's
    return resolve("sample", workspace=factory.workspace, limit=limit)


def receipts(factory: Factory, stage: str) -> list[dict[str, Any]]:
    found = sorted((factory.workspace / "sample" / "_receipts" / stage).glob("*/run-*.json"))
    return [json.loads(path.read_text()) for path in found]


def change_receipts(factory: Factory, **values: object) -> None:
    for path in factory.workspace.glob("sample/_receipts/*/*/run-*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_stages_are_judged_by_a_run_of_another_number_of_images(
    labelled_sample: Factory, workspace_variable: None
) -> None:
    job = limited(labelled_sample, 100)
    found = {entry.stage: entry for entry in forecast(job, job.stages.values())}
    assert list(found) == list(job.stages)
    for stage in BY_IMAGE:
        (receipt,) = receipts(labelled_sample, stage)
        run = found[stage].run
        assert run is not None
        assert found[stage].images == 100
        assert 0 <= receipt["start_rows"] <= 256
        start, first = (receipt["start_seconds"], receipt["start_rows"]) if receipt["start_rows"] < 256 else (0, 0)
        expected = start + (receipt["wall_seconds"] - start) * 100 / (256 - first)
        assert found[stage].seconds == pytest.approx(expected)
        (shard,) = (labelled_sample.workspace / "sample" / stage / receipt["fingerprint"]).glob("*.parquet")
        assert found[stage].disk_bytes == pytest.approx(shard.stat().st_size * 100 / 256)
        assert found[stage].memory_bytes == receipt["processes"] * receipt["peak_process_bytes"]
    assert found["centres"].seconds > 0
    assert sum_seconds(job, job.stages.values()) == (
        pytest.approx(sum(entry.seconds for entry in found.values())), " (anchors not counted)",
    )  # fmt: skip
    # Its centres are the means of as many people as there are: eight do not tell what others cost.
    assert found["anchors"].run is None


def test_the_start_counts_once(sample_copy: Factory, workspace_variable: None) -> None:
    """Ten seconds until the first 128 of 256 images were done, and two for the others."""
    change_receipts(sample_copy, wall_seconds=12.0, start_seconds=10.0, start_rows=128)
    job = limited(sample_copy, 100)
    found = {entry.stage: entry for entry in forecast(job, job.stages.values())}
    assert found["pose"].seconds == pytest.approx(10 + 100 * 2 / 128)
    said = sample_copy.luigi("BlurAll", "--limit", "100").stderr
    assert "2 of 2 stages to make: index, blur; about 23 s of computing by earlier runs\n" in said


def test_a_stage_that_is_there_costs_nothing(labelled_sample: Factory, workspace_variable: None) -> None:
    job = job_of(labelled_sample)
    assert forecast(job, job.stages.values()) == []


def test_a_receipt_holds_what_its_processes_held(labelled_sample: Factory) -> None:
    for stage in (*BY_IMAGE, "anchors"):
        (receipt,) = receipts(labelled_sample, stage)
        assert 5e7 < receipt["peak_process_bytes"] < 3e9
        assert (receipt["processes"], receipt["gpus"], receipt["cluster"]) == (1, 0, "")


@pytest.mark.parametrize(
    "values",
    [
        {"machine": {"processor": "another", "architecture": "x86_64", "cores": 2}},
        {"gpus": 1},
        {"cluster": "tcp://host:8786"},
        {"rows_computed": 0},
    ],
)
def test_runs_elsewhere_tell_nothing(values: dict[str, object], sample_copy: Factory, workspace_variable: None) -> None:
    change_receipts(sample_copy, **values)
    job = limited(sample_copy, 100)
    assert all(entry.run is None for entry in forecast(job, job.stages.values()))


def test_other_settings_tell_nothing_and_shards_that_are_there_are_not_made_again(
    sample_copy: Factory, workspace_variable: None
) -> None:
    said = sample_copy.command("plan", "LabelAll", "--limit", "100", "--models-pose", "fsanet", "--blur-edges=python")
    rows = dict(re.findall(r"│ (\w+) +│ +100 │ +([\d,]+) │", said.stdout))
    assert "factors" in rows
    assert {"pose", "blur"}.isdisjoint(rows)
    # The second shard of a stage of two is gone: the images of the first are done.
    job = job_of(sample_copy)
    spec = job.stages["factors"]
    table = job.store.read(spec, 0)
    job.store.shard(spec, 0).unlink()
    job.store.write_shard(spec, 1, table, 2)
    larger = replace(job, manifest=job.manifest.model_copy(update={"images": 1000}))
    (entry,) = forecast(larger, [spec])
    assert (entry.images, entry.run.images if entry.run else 0) == (1000 - 256, 256)


def test_plan_and_doctor_tell_the_costs(labelled_sample: Factory) -> None:
    said = labelled_sample.command("plan", "LabelAll", "--limit", "100").stdout
    assert re.search(r"│ pose +│ +100 │ +\d+ │ +[\d.]+ s │ +[\d.]+ kB │ +[\d.]+ MB │ 256 images, 1 process │", said)
    assert re.search(
        r"^about [\d.]+ s of computing, [\d.]+ kB of disk \([\d.]+ [GT]B free\) and [\d.]+ MB of memory \(", said, re.M
    )
    assert "anchors come on top" in said
    assert said.rstrip().endswith("9 of 9 stages would run, and then the page would be drawn")
    nothing = labelled_sample.command("plan", "LabelAll").stdout
    assert "about" not in nothing
    assert " costs " not in labelled_sample.command("doctor").stdout
    # Seconds need no trial run.
    assert " costs " not in labelled_sample.command("doctor", "--labels-blur-hazy", "0.31").stdout


def test_without_a_receipt_the_command_that_makes_one_is_named(
    labelled_sample: Factory, tmp_path: Path, workspace_variable: None
) -> None:
    """A data set of which its manifest says that it is large; the sample's own files stand for it."""
    source = tmp_path / "large"
    shutil.copytree(labelled_sample.workspace / "sample" / "_source", source)
    manifest = tmp_path / "large.toml"
    manifest.write_text(f'name = "large"\nformat = "recordio"\nroot = "{source}"\nimages = 5000000\n')
    said = labelled_sample.command("plan", "PoseAll", "--dataset", str(manifest), "--models-pose", "fr_pose").stdout
    limit = 1024 * max(2, os.cpu_count() or 1)
    assert (
        "what index, pose would cost is not known; this would tell: luigi --module pipeline PoseAll "
        f"--dataset {manifest} --models-pose fr_pose --limit {limit} --workers {os.cpu_count()}\n"
    ) in said
    job = limited(labelled_sample, 7)
    assert trial_command(job, "BlurAll") == (
        f"luigi --module pipeline BlurAll --dataset sample --limit {limit} --workers {os.cpu_count()}"
    )


def test_a_file_larger_than_the_memory_is_told_in_one_line(labelled_sample: Factory, workspace_variable: None) -> None:
    gb = 10**9
    assert describe_memory("train.rec", 22 * gb, 64 * gb, 8 * gb) == ""
    line = describe_memory("train.rec", 24 * gb, 25 * gb, 2 * gb)
    assert line.startswith("train.rec has 24.0 GB, but a run leaves 23.0 GB of memory: labelling reads it from front")
    assert "\n" not in line
    run = Run(images=10, start=0.0, seconds_an_image=0.1, bytes_an_image=5.0, processes=2, peak_bytes=memory_bytes())
    job = limited(labelled_sample, 100)
    lines = sum_costs(job, [Forecast(stage="pose", images=100, run=run)], "PoseAll")
    assert lines[0].startswith("about 10 s of computing, 500 B of disk (")
    assert "train.rec has" in lines[-1]
    assert cost_table([Forecast(stage="pose", images=100, run=run)]).row_count == 1


def test_memory_is_that_of_this_process() -> None:
    before = peak_bytes()
    assert 10**7 < before < memory_bytes()
    held = bytearray(300 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    assert peak_bytes() >= before
    assert peak_bytes() >= 300 * 2**20
