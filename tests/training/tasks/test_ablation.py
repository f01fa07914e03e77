"""Rows of CLIB-FIQA's Table 4: what is switched in each, and a real run of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from data_manifests.tables.stages import Factor
from labelers.runtime import device
from labelers.runtime.device import VISIBLE, ProviderError
from pipeline.config.job import JobError
from pipeline.tasks.ablation import ROWS, Ablation, AblationError, choose_rows
from pipeline.tasks.training import run_training
from training.quality.config import Score
from training.quality.settings import make_config

if TYPE_CHECKING:
    from pathlib import Path

    from tests.pipeline.conftest import Factory

TABLE_4 = [
    (True, (), False, False),
    (False, ("pose", "blur", "lighting", "expression", "occlusion"), True, False),
    (True, ("pose",), False, False),
    (True, ("pose", "blur"), False, False),
    (True, ("pose", "blur", "lighting"), False, False),
    (True, ("pose", "blur", "lighting", "expression"), False, False),
    (True, ("pose", "blur", "lighting", "expression", "occlusion"), False, False),
    (True, ("pose", "blur", "lighting", "expression", "occlusion"), False, True),
]
"""CLIB-FIQA's Table 4 from the first row to the last: NQF, factors, M-F, CC."""


def test_rows_are_those_of_the_paper() -> None:
    found = []
    for changes in ROWS.values():
        terms = make_config(changes).terms
        found.append((terms.quality, set(terms.factors), terms.score is Score.MERGED, terms.confidence))
    assert found == [(q, {Factor(name) for name in factors}, mf, cc) for q, factors, mf, cc in TABLE_4]


def test_betas_become_rows_of_their_own() -> None:
    assert choose_rows("none", "8, 25.0") == {"beta-8": {"beta": 8.0}, "beta-25": {"beta": 25.0}}
    assert list(choose_rows("calibrated,nqf", "16")) == ["calibrated", "nqf", "beta-16"]


@pytest.mark.parametrize(
    ("rows", "betas", "message"),
    [("nqq", "", "no row 'nqq'; there are nqf"), ("nqf", "0", "'0' is not a number above 0"),
     ("nqf", "x", "'x' is not"), ("none", "inf", "'inf' is not"), ("none", "", "name --rows or --betas")],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_named(rows: str, betas: str, message: str) -> None:
    with pytest.raises(AblationError, match=message):
        choose_rows(rows, betas)


def ablation(workspace: Path, **settings: object) -> Ablation:
    return Ablation(dataset="sample", benchmarks="sample", workspace=str(workspace), **settings)


def test_rows_are_shared_out_among_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    """Rows on different GPUs may run at once: Luigi gives a resource that is not set to one task at a time."""
    found = ablation(tmp_path, rows="nqf,merged,calibrated", device="cuda", gpus=2).requires()
    assert [row.resources for row in found] == [{"gpu0": 1}, {"gpu1": 1}, {"gpu0": 1}]
    monkeypatch.setenv(VISIBLE, "7,GPU-5e,1")
    monkeypatch.setattr(device, "_count_gpus", lambda: 3)
    (tmp_path / "tell.py").write_text(
        "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['LOCAL_WORLD_SIZE'])"
    )
    monkeypatch.chdir(tmp_path)
    for row in found:
        run_training("tell", [], row.launch)
    assert capfd.readouterr().out.splitlines() == ["7 2", "GPU-5e 2", "7 2"]
    monkeypatch.setattr(device, "_count_gpus", lambda: 1)
    with pytest.raises(ProviderError, match=r"asked for 2 GPU\(s\), and CUDA shows 1"):
        _ = found[0].launch


@pytest.mark.parametrize(
    ("settings", "resources", "processes"),
    [({"rows": "nqf", "device": "cuda", "gpus": 2}, {"gpu": 1}, 2),
     ({"rows": "nqf,merged", "device": "cpu", "gpus": 2}, {"cpu": 1}, 2),
     ({"rows": "nqf,merged", "device": "cuda"}, {"gpu": 1}, 0)],
)  # fmt: skip
def test_other_rows_take_the_whole_device(
    tmp_path: Path, settings: dict[str, object], resources: dict[str, int], processes: int
) -> None:
    for row in ablation(tmp_path, **settings).requires():
        assert row.resources == resources
        assert row.launch.processes == processes
        assert not row.launch.environment


def test_no_number_of_gpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="--gpus -2: give a number of GPUs"):
        ablation(tmp_path, rows="nqf,merged", device="cuda", gpus=-2).requires()


def test_where_a_row_is_trained_does_not_decide_its_run(tmp_path: Path) -> None:
    here, there = (
        ablation(tmp_path, rows="nqf,merged", **settings).requires() for settings in ({}, {"device": "cuda", "gpus": 2})
    )
    assert [row.spec.fingerprint for row in here] == [row.spec.fingerprint for row in there]


def test_gpus_that_stay_idle_or_are_not_there_are_told(sample_copy: Factory) -> None:
    words = ("Ablation", "--benchmarks", "sample", "--rows", "nqf,merged", "--device", "cuda", "--gpus", "2")
    done = sample_copy.luigi(*words, check=False, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 30
    assert done.stderr.count("2 rows can train at once, but only 1 do: give --workers 2") == 1
    assert done.stderr.count("TrainRow failed: asked for 2 GPU(s), and CUDA shows 0 here") == 2


@pytest.mark.slow
def test_two_rows_are_trained_and_judged(sample_copy: Factory) -> None:
    words = ["Ablation", "--benchmarks", "sample", "--rows", "nqf,calibrated", "--tower", "test-vit"]
    words += ["--pretrained", "none", "--epochs-one", "1", "--epochs-two", "1", "--batch-size", "64", "--threads", "1"]
    sample_copy.luigi(*words)
    metrics = pl.read_parquet(sample_copy.workspace / "evaluation" / "current" / "metrics.parquet")
    assert {"nqf", "calibrated", "norm", "random", "floor"} == set(metrics["method"].cast(pl.String))
    runs = sorted((sample_copy.workspace / "sample" / "quality_model").glob("*/model.safetensors"))
    assert len(runs) == 2
    before = [path.stat().st_mtime_ns for path in runs]
    sample_copy.luigi(*words)
    assert [path.stat().st_mtime_ns for path in runs] == before
