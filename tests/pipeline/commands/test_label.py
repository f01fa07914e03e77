"""`fiqa label`: photos and aligned faces become labels and a page by one command; what is misspelt is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import polars as pl
import pytest

from data_manifests.manifest import load_manifest
from data_manifests.sample import draw_images
from data_manifests.weights.files import WeightsUnreachableError, fetch
from data_manifests.weights.registry import load_registry
from labelers.faces import decode
from pipeline.commands.label import find_unaligned
from pipeline.config.job import load_data_set
from tests.pipeline.conftest import ROOT, Factory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POSE = ("--models-pose", "fr_pose")


def fiqa(factory: Factory, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("fiqa")), *words]
    return subprocess.run(command, cwd=ROOT, env=factory.environment(), capture_output=True, text=True, check=False)


def enlarge(face: NDArray[np.uint8]) -> bytes:
    """A photo of a face with something around it."""
    photo = cv2.copyMakeBorder(cv2.resize(face, (300, 300)), 150, 200, 100, 300, cv2.BORDER_REPLICATE)
    return cv2.imencode(".jpg", photo[:, :, ::-1])[1].tobytes()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, image in enumerate(list(draw_images())[:96:6]):
        path = tmp_path / "photos" / f"p{image.identity}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(enlarge(decode(image.encoded)))
    return tmp_path / "photos"


def test_photos_are_aligned_and_labelled(sample_weights: None, photos: Path, tmp_path: Path) -> None:
    try:
        fetch(load_registry().get("yunet"))
    except WeightsUnreachableError as error:
        pytest.skip(f"the detector cannot be fetched: {error}")
    factory = Factory(workspace=tmp_path / "workspace")
    done = fiqa(factory, "label", str(photos), "--workers", "1", *POSE, "--labels-blur-hazy", "0.2")
    assert not done.returncode, done.stderr
    assert "photos of another size than 112 x 112, such as 700 x 650: their faces are aligned first" in done.stdout
    labels = pl.read_parquet(factory.workspace / "photos" / "labels" / "current")
    assert len(labels) >= 12
    assert set(labels["status"].cast(pl.String)) == {"ok"}
    written = tmp_path / "labels.csv"
    # The folder of photos stands for the faces that were aligned from it.
    factory.command("export", "--dataset", str(photos), "--output", str(written), *POSE, "--labels-blur-hazy", "0.2")
    exported = pl.read_csv(written)
    assert exported["path"].to_list() == sorted(exported["path"])
    assert exported["person"].to_list() == [path.partition("/")[0] for path in exported["path"]]
    page = (factory.workspace / "photos" / "report" / "current" / "index.html").read_text()
    assert "--labels-blur-hazy" in page or "0.2" in page


def test_a_folder_of_photos_stands_for_the_faces_that_were_aligned_from_it(photos: Path, tmp_path: Path) -> None:
    crops = tmp_path / "workspace" / "aligned" / "photos"
    crops.mkdir(parents=True)
    manifest = crops.with_suffix(".toml")
    text = f'name = "photos"\nformat = "image_folder"\nroot = "{crops}"\n'
    manifest.write_text(f'# Aligned from "{tmp_path}/other/photos" by AlignFaces.\n{text}')
    assert load_data_set(str(photos), tmp_path / "workspace").root == photos
    manifest.write_text(f'# Aligned from "{photos}" by AlignFaces.\n{text}')
    assert load_data_set(str(photos), tmp_path / "workspace").root == crops
    assert load_data_set(str(manifest), tmp_path / "workspace").root == crops


def test_options_are_read_before_photos_are_aligned(sample_weights: None, photos: Path, tmp_path: Path) -> None:
    factory = Factory(workspace=tmp_path / "workspace")
    for words, said in ((("--wrokers", "2"), "did you mean --workers?"), (("--labels-blur-hazy", "abc"), "abc"),
                        (("--form", "csv"), "there is no option --form; `luigi")):  # fmt: skip
        done = fiqa(factory, "label", str(photos), *words)
        assert done.returncode
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
        assert not (factory.workspace / "aligned").exists()


def test_aligned_faces_are_told_from_photos(photos: Path, tmp_path: Path) -> None:
    assert find_unaligned(load_manifest(photos)) == "700 x 650"
    (photos / "aligned.jpg").write_bytes(next(draw_images()).encoded)
    assert find_unaligned(load_manifest(photos)) == ""  # one image of another size is a row that says so
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no image")
    assert find_unaligned(load_manifest(tmp_path / "broken")) == ""


def test_what_is_misspelt_is_named(sample_weights: None, tmp_path: Path) -> None:
    factory = Factory(workspace=tmp_path / "workspace")
    done = fiqa(factory, "label", "sample", "--labels-blur-hzy", "0.2")
    assert done.returncode == 2
    assert "there is no option --labels-blur-hzy (did you mean --labels-blur-hazy?)" in done.stderr
    assert done.stderr.count("\n") == 1
    gone = fiqa(factory, "label", str(tmp_path / "gone"))
    assert (gone.returncode, gone.stderr.count("\n")) == (1, 1)
    assert "gone cannot be read" in gone.stderr
    stray = factory.luigi("LabelAll", "--dataset", "sample", "more", check=False)
    assert stray.stderr.startswith("error: 'more' belongs to no option; `luigi --module pipeline LabelAll --help`")
    lost = fiqa(factory, "score", "--checkpoint", "none", "--input", "none", "--output", "s.parquet")
    assert (lost.returncode, lost.stderr.count("\n")) == (1, 1)


def test_a_run_that_fails_says_what_is_done(sample_weights: None, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "models.toml").write_text(
        '[mine]\nkind = "pose"\nversion = 1\nlicence = "none"\nbatch = 1\nfiles = [{ name = "mine.onnx" }]\n'
        'input = { width = 8, height = 8, colour = "rgb", mean = [0, 0, 0], std = [1, 1, 1] }\n'
        'output = { kind = "angles", signs = [1, 1, 1] }\n'
    )
    (models / "mine.onnx").write_bytes(b"no network")
    factory = Factory(workspace=tmp_path / "workspace")
    words = ("LabelAll", "--dataset", "sample", "--models-pose", "mine")
    done = factory.luigi(*words, check=False, FIQA_MODELS=f"{models}")
    assert done.returncode == 30
    assert "mine.onnx is not an ONNX model" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("not finished; failed: Pose; done: ")
    assert "Blur" in last
    assert "not begun: LabelAll, Labels. What is done is kept: mend the cause, run the same command again" in last
