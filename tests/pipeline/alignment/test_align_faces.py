"""AlignFaces: from folders of photos, as people have them, to aligned crops; killed, resumed, changed, refused."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_manifests import sample
from data_manifests.alignment import align, similarity_transform
from data_manifests.manifest import load_manifest
from data_manifests.storage.atomic import LockedError, RunLock
from data_manifests.tables.alignment import ALIGNMENT, LANDMARKS
from data_manifests.tables.stages import Status
from data_manifests.weights.files import WeightsMissingError, find
from data_manifests.weights.registry import RegistryError, load_registry
from labelers.faces import decode, decode_batch
from labelers.photos import decode_photo
from pipeline.alignment.crops import PART_PHOTOS, AlignError, AlignFolder, Encoding
from pipeline.alignment.job import AlignJob, AlignRequest, resolve_alignment
from pipeline.alignment.plan import count_unread, name_crops
from pipeline.alignment.run import make_crops
from pipeline.stages.index import index_images
from pipeline.storage.images import ImageSource
from tests.pipeline.conftest import ROOT

PHOTOS = {
    Path(photo["path"]).stem: (
        sample.read_photo(photo["package"], photo["path"], photo["sha256"]),
        np.array(photo["faces"]),
    )
    for photo in tomllib.loads((Path(sample.__file__).parent / "annotations" / "sample_faces.toml").read_text())[
        "photos"
    ]
}
ASTRONAUT, HANKS, GROUP = (PHOTOS[name][0] for name in ("astronaut", "Tom_Hanks_54745", "t1"))


@pytest.fixture(scope="session")
def yunet(request: pytest.FixtureRequest) -> str:
    """The value of FIQA_MODELS with which YuNet is found."""
    before = os.environ.get("FIQA_MODELS", "")
    try:
        find(load_registry().get("yunet"))
    except WeightsMissingError:
        return str(request.getfixturevalue("real_data") / "models")
    return before


@pytest.fixture
def models(yunet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIQA_MODELS", yunet)


def wish(source: Path | str = "", output: Path | str = "", **more: object) -> AlignRequest:
    values = {
        "source": str(source), "dataset": "", "output": str(output), "detector": "yunet", "face": "largest",
        "encoding": "jpeg", "min_score": 0.6, "longest_side": 640,
    }  # fmt: skip
    return AlignRequest(**{**values, **more})


def resolve(source: Path | str = "", output: Path | str = "", **more: object) -> AlignJob:
    return resolve_alignment(wish(source, output, **more), Path("workspace"))


def run(source: Path | str, output: Path, **more: object) -> dict[str, dict[str, object]]:
    """Align in this process: the rows of the table by path."""
    job = resolve(source, output, **more)
    make_crops(job, 1)
    assert job.is_finished()
    return rows_of(output)


def rows_of(output: Path) -> dict[str, dict[str, object]]:
    table = pl.read_parquet(AlignFolder(crops=output).table)
    return {row["path"]: row for row in table.iter_rows(named=True)}


def landmarks_of(row: dict[str, object]) -> np.ndarray:
    return np.array([row[name] for name in LANDMARKS], float).reshape(5, 2)


def distance(found: np.ndarray, truth: np.ndarray) -> float:
    """How far landmarks [5, 2] lie from others on average, in pixels of the aligned face."""
    return float(np.linalg.norm((found - truth) @ similarity_transform(truth)[:, :2].T, axis=1).mean())


def save(place: Path, image: np.ndarray | Image.Image, **options: object) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(
        place, {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}[place.suffix[1:].lower()], **options
    )


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_odd_photos(folder: Path) -> None:
    """What people have: names, depths, sizes and turns of all kinds; half of them of one photo."""
    sideways = Image.Exif()
    sideways[0x0112] = 6
    deep = ASTRONAUT[:, :, ::-1].astype(np.uint16) * 257
    save(folder / "astro" / "plain.jpg", ASTRONAUT, quality=95)
    save(folder / "astro" / "turned.jpg", np.ascontiguousarray(np.rot90(ASTRONAUT)), quality=95, exif=sideways)
    save(folder / "astro" / "GREY.JPEG", Image.fromarray(ASTRONAUT).convert("L"))
    save(folder / "astro" / "see through.png", np.dstack([ASTRONAUT, np.full((512, 512), 9, np.uint8)]))
    (folder / "astro" / "deep.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    save(folder / "astro" / "huge.jpg", cv2.resize(ASTRONAUT, (5000, 5000), interpolation=cv2.INTER_CUBIC))
    save(folder / "astro" / "tiny.png", cv2.resize(ASTRONAUT, (128, 128), interpolation=cv2.INTER_AREA))
    save(folder / "Jürgen  Ä$'\"" / "дом 家.webp", HANKS, lossless=True)
    save(folder / "group.JPG", GROUP)
    save(folder / "none" / "grey.png", np.full((70, 9000, 3), 90, np.uint8))
    save(folder / "none" / "dot.png", np.zeros((1, 1, 3), np.uint8))
    (folder / "none" / "empty.jpg").touch()
    (folder / "none" / "text.jpg").write_text("no photo")
    (folder / "none" / "cut.jpg").write_bytes((folder / "astro" / "plain.jpg").read_bytes()[:9000])
    (folder / "none" / "nowhere.jpg").symlink_to("gone.jpg")
    (folder / "none" / "phone.heic").touch()
    (folder / ".hidden.jpg").touch()


def command(source: Path, output: Path) -> list[str]:
    """The words of the command line, with two processes."""
    luigi = str(Path(sys.executable).with_name("luigi"))
    words = [luigi, "--module", "pipeline.tasks.alignment", "AlignFaces", "--workers", "2"]
    return [*words, "--source", str(source), "--output", str(output)]


def align_odd(folder: Path, models: str) -> str:
    """Align the odd photos from the command line; what it says."""
    done = subprocess.run(
        command(folder / "my photos", folder / "crops 112"),
        cwd=ROOT, env={**os.environ, "FIQA_MODELS": models, "COLUMNS": "200"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "libpng" not in done.stderr
    assert "WARN" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def odd(yunet: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Odd photos aligned from the command line: the folder of all, and what was said."""
    folder = tmp_path_factory.mktemp("odd")
    write_odd_photos(folder / "my photos")
    return folder, align_odd(folder, yunet)


@pytest.mark.usefixtures("models")
def test_git_leaves_the_crops_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "repository" / "out"
    place.mkdir(parents=True)
    save(tmp_path / "photos" / "p" / "1.jpg", ASTRONAUT)
    (tmp_path / "repository" / ".git").mkdir()
    (place / ".gitignore").write_text("*.log")
    run(tmp_path / "photos", place / "crops")
    assert "faces of people are personal data" in capsys.readouterr().out
    assert (place / ".gitignore").read_text() == "*.log\n/crops/\n/crops.alignment/\n"
    save(tmp_path / "photos" / "p" / "2.jpg", ASTRONAUT)
    run(tmp_path / "photos", place / "crops")
    assert "personal data" not in capsys.readouterr().out


def test_every_photo_has_a_row_and_every_face_a_crop(odd: tuple[Path, str]) -> None:
    folder, said = odd
    rows = rows_of(folder / "crops 112")
    assert list(rows) == sorted(rows)
    status = {path: row["status"] for path, row in rows.items()}
    lost = {
        "none/grey.png": "no_face", "none/dot.png": "no_face", "none/empty.jpg": "decode_error",
        "none/text.jpg": "decode_error", "none/cut.jpg": "decode_error", "none/nowhere.jpg": "missing_record",
    }  # fmt: skip
    assert {path: s for path, s in status.items() if s != "ok"} == lost
    crops = {row["crop"] for row in rows.values() if row["crop"]}
    assert crops == set(files_below(folder / "crops 112"))
    assert crops == {
        "astro/plain.jpg", "astro/turned.jpg", "astro/GREY.JPEG", "astro/see through.jpg", "astro/deep.jpg",
        "astro/huge.jpg", "astro/tiny.jpg", "Jürgen  Ä$'\"/дом 家.jpg", "group.JPG",
    }  # fmt: skip
    assert "9 of 15 photos are aligned" in said
    assert (
        "6 have no crop (3 decode_error: none/cut.jpg, none/empty.jpg, none/text.jpg; 2 no_face: none/dot.png" in said
    )
    assert "not read: 1 .heic" in said
    assert f"LabelAll --dataset '{folder / 'crops 112.toml'}' --workers 2" in said
    assert rows["group.JPG"]["faces"] == 6
    assert rows["none/grey.png"]["faces"] == 0
    assert rows["none/text.jpg"]["faces"] is None
    assert (rows["none/grey.png"]["width"], rows["none/grey.png"]["height"]) == (9000, 70)
    for path in lost:
        assert rows[path]["x1"] is None
        assert rows[path]["crop"] is None


def test_one_face_is_the_same_however_its_photo_is_stored(odd: tuple[Path, str]) -> None:
    folder, _ = odd
    rows = rows_of(folder / "crops 112")
    truth = PHOTOS["astronaut"][1][0]
    reference = landmarks_of(rows["astro/plain.jpg"])
    assert distance(reference, truth) < 5.0
    factors = {"huge.jpg": 5000 / 512, "tiny.png": 128 / 512}
    for name in ("turned.jpg", "GREY.JPEG", "see through.png", "deep.png", "huge.jpg", "tiny.png"):
        row = rows[f"astro/{name}"]
        back = (landmarks_of(row) + 0.5) / factors.get(name, 1) - 0.5
        assert distance(back, reference) < (5.5 if name in factors else 2.5), name
        assert row["faces"] == 1
        assert row["width"] == row["height"] == round(512 * factors.get(name, 1))


def test_crops_are_the_photo_aligned_by_the_landmarks_of_the_table(odd: tuple[Path, str]) -> None:
    folder, _ = odd
    for path, row in rows_of(folder / "crops 112").items():
        if row["status"] == "ok":
            photo = decode_photo((folder / "my photos" / path).read_bytes())
            expected = align(photo, landmarks_of(row))
            stored = cv2.imencode(".jpg", expected[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
            found = (folder / "crops 112" / str(row["crop"])).read_bytes()
            # the table rounds landmarks to float32, so that a value can fall to the other side
            assert np.abs(decode(found).astype(int) - decode(stored)).max() <= 8, path
            assert decode(found).shape == (112, 112, 3)


def test_the_manifest_names_a_data_set_whose_faces_can_be_labelled(odd: tuple[Path, str]) -> None:
    folder, _ = odd
    manifest = load_manifest(folder / "crops 112.toml")
    assert manifest.name == "crops_112"
    manifest.require_labelled()
    indexed = index_images(manifest)
    assert indexed.names == {0: "Jürgen  Ä$'\"", 1: "astro"}
    rows = indexed.table
    stored = ImageSource(folder=manifest.image_root).read(rows)
    _, status = decode_batch(rows["key"].to_numpy(), rows["identity"].to_numpy(), stored)
    assert status == [Status.OK] * 9


def test_the_same_command_again_does_nothing(odd: tuple[Path, str], yunet: str) -> None:
    folder, _ = odd
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    assert "aligned" not in align_odd(folder, yunet)
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before
    assert not list(folder.rglob("*.tmp"))
    assert sorted(p.name for p in (folder / "crops 112.alignment").glob("[!.]*")) == ["alignment.parquet"]


def test_the_table_keeps_its_contract(odd: tuple[Path, str]) -> None:
    table = pl.read_parquet(odd[0] / "crops 112.alignment" / "alignment.parquet")
    assert tuple(table.columns) == ALIGNMENT.names
    assert table["status"].null_count() == 0
    assert table["path"].n_unique() == len(table)
    found = table.filter(pl.col("status").cast(pl.String) == "ok")
    assert found["score"].min() >= 0.6
    assert found.select(pl.all().null_count()).sum_horizontal().item() == 0


def test_only_what_changed_is_done_again(models: None, tmp_path: Path) -> None:
    photos, crops = tmp_path / "photos", tmp_path / "crops"
    for name in ("a", "b", "c", "d"):
        save(photos / name / "1.png", HANKS)
    rows = run(photos, crops)
    assert {row["status"] for row in rows.values()} == {"ok"}
    made = {path: (crops / path).stat().st_mtime_ns for path in files_below(crops)}
    save(photos / "b" / "1.png", np.zeros((80, 80, 3), np.uint8))  # the face is gone
    shutil.rmtree(photos / "c")
    (crops / "d" / "1.jpg").unlink()
    save(photos / "e" / "1.jpg", HANKS)
    assert not resolve(photos, crops).is_finished()
    rows = run(photos, crops)
    assert {path: row["status"] for path, row in rows.items()} == {
        "a/1.png": "ok", "b/1.png": "no_face", "d/1.png": "ok", "e/1.jpg": "ok",
    }  # fmt: skip
    now = {path: (crops / path).stat().st_mtime_ns for path in files_below(crops)}
    assert set(now) == {"a/1.jpg", "d/1.jpg", "e/1.jpg"}
    assert now["a/1.jpg"] == made["a/1.jpg"]
    assert now["d/1.jpg"] != made["d/1.jpg"]


def test_other_settings_make_all_crops_anew_and_leave_no_old_ones(models: None, tmp_path: Path) -> None:
    photos, crops = tmp_path / "photos", tmp_path / "crops"
    save(photos / "x" / "1.jpg", GROUP)
    first = run(photos, crops)["x/1.jpg"]
    second = run(photos, crops, encoding="png", face="central")["x/1.jpg"]
    assert set(files_below(crops)) == {"x/1.png"}
    assert decode((crops / "x/1.png").read_bytes()).shape == (112, 112, 3)
    expected = align(decode_photo((photos / "x/1.jpg").read_bytes()), landmarks_of(second))
    assert np.abs(decode((crops / "x/1.png").read_bytes()).astype(int) - expected).max() <= 1
    inner = PHOTOS["t1"][1][2:4]  # of six people in a row
    assert min(distance(landmarks_of(second), truth) for truth in inner) < 8.0
    best = run(photos, crops, face="best")["x/1.jpg"]
    assert best["score"] >= max(first["score"], second["score"])
    assert run(photos, crops, min_score=0.99)["x/1.jpg"]["status"] == "no_face"
    assert files_below(crops) == {}
    assert len({row["faces"] for row in (first, second, best)}) == 1


def test_crops_of_a_run_that_broke_off_are_never_taken_for_those_of_other_settings(
    models: None, tmp_path: Path
) -> None:
    photos, crops = tmp_path / "photos", tmp_path / "crops"
    save(photos / "a" / "000.jpg", GROUP)
    for number in range(1, PART_PHOTOS):
        save(photos / "a" / f"{number:03d}.png", np.zeros((9, 9, 3), np.uint8))
    save(photos / "b" / "1.png", HANKS)
    run(photos, crops)
    first = files_below(crops)
    shutil.move(crops / "b", tmp_path / "aside")
    (crops / "b").write_text("in the way")
    with pytest.raises(AlignError, match="1 of 2 parts failed"):
        make_crops(resolve(photos, crops, longest_side=1280), 1)
    assert (crops / "a/000.jpg").read_bytes() != first["a/000.jpg"]
    (crops / "b").unlink()
    shutil.move(tmp_path / "aside", crops / "b")
    assert not resolve(photos, crops).is_finished()
    run(photos, crops)
    assert files_below(crops) == first
    assert sorted(p.name for p in AlignFolder(crops=crops).state.glob("[!.]*")) == ["alignment.parquet"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_photo_that_may_be_read_later_is_done_later(models: None, tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "a.png"
    save(photo, HANKS)
    photo.chmod(0)
    assert run(tmp_path / "photos", tmp_path / "crops")["a.png"]["status"] == "missing_record"
    photo.chmod(0o644)
    assert run(tmp_path / "photos", tmp_path / "crops")["a.png"]["status"] == "ok"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """640 photos in ten parts."""
    folder = tmp_path_factory.mktemp("many") / "photos"
    save(folder / "p000" / "0.png", HANKS)
    for number in range(1, 10 * PART_PHOTOS):
        place = folder / f"p{number // 20:03d}" / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        os.link(folder / "p000" / "0.png", place)
    return folder


def test_killed_it_goes_on_and_loses_at_most_a_part_a_process(
    many: Path, yunet: str, models: None, tmp_path: Path
) -> None:
    crops = tmp_path / "crops"
    folder = AlignFolder(crops=crops)
    process = subprocess.Popen(
        command(many, crops), cwd=ROOT, env={**os.environ, "FIQA_MODELS": yunet}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while len(folder.parts()) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_until_free(folder)
    staged = pl.concat([pl.read_parquet(path) for path in folder.parts()])
    assert 2 * PART_PHOTOS <= len(staged) < 10 * PART_PHOTOS
    assert not folder.table.exists()
    whole = {crop: (crops / crop).stat().st_mtime_ns for crop in staged["crop"]}
    begun = [path for path in crops.rglob("*.jpg") if str(path.relative_to(crops)) not in whole]
    assert len(begun) <= 2 * PART_PHOTOS
    (crops / "p000" / ".0.jpg.torn0123.tmp").write_bytes(b"half")  # what a kill in the midst of a write leaves

    job = resolve(many, crops)
    make_crops(job, 1)
    assert job.is_finished()
    assert {crop: (crops / crop).stat().st_mtime_ns for crop in whole} == whole
    assert not list(tmp_path.rglob("*.tmp"))
    assert len(files_below(crops)) == 10 * PART_PHOTOS
    assert len(set(files_below(crops).values())) == 1
    table = pl.read_parquet(folder.table)
    assert table["path"].to_list() == sorted(table["path"])
    assert table.drop("path", "crop").n_unique() == 1
    assert sorted(p.name for p in folder.state.glob("[!.]*")) == ["alignment.parquet"]


def wait_until_free(folder: AlignFolder) -> None:
    """Wait until the kernel has ended all processes of a killed group, the one that held the lock among them."""
    for _ in range(600):
        lock = RunLock(folder.state)
        try:
            lock.acquire("a test")
        except LockedError:
            time.sleep(0.1)
            continue
        lock.release()
        return
    raise AssertionError("a killed process still holds the lock")


def test_a_run_that_cannot_write_keeps_what_it_has(models: None, tmp_path: Path) -> None:
    """A file stands where the folder of a person's crops should be: its part fails, and is done when it is gone."""
    photos, crops = tmp_path / "photos", tmp_path / "crops"
    for number in range(PART_PHOTOS):
        save(photos / "a" / f"{number:03d}.png", HANKS if number == 0 else np.zeros((9, 9, 3), np.uint8))
    save(photos / "b" / "1.png", HANKS)
    job = resolve(photos, crops)
    crops.mkdir()
    (crops / "b").write_text("in the way")
    with pytest.raises(AlignError, match=r"1 of 2 parts failed: .*run the same command again"):
        make_crops(job, 1)
    assert not job.folder.table.exists()
    made = (crops / "a/000.jpg").stat().st_mtime_ns
    (crops / "b").unlink()
    make_crops(job, 1)
    assert set(files_below(crops)) == {"a/000.jpg", "b/1.jpg"}
    assert (crops / "a/000.jpg").stat().st_mtime_ns == made


def test_two_runs_never_work_in_one_folder(models: None, tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png", HANKS)
    job = resolve(tmp_path / "photos", tmp_path / "crops")
    other = RunLock(job.folder.state, "wait")
    other.acquire("another run")
    with pytest.raises(LockedError, match="name another --output"):
        make_crops(job, 1)
    other.release()
    make_crops(job, 1)


def test_flat_photos_show_unknown_persons(models: None, tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png", HANKS)
    run(tmp_path / "photos", tmp_path / "crops")
    assert set(files_below(tmp_path / "crops")) == {"a.jpg"}
    assert index_images(load_manifest(tmp_path / "crops.toml")).table["identity"].to_pylist() == [-1]


def write_templates(folder: Path, faces: list[tuple[str, np.ndarray]], root: str = "ijb") -> Path:
    """A benchmark of templates in InsightFace's layout, its lists with landmarks to five digits."""
    meta = folder / root / "meta"
    meta.mkdir(parents=True)
    points = [" ".join(f"{value:.5f}" for value in landmarks.ravel()) for _, landmarks in faces]
    names = [name for name, _ in faces]
    (meta / "x_face_tid_mid.txt").write_text("".join(f"{n} {i} {i}\n" for i, n in enumerate(names)))
    (meta / "x_name_5pts_score.txt").write_text("".join(f"{n} {p} 0.5\n" for n, p in zip(names, points, strict=True)))
    (meta / "x_template_pair_label.txt").write_text("0 1 0\n")
    manifest = folder / f"{root}.toml"
    manifest.write_text(f'name = "{root}"\nformat = "templates"\nroot = "{root}"\n')
    return manifest


def test_templates_are_aligned_by_the_landmarks_of_their_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FIQA_MODELS", raising=False)  # no detector is needed
    truths = PHOTOS["t1"][1]
    faces = [("1.jpg", truths[0]), ("2.png", truths[1]), ("3.jpg", truths[2] * 0 + 7), ("4.jpg", truths[3])]
    listed = [(name if name == "4.jpg" else f"C:\\ijb\\loose_crop\\{name}", points) for name, points in faces]
    manifest = write_templates(tmp_path, listed)
    for name in ("1.jpg", "2.png", "3.jpg", "unlisted.jpg"):
        save(tmp_path / "ijb" / "loose_crop" / name, GROUP)
    job = resolve(dataset=str(manifest))
    assert job.entry is None
    make_crops(job, 1)
    assert job.is_finished()
    crops = tmp_path / "ijb" / "aligned_112"
    assert set(files_below(crops)) == {"1.jpg", "2.png"}
    rows = rows_of(crops)
    assert {path: row["status"] for path, row in rows.items()} == {
        "1.jpg": "ok", "2.png": "ok", "3.jpg": "no_face", "4.jpg": "missing_record",
    }  # fmt: skip
    assert rows["1.jpg"]["score"] == 0.5
    assert rows["1.jpg"]["faces"] is None
    assert landmarks_of(rows["1.jpg"]) == pytest.approx(truths[0], abs=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        face_align = pytest.importorskip("insightface.utils.face_align")
        photo = decode_photo((tmp_path / "ijb/loose_crop/2.png").read_bytes())
        expected = face_align.norm_crop(photo, truths[1].astype(np.float32))
    assert np.abs(decode((crops / "2.png").read_bytes()).astype(int) - expected).max() <= 1
    assert f"EmbeddingsAll --dataset {manifest}" in capsys.readouterr().out
    assert not list(tmp_path.glob("*112.toml"))
    statuses = dict(
        zip(*(index_images(load_manifest(manifest)).table[c].to_pylist() for c in ("path", "status")), strict=True)
    )
    missing = dict.fromkeys((listed[2][0], "4.jpg"), "missing_record")
    assert statuses == {"1.jpg": "ok", "2.png": "ok", **missing}
    # a missing photo that is brought later is done, and other landmarks mean other crops
    save(tmp_path / "ijb" / "loose_crop" / "4.jpg", GROUP)
    shutil.rmtree(tmp_path / "ijb" / "meta")
    write_templates(tmp_path / "x", [(name, truths[4]) for name, _ in faces])
    shutil.move(tmp_path / "x" / "ijb" / "meta", tmp_path / "ijb" / "meta")
    job = resolve(dataset=str(manifest))
    assert not job.is_finished()
    make_crops(job, 1)
    assert {row["status"] for row in rows_of(crops).values()} == {"ok"}
    assert len({(crops / name).read_bytes() for name in ("1.jpg", "3.jpg", "4.jpg")}) == 1


@pytest.mark.parametrize("name", ["../../out.jpg", "/etc/out.jpg", "a/../../out.jpg", "1.exe"])
def test_lists_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    manifest = write_templates(tmp_path, [(name, PHOTOS["t1"][1][0]), ("2.jpg", PHOTOS["t1"][1][1])])
    save(tmp_path / "ijb" / "loose_crop" / "2.jpg", GROUP)
    job = resolve(dataset=str(manifest))
    with pytest.raises(AlignError, match="which is no image below"):
        make_crops(job, 1)


def test_a_data_set_s_own_choices_are_taken_along(models: None, tmp_path: Path) -> None:
    save(tmp_path / "raw" / "a" / "1.png", HANKS)
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nformat = "image_folder"\nroot = "raw"\npose_model = "fr_pose"\nanchor = "plain_ratio"\n'
    )
    job = resolve("", tmp_path / ".mine 112", dataset=str(tmp_path / "mine.toml"))
    make_crops(job, 1)
    aligned = load_manifest(tmp_path / ".mine 112.toml")
    assert aligned.name == "mine_112"
    assert aligned.pose_model == "fr_pose"
    assert aligned.anchor == "plain_ratio"
    assert aligned.root == tmp_path / ".mine 112"
    # what a user adds to the manifest stays
    with (tmp_path / ".mine 112.toml").open("a") as file:
        file.write("images = 1\n")
    save(tmp_path / "raw" / "a" / "2.png", HANKS)
    make_crops(job, 1)
    assert load_manifest(tmp_path / ".mine 112.toml").images == 1


def test_photos_that_are_not_read_are_counted_once_in_folders_that_hold_themselves(tmp_path: Path) -> None:
    for level in range(20):  # two links on every level: a million ways to the one photo
        (tmp_path / f"d{level}").mkdir()
        for name in "xy":
            (tmp_path / f"d{level}" / name).symlink_to(tmp_path / f"d{level + 1}")
    (tmp_path / "d20" / "@eaDir").mkdir(parents=True)
    (tmp_path / "d20" / "up").symlink_to(tmp_path)
    for name in ("1.HEIC", "2.jpg", ".3.heic", "@eaDir/4.tif"):
        (tmp_path / "d20" / name).touch()
    assert count_unread(tmp_path) == {".heic": 1}


def test_what_is_refused(models: None, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save(photos / "a" / "1.png", HANKS)
    foreign = tmp_path / "foreign"
    save(foreign / "holiday.jpg", HANKS)
    (tmp_path / "other.toml").write_text('name = "other"\nformat = "image_folder"\nroot = "elsewhere"\n')
    (tmp_path / "broken.toml").write_text("name = ")
    (tmp_path / "wider.toml").write_text('name = "wider"\nformat = "wider_face"\nroot = "photos"\n')
    output = tmp_path / "crops"
    for asked, message in [
        (wish("", output), "either --source FOLDER or --dataset NAME"),
        (wish(photos, output, dataset="sample"), "either --source FOLDER or --dataset NAME"),
        (wish(photos), "--output FOLDER"),
        (wish(tmp_path / "nothing", output), "nothing is no folder of photos"),
        (wish(photos / "a" / "1.png", output), "is no folder of photos"),
        (wish(photos, photos), "lie within each other"),
        (wish(photos, photos / "crops"), "lie within each other"),
        (wish(photos / "a", photos), "lie within each other"),
        (wish(photos, foreign), "holds files that no alignment made"),
        (wish(photos, foreign / "holiday.jpg"), "holds files that no alignment made"),
        (wish(photos, tmp_path / "other"), "is the manifest of another folder"),
        (wish(photos, tmp_path / "broken"), "is not valid TOML"),
        (wish(photos, tmp_path / "a$b"), "choose another name"),
        (wish(photos, tmp_path / "~me"), "choose another name"),
        (wish(photos, output, min_score=1.0), "--min-score lies between 0 and 1"),
        (wish(photos, output, longest_side=16), "--longest-side is at least 32"),
        (wish("", output, dataset="ms1mv2"), "has the format recordio"),
        (wish("", output, dataset=str(tmp_path / "wider.toml")), "has the format wider_face"),
    ]:
        with pytest.raises(ValueError, match=message):
            resolve_alignment(asked, tmp_path / "workspace")
    for detector, message in (("yunett", "did you mean yunet"), ("fr_pose", "not detector")):
        with pytest.raises(RegistryError, match=message):
            resolve(photos, output, detector=detector)
    assert {p.name for p in tmp_path.iterdir()} == {"photos", "foreign", "other.toml", "broken.toml", "wider.toml"}


def test_a_damaged_table_is_an_error_that_names_it(models: None, tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png", HANKS)
    job = resolve(tmp_path / "photos", tmp_path / "crops")
    make_crops(job, 1)
    job.folder.table.write_bytes(job.folder.table.read_bytes()[:-9])
    with pytest.raises(AlignError, match=r"alignment\.parquet is damaged .*remove it"):
        make_crops(job, 1)
    job.folder.table.unlink()
    shutil.rmtree(tmp_path / "crops")
    make_crops(job, 1)
    assert job.is_finished()


def test_a_recipe_of_another_version_does_not_count(models: None, tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png", HANKS)
    job = resolve(tmp_path / "photos", tmp_path / "crops")
    make_crops(job, 1)
    assert job.is_finished()
    for field, value in (("face", "best"), ("min_score", 0.7), ("longest_side", 320), ("detector", "yunet 2 0")):
        changed = dataclasses.replace(job, settings=dataclasses.replace(job.settings, **{field: value}))
        assert not changed.is_finished(), field


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6)
suffixes = st.sampled_from([".jpg", ".JPG", ".jpeg", ".png", ".PNG", ".webp", ".bmp", ".png.jpg"])
some_paths = st.lists(st.tuples(st.sampled_from(["", "a/", "b c/d/"]), names, suffixes), max_size=12, unique=True)


@settings(max_examples=300, deadline=None)
@given(parts=some_paths, encoding=st.sampled_from(Encoding))
def test_every_photo_has_its_own_crop_beside_its_folder_s(
    parts: list[tuple[str, str, str]], encoding: Encoding
) -> None:
    paths = ["".join(part) for part in parts]
    refused = ""
    try:
        crops = name_crops(paths, encoding)
    except AlignError as error:
        refused, crops = str(error), paths
    if refused:
        assert "would both have the crop" in refused
        assert any(path.rpartition("/")[2].count(".") > 1 for path in paths)
        return
    assert len(set(crops)) == len(crops)
    for path, crop in zip(paths, crops, strict=True):
        assert crop.rpartition("/")[0] == path.rpartition("/")[0]
        assert crop.lower().endswith((".jpg", ".jpeg") if encoding is Encoding.JPEG else ".png")
        own = path.lower().endswith((".jpg", ".jpeg") if encoding is Encoding.JPEG else ".png")
        assert (crop == path) == own


def test_crops_of_photos_that_differ_by_their_suffix_alone() -> None:
    found = name_crops(["a.bmp", "a.png", "b.jpg", "b.png", "c.webp"], Encoding.JPEG)
    assert found == ["a.bmp.jpg", "a.png.jpg", "b.jpg", "b.png.jpg", "c.jpg"]
    with pytest.raises(AlignError, match=r"a\.png and a\.png\.jpg would both"):
        name_crops(["a.bmp", "a.png", "a.png.jpg"], Encoding.JPEG)
    with pytest.raises(AlignError, match="longer than 240 bytes"):
        name_crops(["p/" + "ä" * 120 + ".jpg"], Encoding.JPEG)
