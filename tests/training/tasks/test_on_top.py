"""TrainOnTop end to end on the sample: the run, its scores from tables and from images, and what goes wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from data_manifests.folds import Fold
from data_manifests.weights.files import find
from data_manifests.weights.registry import load_registry
from training import score, train_on_top
from training.on_top.scorer import load_scorer
from training.on_top.tables import StoredTablesError, open_tables

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.pipeline.conftest import Factory

HELD_OUT = Fold(number=1, folds=4)


@pytest.fixture
def trained(sample_copy: Factory) -> Factory:
    sample_copy.luigi("TrainOnTop", "--held-out", str(HELD_OUT), "--folds", "3")
    return sample_copy


def run_of(factory: Factory) -> Path:
    return factory.workspace / "sample" / "on_top" / "current"


def stage_of(factory: Factory, stage: str) -> Path:
    return (factory.workspace / "sample" / stage / "current").resolve()


def score_by_formula(factory: Factory) -> NDArray[np.float64]:
    table = pl.read_parquet(stage_of(factory, "embeddings")).to_arrow()
    scorer = load_scorer(run_of(factory) / "model.safetensors")
    units = np.array([np.frombuffer(value or bytes(1024), "<f2") for value in table["embedding"].to_pylist()])
    lengths = np.linalg.norm(units.astype(np.float64), axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        quality = units / lengths @ scorer.direction + table["norm"].to_numpy() * scorer.norm + scorer.intercept
    return np.asarray(quality)


def write_another_recogniser(folder: Path) -> None:
    """The sample's recogniser with its colours swapped."""
    entry = load_registry().get("fr_feature")
    (weights,) = find(entry)
    folder.mkdir()
    (folder / "swapped.onnx").write_bytes(weights.read_bytes())
    (folder / "models.toml").write_text(
        '[swapped]\nkind = "recognition"\nversion = 1\nlicence = "as fr_feature"\nbatch = 32\n'
        f'files = [{{ name = "swapped.onnx", bytes = {entry.files[0].bytes}, sources = [] }}]\n'
        'input = { width = 112, height = 112, colour = "rgb", mean = [127, 127, 127], std = [128, 128, 128] }\n'
        'output = { kind = "embedding", dimension = 512 }\n'
    )


@pytest.mark.slow
def test_a_run_tells_how_it_does_on_people_held_out(trained: Factory) -> None:
    run = run_of(trained)
    metrics = json.loads((run / "metrics.json").read_text())
    index = pl.read_parquet(stage_of(trained, "index"))
    ratio = pl.read_parquet(stage_of(trained, "anchors"))["certainty_ratio"]
    held_out = HELD_OUT.holds(index["identity"].to_numpy()) & ratio.is_not_null().to_numpy()
    assert metrics["held_out"]["rows"] == held_out.sum() > 0
    assert metrics["images"] + held_out.sum() == len(ratio) - ratio.null_count()
    told = score_by_formula(trained)[held_out]
    wanted = ratio.to_numpy()[held_out]
    assert metrics["held_out"]["correlation"] == pytest.approx(np.corrcoef(told, wanted)[0, 1], abs=1e-6)
    assert metrics["folds"]["correlation"] > 0.3
    assert "| held out, fold 1/4 |" in (run / "README.md").read_text()

    before = {path.name: path.read_bytes() for path in run.iterdir()}
    again = trained.luigi("TrainOnTop", "--held-out", str(HELD_OUT), "--folds", "3")
    assert "train_on_top" not in again.stderr
    (run / "model.safetensors").unlink()
    trained.luigi("TrainOnTop", "--held-out", str(HELD_OUT), "--folds", "3")
    for name in ("model.safetensors", "quality.onnx", "metrics.json", "README.md"):
        assert (run / name).read_bytes() == before[name], name


@pytest.mark.slow
def test_scores_from_tables_and_from_images_are_the_formula(trained: Factory, tmp_path: Path) -> None:
    run = run_of(trained)
    wanted = score_by_formula(trained)
    words = ("EvaluateQuality", "--benchmarks", "sample", "--fmrs", "0.1", "--replicates", "0", "--no-correlate")
    trained.luigi(*words, "--methods", f"top=on_top:{run}")
    assert not (trained.workspace / "sample" / "quality").exists()
    np.testing.assert_allclose(qualities(trained), wanted, atol=1e-6)

    write_another_recogniser(tmp_path / "models")
    methods = ("--methods", f"top=on_top:{run}", "--recognition", "swapped")
    trained.luigi(*words, *methods, FIQA_MODELS=str(tmp_path / "models"))
    assert (trained.workspace / "sample" / "quality").exists()
    spread = np.nanstd(wanted)
    np.testing.assert_allclose(qualities(trained), wanted, atol=0.02 * spread)  # embeddings are stored in float16

    images, output = trained.workspace / "sample" / "_source" / "train.rec", tmp_path / "scores.parquet"
    assert score.main(["--checkpoint", str(run / "quality.onnx"), "--input", str(images), "--output", str(output)]) == 0
    scores = pl.read_parquet(output)
    np.testing.assert_allclose(scores["quality"].to_numpy(), wanted, atol=0.02 * spread)
    assert scores["q_bad"].null_count() == scores["blur"].null_count() == len(scores)


def qualities(factory: Factory) -> NDArray[np.float64]:
    table = pl.read_parquet(factory.workspace / "evaluation" / "current" / "qualities.parquet")
    assert set(table["method"]) == {"top"}
    return table.sort("key")["quality"].cast(pl.Float64).replace(-np.inf, np.nan).to_numpy()


@pytest.mark.slow
def test_tables_that_do_not_belong_together_are_refused(sample_copy: Factory, tmp_path: Path) -> None:
    folders = {stage: stage_of(sample_copy, stage) for stage in ("index", "embeddings", "anchors")}
    tables = open_tables(**folders)
    units, norms = tables.read_embeddings(0)
    assert units.shape == (len(norms), 512)
    for stage, wrong in (("index", "anchors"), ("embeddings", "index"), ("anchors", "embeddings")):
        with pytest.raises(StoredTablesError, match=f"holds the table {wrong}: name the folder of `{stage}`"):
            open_tables(**{**folders, stage: folders[wrong]})
    with pytest.raises(StoredTablesError, match="holds no table: run AnchorsAll"):
        open_tables(**{**folders, "index": tmp_path})
    sample_copy.luigi("AnchorsAll", "--limit", "200")
    fewer = (sample_copy.workspace / "sample-first-200" / "anchors" / "current").resolve()
    with pytest.raises(StoredTablesError, match=r"was not made from .*index"):
        open_tables(**{**folders, "anchors": fewer})


@pytest.mark.slow
def test_another_network_of_the_recogniser_s_name_is_an_error(
    sample_copy: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    write_another_recogniser(models)
    monkeypatch.setenv("FIQA_MODELS", str(models))
    sample_copy.luigi("AnchorsAll", "--models-recognition", "swapped")
    entry = (models / "models.toml").read_text()
    (models / "models.toml").write_text(entry.replace("version = 1", "version = 2"))
    words = [f"--{stage}={stage_of(sample_copy, stage)}" for stage in ("index", "embeddings", "anchors")]
    assert train_on_top.main([*words, "--output", str(tmp_path / "run")]) == 1
    assert "swapped: the network of this name in models.toml is not the one" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model.safetensors").exists()
