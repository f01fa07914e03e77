"""Labels and crops in Python are those of the command line, to the last bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import polars as pl
import pytest

import labelers
from data_manifests.recordio.record_file import RecordFile
from data_manifests.weights.files import WeightsUnreachableError, fetch
from data_manifests.weights.registry import RegistryError, load_registry
from labelers.direct import LabelError
from labelers.faces import decode
from labelers.given_images import GivenImagesError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.pipeline.conftest import Factory

NOT_ALONE = {"key", "identity", "ccs", "nnccs", "certainty_ratio", "quality"}
"""Columns of the labels that need other images, or a data set."""


@pytest.fixture(scope="module")
def encoded(labelled_sample: Factory) -> list[bytes]:
    with RecordFile(labelled_sample.workspace / "sample" / "_source" / "train.rec") as records:
        return [stored for _, _, stored in records.images()]


@pytest.fixture(scope="module")
def images(encoded: list[bytes]) -> NDArray[np.uint8]:
    return np.stack([decode(stored) for stored in encoded])


def same(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    """Every value of the columns that both have, bit by bit."""
    for name in wanted.columns:
        ours, theirs = found[name], wanted[name]
        if theirs.dtype == pl.Float32:
            assert ours.to_numpy().tobytes() == theirs.to_numpy().tobytes(), name
        else:
            assert ours.cast(pl.String).to_list() == theirs.cast(pl.String).to_list(), name


def test_labels_of_an_array_are_those_of_label_all(labelled_sample: Factory, images: NDArray[np.uint8]) -> None:
    wanted = pl.read_parquet(labelled_sample.workspace / "sample" / "labels" / "current")
    found = labelers.label(images, pose="fr_pose")
    assert set(found.columns) == set(wanted.columns) - NOT_ALONE
    assert found.columns == [name for name in wanted.columns if name not in NOT_ALONE]
    assert all(found[name].dtype == wanted[name].dtype for name in found.columns if name != "status")
    same(found, wanted.select(found.columns))
    one = labelers.label(images[5], pose="fr_pose")
    same(one, found[5])
    changed = labelers.label(images[:9], pose="fr_pose", blur_hazy=0.6, recognition=None)
    assert "norm" not in changed.columns
    assert set(changed["blur"].filter(changed["cpbd"] < 0.6)) == {"hazy"} != set(found["blur"][:9])


def test_the_robust_recipe_is_that_of_label_all(sample_copy: Factory, images: NDArray[np.uint8]) -> None:
    sample_copy.luigi("LabelAll", "--labels-recipe", "robust")
    wanted = pl.read_parquet(sample_copy.workspace / "sample" / "labels" / "current")
    found = labelers.label(images, pose="fr_pose", recipe="robust")
    assert found.columns == [name for name in wanted.columns if name not in NOT_ALONE]
    same(found, wanted.select(found.columns))
    black = labelers.label(np.zeros((112, 112, 3), np.uint8), pose="fr_pose", recognition=None, recipe="robust")
    assert black["blur"].to_list() == black["edge_ratio"].to_list() == [None]
    assert "no_edges" in black["status"][0]


def test_files_that_are_broken_are_rows_with_a_cause(encoded: list[bytes], tmp_path: Path) -> None:
    for name, content in {"a/1.jpg": encoded[0], "a/2.jpg": b"no", "b.jpg": encoded[1]}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    large = cv2.resize(decode(encoded[2]), (200, 200))
    cv2.imwrite(str(tmp_path / "c.png"), large[:, :, ::-1])
    found = labelers.label(tmp_path, pose="fr_pose", recognition=None)
    assert found["path"].to_list() == ["a/1.jpg", "a/2.jpg", "b.jpg", "c.png"]
    assert found["status"].to_list() == ["ok", "decode_error", "ok", "wrong_size"]
    assert found["cpbd"].is_null().to_list() == found["blur"].is_null().to_list() == [False, True, False, True]
    files = [str(tmp_path / name) for name in ("b.jpg", "a/1.jpg")]
    given = labelers.label(files, pose="fr_pose", recognition=None)
    assert given["path"].to_list() == files
    same(given.drop("path"), found[[2, 0]].drop("path"))


def test_what_is_no_face_or_no_setting_is_named(images: NDArray[np.uint8], tmp_path: Path) -> None:
    with pytest.raises(GivenImagesError, match=r"uint8 \[N, 112, 112, 3\] .* not float64 \[256, 112, 112, 3\]"):
        labelers.label(images / 255)
    with pytest.raises(GivenImagesError, match="no such file or folder: check the path"):
        labelers.label(tmp_path / "gone.jpg")
    with pytest.raises(LabelError, match=r"no setting 'blur_hzy' .did you mean blur_hazy"):
        labelers.label(images, blur_hzy=0.3)
    with pytest.raises(LabelError, match="'x' is none of matlab, python"):
        labelers.label(images, edges="x")
    with pytest.raises(RegistryError, match="did you mean fr_pose"):
        labelers.label(images, pose="fr_pse")
    with pytest.raises(AttributeError, match="has no attribute 'lable'"):
        labelers.lable  # noqa: B018


def test_every_face_of_a_photo_is_aligned_as_align_faces_does(
    labelled_sample: Factory, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    try:
        fetch(load_registry().get("yunet"))
    except WeightsUnreachableError as error:
        pytest.skip(f"the detector cannot be fetched: {error}")
    photo = np.zeros((640, 1000, 3), np.uint8)
    photo[100:500, 60:460] = cv2.resize(images[3], (400, 400))
    photo[150:450, 600:900] = cv2.resize(images[100], (300, 300))
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "two.png"
    cv2.imwrite(str(path), photo[:, :, ::-1])
    faces = labelers.align(path)
    assert len(faces) == 2
    assert faces[0].landmarks[:, 0].max() < 460
    assert faces[1].landmarks[:, 0].min() > 600
    labelled_sample.luigi(
        "AlignFaces", "--source", str(path.parent), "--output", str(tmp_path / "crops"), "--encoding", "png"
    )
    (crop,) = (tmp_path / "crops").rglob("*.png")
    np.testing.assert_array_equal(faces[0].image, decode(crop.read_bytes()))
    np.testing.assert_array_equal(labelers.align(photo)[1].image, faces[1].image)
    assert labelers.align(np.zeros((300, 300, 3), np.uint8)) == []


def test_nothing_is_loaded_before_it_is_used() -> None:
    heavy = ("torch", "onnxruntime", "cv2", "polars", "pydantic")
    script = f"import sys, labelers, training\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"
