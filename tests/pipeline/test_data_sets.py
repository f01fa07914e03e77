"""Other ways in: image folders, class centres from a file, the released recipe."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import save_file

from data_manifests.sample import draw_images
from data_manifests.tables.stages import LABELS
from tests.pipeline.conftest import Factory


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's people as folders, one photo of nobody, and a file that is no image."""
    root = tmp_path_factory.mktemp("people")
    for number, image in enumerate(draw_images()):
        if number % 32 < 4:
            folder = root / "photos" / f"person {image.identity}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:03d}.jpg").write_bytes(image.encoded)
    (root / "photos" / "nobody.jpg").write_bytes(next(draw_images()).encoded)
    (root / "photos" / "person 0" / "broken.png").write_bytes(b"no image")
    (root / "people.toml").write_text(
        'name = "people"\nformat = "image_folder"\nroot = "photos"\npose_model = "fr_pose"\nidentities = 8\n'
    )
    return root / "people.toml"


def test_photos_of_nobody_known_have_every_measure_and_no_quality(sample_weights: None, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for place, image in zip(range(3), draw_images(), strict=False):
        (tmp_path / "photos" / f"{place}.jpg").write_bytes(image.encoded)
    manifest = tmp_path / "nobody.toml"
    manifest.write_text('name = "nobody"\nformat = "image_folder"\nroot = "photos"\npose_model = "fr_pose"\n')
    factory = Factory(workspace=tmp_path / "workspace")
    factory.luigi("LabelAll", "--dataset", str(manifest))
    labels = pl.read_parquet(factory.workspace / "nobody" / "labels" / "current")
    assert labels["status"].cast(pl.String).to_list() == ["no_identity"] * 3
    assert labels["quality"].null_count() == 3
    assert labels["yaw_deg"].null_count() == 0


def test_a_set_in_which_nothing_decodes_is_labelled_with_its_causes(sample_weights: None, tmp_path: Path) -> None:
    for place in range(4):
        folder = tmp_path / "photos" / f"person {place % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{place}.jpg").write_bytes(b"no image")
    manifest = tmp_path / "torn.toml"
    manifest.write_text('name = "torn"\nformat = "image_folder"\nroot = "photos"\npose_model = "fr_pose"\n')
    factory = Factory(workspace=tmp_path / "workspace")
    done = factory.luigi("LabelAll", "--dataset", str(manifest))
    labels = pl.read_parquet(factory.workspace / "torn" / "labels" / "current")
    assert labels["status"].cast(pl.String).to_list() == ["decode_error"] * 4
    assert "4 images could not be read (4 decode_error): keys" in done.stdout


def test_an_image_folder_is_labelled(labelled_sample: Factory, people: Path, tmp_path: Path) -> None:
    factory = type(labelled_sample)(workspace=tmp_path / "workspace")
    factory.luigi("LabelAll", "--dataset", str(people))
    root = factory.workspace / "people"
    labels = pl.read_parquet(root / "labels" / "current")
    index = pl.read_parquet(root / "index" / "current")
    assert index["path"].to_list() == sorted(index["path"].to_list(), key=str.encode)
    status = dict(zip(index["path"], labels["status"].cast(pl.String), strict=True))
    assert status.pop("nobody.jpg") == "no_identity"
    assert status.pop("person 0/broken.png") == "decode_error"
    assert set(status.values()) == {"ok"}
    names = pl.read_parquet(root / "identities" / "current")
    assert names.sort("identity")["name"].to_list() == [f"person {i}" for i in range(8)]
    nobody = labels.filter(labels["identity"] == -1)
    assert nobody["quality"].to_list() == [None]
    assert nobody["norm"].null_count() == 0


def test_labels_are_the_same_from_a_folder_and_from_records(
    labelled_sample: Factory, people: Path, tmp_path: Path
) -> None:
    factory = type(labelled_sample)(workspace=tmp_path / "workspace")
    factory.luigi("BlurAll", "--dataset", str(people))
    index = pl.read_parquet(factory.workspace / "people" / "index" / "current")
    blur = pl.read_parquet(factory.workspace / "people" / "blur" / "current")
    records = pl.read_parquet(labelled_sample.workspace / "sample" / "blur" / "current")
    joined = blur.with_columns(path=index["path"]).filter(pl.col("path").str.contains(r"person \d/\d"))
    keys = joined["path"].str.extract(r"/(\d+)\.jpg").cast(pl.Int32) + 1
    same = records.filter(pl.col("key").is_in(keys.to_list())).sort("key")
    assert joined.with_columns(key=keys).sort("key")["cpbd"].to_list() == same["cpbd"].to_list()


def test_centres_of_a_head(sample_copy: Factory, tmp_path: Path) -> None:
    """A right one is taken, a doubtful one warned of, and one that fits as by chance refused."""
    stages = sample_copy.workspace / "sample"
    before = (stages / "embeddings" / "current").readlink()
    table = pl.read_parquet(stages / "centres" / "current")
    means = np.stack([np.frombuffer(row, np.float32) for row in table["centre"]])
    words = ("--anchors-centres", "head", "--anchors-head", str(tmp_path / "head.npy"))
    np.save(tmp_path / "head.npy", means)
    assert "warning" not in sample_copy.luigi("AnchorsAll", *words).stdout
    doubtful = means[[0, 1, 2, 3, 5, 6, 7, 4]]
    doubtful[0] += means[1] * 2
    np.save(tmp_path / "head.npy", doubtful)
    said = sample_copy.luigi("LabelAll", *words).stdout
    assert re.search(r"warning: only \d+\.\d% of the images are nearest to their own class centre: the rows of /", said)
    anchors = pl.read_parquet(stages / "anchors" / "current")
    assert anchors["ccs"].null_count() == 0
    rng = np.random.default_rng(0)
    for wrong in (rng.normal(size=(8, 512)).astype(np.float32), np.roll(means, 1, axis=0)):
        np.save(tmp_path / "head.npy", wrong)
        done = sample_copy.luigi("LabelAll", *words, check=False)
        assert done.returncode == 30
        assert re.search(
            r"head\.npy: its rows are not the centres of these people: [0-3] of 8 are nearest", done.stderr
        )
        assert "Traceback" not in done.stderr
    assert (stages / "embeddings" / "current").readlink() == before
    np.save(tmp_path / "head.npy", means[:7])
    done = sample_copy.luigi("LabelAll", *words, check=False)
    assert done.returncode == 30
    assert "identity 7 has no class centre" in done.stderr


def test_people_who_are_not_in_a_head_have_all_but_a_quality(sample_copy: Factory, tmp_path: Path) -> None:
    """A head of TrainRecognition names its people; who was held out of that training is not among them."""
    sample = sample_copy.workspace / "sample"
    rows = pl.read_parquet(sample / "embeddings" / "current").join(
        pl.read_parquet(sample / "index" / "current").select("key", "identity"), on="key"
    )
    embeddings = np.stack([np.frombuffer(stored, np.float16).astype(np.float32) for stored in rows["embedding"]])
    people = np.array([0, 1, 2, 4, 5, 7], np.int32)
    vectors = np.stack([embeddings[(rows["identity"] == person).to_numpy()].mean(0) for person in people])
    save_file({"centres": vectors, "identities": people}, tmp_path / "head.safetensors")
    words = ("--anchors-centres", "head", "--anchors-head", str(tmp_path / "head.safetensors"))
    assert "no_centre" in sample_copy.luigi("LabelAll", *words).stdout
    labels = pl.read_parquet(sample_copy.workspace / "sample" / "labels" / "current")
    missing = pl.col("identity").is_in([3, 6])
    left_out, others = labels.filter(missing), labels.filter(~missing)
    assert set(left_out["status"].cast(pl.String)) == {"no_centre"}
    assert set(others["status"].cast(pl.String)) == {"ok"}
    assert len(left_out) > 0
    assert left_out["quality"].null_count() == left_out["ccs"].null_count() == len(left_out)
    assert left_out["norm"].null_count() == left_out["cpbd"].null_count() == 0
    assert others["quality"].null_count() == 0
    save_file({"centres": vectors, "identities": people + 8}, tmp_path / "head.safetensors")
    done = sample_copy.luigi("LabelAll", *words, check=False)
    assert done.returncode == 30
    assert "identity 0 has no class centre; there are 6, from 8 to 15" in done.stderr


def test_a_photo_that_is_there_twice_changes_no_quality(sample_weights: None, tmp_path: Path) -> None:
    photos = [image for place, image in enumerate(draw_images()) if place % 32 < 3][:12]
    qualities = {}
    for name in ("once", "twice"):
        folder = tmp_path / name
        for place, image in enumerate(photos):
            path = folder / str(image.identity) / f"{place:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.encoded)
        (folder / "one").mkdir()
        (folder / "one" / "a.jpg").write_bytes(next(draw_images()).encoded)
        if name == "twice":
            (folder / "0" / "zz.jpg").write_bytes(photos[0].encoded)
            picture = cv2.imdecode(np.frombuffer(photos[4].encoded, np.uint8), cv2.IMREAD_COLOR)
            cv2.imwrite(str(folder / str(photos[4].identity) / "zz.png"), picture)
            (folder / "one" / "b.jpg").write_bytes(next(draw_images()).encoded)
        manifest = tmp_path / f"{name}.toml"
        manifest.write_text(f'name = "{name}"\nformat = "image_folder"\nroot = "{name}"\npose_model = "fr_pose"\n')
        factory = Factory(workspace=tmp_path / "workspace")
        said = factory.luigi("LabelAll", "--dataset", str(manifest), "--report-page", "false").stdout
        root = factory.workspace / name
        paths = pl.read_parquet(root / "index" / "current")["path"]
        labels = pl.read_parquet(root / "labels" / "current").with_columns(path=paths)
        qualities[name] = dict(labels.select("path", pl.struct("quality", "ccs", "nnccs")).iter_rows())
        copies = labels.filter(pl.col("status").cast(pl.String) == "copy")
        assert copies["path"].to_list() == (
            ["0/zz.jpg", f"{photos[4].identity}/zz.png", "one/b.jpg"] * (name == "twice")
        )
        assert ("3 images are copies of another one of their person" in said) is (name == "twice")
        assert labels.filter(path="one/a.jpg")["status"].cast(pl.String).to_list() == ["single_image"]
    assert {path: qualities["twice"][path] for path in qualities["once"]} == qualities["once"]


def test_a_photo_of_two_people_is_told(sample_weights: None, tmp_path: Path) -> None:
    """Byte for byte under two names; the same photo twice under one, or saved anew, is none."""
    for place, image in enumerate(draw_images()):
        if image.identity < 3 and place % 32 < 3:
            path = tmp_path / "photos" / str(image.identity) / f"{place:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.encoded)
    photos = tmp_path / "photos"
    (tmp_path / "set.toml").write_text(
        'name = "set"\nformat = "image_folder"\nroot = "photos"\npose_model = "fr_pose"\n'
    )
    shutil.copy(photos / "0" / "00.jpg", photos / "0" / "a.jpg")
    picture = cv2.imread(str(photos / "1" / "32.jpg"))
    cv2.imwrite(str(photos / "2" / "a.png"), picture)
    factory = Factory(workspace=tmp_path / "workspace")
    assert "under several people" not in factory.luigi("LabelAll", "--dataset", str(tmp_path / "set.toml")).stdout
    shutil.copy(photos / "0" / "01.jpg", photos / "2" / "b.jpg")
    said = factory.luigi("LabelAll", "--dataset", str(tmp_path / "set.toml"), page=True).stdout
    assert "warning: 2 images are photos that stand under several people, byte for byte: keys 2 and 12:" in said
    (page,) = (factory.workspace / "set" / "report").glob("current/index.html")
    assert "stand under several people" in page.read_text()


def test_each_numbered_folder_has_its_row_of_a_head(sample_weights: None, tmp_path: Path) -> None:
    numbers = {0: 0, 1: 1, 2: 10, 3: 2}  # folder by person; no `3` to `9`, so the order of the people is no row
    for place, image in enumerate(draw_images()):
        if image.identity in numbers and place % 32 < 4:
            path = tmp_path / "photos" / str(numbers[image.identity]) / f"{place}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.encoded)
    (tmp_path / "set.toml").write_text('name = "set"\nformat = "image_folder"\nroot = "photos"\n')
    factory = Factory(workspace=tmp_path / "workspace")
    factory.luigi("AnchorsAll", "--dataset", str(tmp_path / "set.toml"))
    root = factory.workspace / "set"
    means = pl.read_parquet(root / "centres" / "current").join(
        pl.read_parquet(root / "identities" / "current"), on="identity"
    )
    assert means["name"].to_list() == ["0", "1", "2", "10"]
    head = np.random.default_rng(0).normal(size=(11, 512)).astype(np.float32)
    for name, centre in means["name", "centre"].iter_rows():
        head[int(name)] = np.frombuffer(centre, np.float32)
    np.save(tmp_path / "head.npy", head)
    words = ("--anchors-centres", "head", "--anchors-head", str(tmp_path / "head.npy"))
    said = factory.luigi("AnchorsAll", "--dataset", str(tmp_path / "set.toml"), *words)
    assert "warning" not in said.stdout
    anchors = pl.read_parquet(root / "anchors" / "current")
    assert (anchors["ccs"] > anchors["nnccs"]).all()


def test_the_head_of_a_checkpoint_is_named_and_checked_before_anything_runs(
    sample_copy: Factory, tmp_path: Path
) -> None:
    table = pl.read_parquet(sample_copy.workspace / "sample" / "centres" / "current")
    head = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    head[:8] = torch.tensor(np.stack([np.frombuffer(row, np.float32) for row in table["centre"]]))
    checkpoint = {"softmax": {"weight": head[:8], "turned": head.T}, "backbone": {"fc": torch.zeros(512, 9)}}
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    words = ("AnchorsAll", "--anchors-centres", "head", "--anchors-head", str(tmp_path / "checkpoint.pt"))
    new = sample_copy.luigi(*words, "--limit", "64", check=False)
    assert "holds 3 matrices with an axis of 512: set [anchors] head_tensor" in new.stderr
    assert not list(sample_copy.workspace.glob("sample-first-64/*/*"))
    choice = ("--anchors-head-tensor", "softmax.turned", "--anchors-head-layout", "dimension_first")
    sample_copy.luigi(*words, *choice)
    made = pl.read_parquet(sample_copy.workspace / "sample" / "centres" / "current")["centre"]
    np.testing.assert_array_equal(np.stack([np.frombuffer(row, np.float32) for row in made]), head.numpy())


def test_the_robust_recipe_measures_blur_and_classifies_and_nothing_else(sample_copy: Factory) -> None:
    folder = sample_copy.workspace / "sample"
    before = sample_copy.files("sample")
    sample_copy.luigi("LabelAll", "--labels-recipe", "robust", page=True)
    made = {Path(name).parts[0] for name in sample_copy.files("sample").keys() - before.keys()}
    assert made == {"blur", "labels"}
    assert {name: content for name, content in sample_copy.files("sample").items() if name in before} == before
    labels = pl.read_parquet(folder / "labels" / "current")
    ratio = labels["edge_ratio"].to_numpy()
    words = np.where(ratio > np.float32(1.28), "clear", np.where(ratio < np.float32(1.15), "hazy", "blurry"))
    assert labels["blur"].to_list() == words.tolist()
    medians = labels.group_by("blur").agg(pl.col("quality").median()).sort("blur")["quality"].to_list()
    assert medians[0] < min(medians[1:])
    again = sample_copy.luigi("LabelAll", "--labels-recipe", "paper")
    assert pl.read_parquet(folder / "labels" / "current").columns == list(LABELS.names)
    (offer,) = [line for line in again.stdout.splitlines() if line.endswith("--labels-recipe robust")]
    assert "nothing would run" in sample_copy.command("plan", *shlex.split(offer.partition(" pipeline ")[2])).stdout


def test_with_the_edge_ratio_measured_before_a_change_of_recipe_is_one_of_the_labels_alone(
    sample_copy: Factory,
) -> None:
    sample_copy.luigi("LabelAll", "--blur-edge-ratio", "true")
    said = sample_copy.command("plan", "LabelAll", "--labels-recipe", "robust").stdout
    assert "1 of 9 stages would run" in said
    sample_copy.luigi("LabelAll", "--labels-recipe", "robust")
    made = [p for p in (sample_copy.workspace / "sample" / "blur").iterdir() if not p.is_symlink()]
    assert len(made) == 2  # with the ratio and without


def test_the_released_recipe(sample_copy: Factory) -> None:
    sample_copy.luigi("LabelAll", "--labels-recipe", "released")
    labels = pl.read_parquet(sample_copy.workspace / "sample" / "labels" / "current")
    sobel, blur = labels["sobel"].to_numpy(), labels["blur"].to_list()
    expected = np.where(sobel >= np.float32(0.7), "clear", np.where(sobel >= np.float32(0.35), "blurry", "hazy"))
    assert blur == expected.tolist()
    plain = labels["ccs"].to_numpy().astype(float) / np.maximum(labels["nnccs"].to_numpy().astype(float), -1e-12)
    order = np.argsort(plain)
    assert (np.diff(labels["quality"].to_numpy()[order]) >= 0).all()
