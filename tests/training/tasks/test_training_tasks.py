"""The training tasks end to end: what they make can be used, and they run again only when something changed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import cv2
import numpy as np
import polars as pl
import pytest

from data_manifests.folds import fold_of
from data_manifests.sample import draw_images, make_sample
from labelers.faces import decode
from pipeline.tasks.recognition import TrainRecognition
from pipeline.tasks.training import TrainFactorNet, TrainQuality
from tests.pipeline.conftest import Factory
from tests.pipeline.shown import facts_of, read_current

if TYPE_CHECKING:
    from pathlib import Path

FACES = 12


def write_wider(root: Path) -> Path:
    """The sample's faces in WIDER FACE's layout, every second one covered by a box, with a manifest."""
    faces = [decode(image.encoded) for image in draw_images() if not image.damages][:FACES]
    (root / "wider_face_split").mkdir(parents=True)
    for split in ("train", "val"):
        lines = []
        folder = root / f"WIDER_{split}" / "images" / "0--Sample"
        folder.mkdir(parents=True)
        for number, face in enumerate(faces):
            covered = number % 2
            image = np.pad(face, ((20, 20), (20, 20), (0, 0)))
            if covered:
                image[60:130, 30:122] = 255
            cv2.imwrite(str(folder / f"{number}.jpg"), image[:, :, ::-1])
            lines += [f"0--Sample/{number}.jpg", "1", f"28 24 96 104 0 {covered} {covered} 0 {2 * covered} 0 "]
        (root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    manifest = root.parent / "wider.toml"
    manifest.write_text(f'name = "wider"\nformat = "wider_face"\nroot = "{root}"\n')
    return manifest


def test_a_factor_network_is_trained_and_labels_with_it(
    sample_copy: Factory, tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_wider(tmp_path / "wider")
    monkeypatch.setenv("FIQA_MODELS", str(real_data / "models"))  # of the face detector
    words = ("TrainFactorNet", "--dataset", str(manifest), "--epochs", "2", "--name", "factors_tiny")
    sample_copy.luigi(*words)
    folder = sample_copy.workspace / "wider" / "factor_net" / "current"
    assert json.loads((folder / "metrics.json").read_text())["data"]["train"]["aligned_by_landmarks"] >= FACES // 2
    assert {"factors_tiny.onnx", "models.toml", "metrics.json"} <= {p.name for p in folder.iterdir()}
    before = (folder / "factors_tiny.onnx").stat().st_mtime_ns
    sample_copy.luigi(*words)
    assert (folder / "factors_tiny.onnx").stat().st_mtime_ns == before
    link = sample_copy.workspace / "sample" / "factors" / "current"
    old = link.readlink()
    words = ("--models-factors", "factors_tiny")
    sample_copy.luigi("LabelAll", *words, "--report-page", "false", FIQA_MODELS=str(folder))
    assert link.readlink() != old
    assert pl.read_parquet(link)["p_obstructed"].null_count() == 0
    told = sample_copy.command("explain", "1", *words, FIQA_MODELS=str(folder)).stdout
    assert "was moved to 0.5" in told


def test_a_factor_network_is_trained_where_it_is_asked_for(tmp_path: Path) -> None:
    settings = {"dataset": str(write_wider(tmp_path / "wider")), "workspace": str(tmp_path / "workspace")}
    here, there = (TrainFactorNet(device=device, **settings) for device in ("cpu", "cuda"))
    assert (here.resources, there.resources) == ({"cpu": 1}, {"gpu": 1})
    assert here.spec.fingerprint == there.spec.fingerprint
    boxes = TrainFactorNet(align=False, **settings)
    assert boxes.spec.fingerprint != here.spec.fingerprint
    assert [[task.model for task in training.requires()] for training in (here, boxes)] == [["yunet"], []]
    words = ("TrainFactorNet", "--dataset", settings["dataset"], "--device", "cuda", "--align", "false")
    done = Factory(workspace=tmp_path / "workspace").luigi(*words, check=False, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 30
    assert "error: PyTorch finds no GPU" in done.stderr


def test_a_training_without_data_says_what_to_get(tmp_path: Path) -> None:
    done = Factory(workspace=tmp_path / "workspace").luigi("TrainFactorNet", check=False, FIQA_DATA=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: the data set wider_face")
    assert "Traceback" not in done.stderr


def test_a_training_that_cannot_begin_is_tried_once(sample_copy: Factory) -> None:
    """Its time stands in `status`, and the run is not finished."""
    words = ("TrainQuality", "--tower", "test-vit", "--pretrained", "nix.pt")
    done = sample_copy.luigi(*words, check=False)
    assert done.returncode == 30
    assert done.stderr.count("'nix.pt' is neither a file nor weights of the tower 'test-vit'") == 1
    (receipts,) = (sample_copy.workspace / "sample" / "_receipts" / "quality_model").iterdir()
    (run,) = receipts.glob("run-*.json")
    assert json.loads(run.read_text())["wall_seconds"] > 0
    assert "quality_model  not finished" in sample_copy.command("status").stdout


RECIPE = """
beta = 16   # of the soft mapping
held_out = "0/20"
factors = ["blur", "pose"]
[rules]
schedule = "released"
"""
SAME_RECIPE = """
factors = "pose, blur"
rules = { mapping = "paper", schedule = "released" }
held_out = "0/20"
beta = 16.0
epochs_one = 5
threads = 1
"""


def test_a_training_is_known_by_its_settings_however_they_are_written(tmp_path: Path) -> None:
    one, same = tmp_path / "one.toml", tmp_path / "same.toml"
    one.write_text(RECIPE)
    same.write_text(SAME_RECIPE)

    def name(**settings: object) -> str:
        return TrainQuality(dataset="sample", workspace=str(tmp_path), **settings).spec.fingerprint

    assert name() == name(config="recipes/clib_paper.toml") == name(recipe="paper", beta=32.0, checkpoint_every=7)
    assert name(recipe="released") == name(config="recipes/clib_released.toml") != name()
    assert name(config=str(one)) == name(config=str(same)) == name(config=str(one), compiled="default") != name()
    assert name(config=str(one), beta=32.0) == name(config=str(same), beta=32.0) != name(config=str(one))
    assert TrainQuality(dataset="sample", workspace=str(tmp_path)).spec.parameters["options"] == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--config", "one.toml"), "one.toml is wrong: there is no field `epoch_one` (did you mean epochs_one?)"),
        (("--config", "nix.toml"), "nix.toml cannot be read"),
        (("--batch-size", "many"), "--batch-size many: a whole number is expected"),
        (("--batch-size", "0"), "batch must be at least 1"),
        (("--held-out", "5/5"), "there is no fold 5/5"),
        (("--factors", "none"), "the confidence compares quality with factors"),
        (("--compiled", "fast"), "--compiled fast: one of auto, no, default, reduce-overhead is expected"),
    ],
)
def test_a_wrong_setting_of_a_training_is_told_before_anything_is_labelled(
    tmp_path: Path, words: tuple[str, str], said: str
) -> None:
    (tmp_path / "one.toml").write_text("epoch_one = 3\n")
    words = (words[0], words[1].replace("one.toml", str(tmp_path / "one.toml")))
    done = Factory(workspace=tmp_path / "workspace").luigi("TrainQuality", *words, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_quality_model_is_trained_from_the_labels(sample_copy: Factory) -> None:
    words = ["TrainQuality", "--tower", "test-vit", "--pretrained", "none"]
    words += ["--epochs-one", "1", "--epochs-two", "1", "--batch-size", "64", "--threads", "1", "--held-out", "0/2"]
    words += ["--warm-up", "0.2"]
    done = sample_copy.luigi(*words)
    assert "next to nothing was learned: over 128 of the images that were learned from" in done.stderr
    run = sample_copy.workspace / "sample" / "quality_model" / "current"
    assert (run / "model.safetensors").is_file()
    confidence = pl.read_parquet(sorted(run.rglob("*.parquet")))
    assert confidence.columns == ["key", "js", "confidence", "status"]
    assert confidence["confidence"].drop_nulls().is_between(0.5, 1.0).all()
    look = next(line for line in done.stdout.splitlines() if "whose factors fit their quality least" in line)
    sample_copy.luigi(*look.partition("--module pipeline ")[2].split())
    page = read_current(sample_copy)
    (least,) = [part for part in page.section("suspects").all("h3") if part.text.startswith("Least confidence")]
    assert f" {confidence['confidence'].count() // 20} images" in least.text
    title = "Least confidence after a training"
    (grid,) = [ul for ul in page.tree.all("ul") if ul.attributes.get("aria-label") == title]
    ordered = confidence.drop_nulls("confidence").sort("confidence", "key")["key"].to_list()
    assert int(facts_of(grid.all("button")[0])["image"]) == ordered[0]
    labels = pl.read_parquet(sample_copy.workspace / "sample" / "labels" / "current").sort("key")
    assert confidence["key"].equals(labels["key"])
    held = fold_of(labels["identity"].to_numpy(), 2) == 0
    assert confidence["status"].to_list() == ["held_out" if away else "ok" for away in held]
    assert json.loads((run / "metrics.json").read_text())["end"]["images"] == held.sum() == 128
    before = (run / "model.safetensors").stat().st_mtime_ns
    sample_copy.luigi(*words)
    assert (run / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_from_images_to_evaluated_qualities_by_one_command(sample_copy: Factory, tmp_path: Path) -> None:
    recognition, quality = tmp_path / "recognition.toml", tmp_path / "quality.toml"
    recognition.write_text('backbone = "mobilefacenet_small"\nsteps = 3\ndrops = [2]\nbatch_size = 16\n')
    quality.write_text('tower = "test-vit"\npretrained = "none"\nepochs_one = 1\nepochs_two = 1\nbatch_size = 64\n')
    words = ["TrainAll", "--dataset", "sample", "--benchmarks", "sample", "--recognition-config", str(recognition)]
    # A task that asks for others in a process of its own knows the settings of the command line too.
    words += ["--quality-config", str(quality), "--workers", "2", "--labels-worse-probability", "0.5000001"]
    words += ["--report-page", "false"]
    stages = ("embeddings", "centres", "anchors", "labels", "blur", "pose", "factors")
    links = {name: sample_copy.workspace / "sample" / name / "current" for name in stages}
    old = {name: link.readlink() for name, link in links.items()}
    done = sample_copy.luigi(*words)
    folder = sample_copy.workspace / "evaluation" / "current"
    metrics = pl.read_parquet(folder / "metrics.parquet")
    assert {"clib_fiqa", "cr_fiqa", "on_top", "norm", "sobel", "random"} <= set(metrics["method"].unique())
    assert metrics["recogniser"].unique().to_list() == ["cr_fiqa"]
    assert (metrics.filter(pl.col("method") == "cr_fiqa")["status"] == "ok").any()
    assert str(folder.resolve()) in done.stdout
    for method in ("clib_fiqa", "cr_fiqa", "on_top"):  # the benchmark is what they learned from
        assert re.search(f"warning: {method} was trained on .*: sample .256 of 256 images.", done.stdout)
    again = sample_copy.luigi(*words)
    assert "nothing to do" in again.stdout
    assert str(folder.resolve()) in again.stdout
    # The recogniser changes what rests on it and nothing else, and its head holds the data set's people.
    run = sample_copy.workspace / "sample" / "recogniser" / "current"
    assert {"cr_fiqa.onnx", "models.toml", "head.safetensors", "quality.onnx"} <= {p.name for p in run.iterdir()}
    assert [name for name, link in links.items() if link.readlink() != old[name]] == list(stages[:4])
    labels, centres = (pl.read_parquet(links[name]) for name in ("labels", "centres"))
    assert labels["ccs"].null_count() == 0
    assert centres["identity"].to_list() == sorted(labels["identity"].unique().to_list())
    # The same in the words of the settings.
    words = ["LabelAll", "--labels-worse-probability", "0.5000001", "--models-recognition", str(run)]
    assert "nothing to do" in sample_copy.luigi(*words, "--anchors-centres", "head").stdout


def test_a_recogniser_needs_people(tmp_path: Path) -> None:
    words = ("TrainRecognition", "--dataset", str(write_wider(tmp_path / "wider")))
    done = Factory(workspace=tmp_path / "workspace").luigi(*words, check=False)
    assert done.returncode
    assert "images with people are needed, recordio or image_folder" in done.stderr
    make_sample(tmp_path / "faces")
    manifest = tmp_path / "faces.toml"
    manifest.write_text(f'name = "faces"\nformat = "recordio"\nroot = "{tmp_path / "faces"}"\n')
    settings = {"dataset": str(manifest), "workspace": str(tmp_path / "workspace")}
    here, there = (TrainRecognition(device=device, **settings) for device in ("cpu", "cuda"))
    assert (here.resources, there.resources) == ({"cpu": 1}, {"gpu": 1})
    assert here.spec.fingerprint == there.spec.fingerprint
    assert TrainRecognition(drops=(5, 6), **settings).spec.fingerprint != here.spec.fingerprint
