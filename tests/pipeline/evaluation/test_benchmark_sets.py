"""Verification benchmarks as data sets: their images are indexed and measured like any others."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from data_manifests.benchmarks.pairs import read_pairs
from data_manifests.manifest import ManifestError, load_manifest
from data_manifests.sample import draw_images
from data_manifests.tables.stages import INDEX, Status
from pipeline.commands.doctor.command import check_data
from pipeline.config.job import estimate_images, resolve
from pipeline.stages.index import index_images
from pipeline.storage.images import ImageSource
from tests.pipeline.conftest import Factory

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BROKEN = 7
"""Key of the image that does not decode."""


def write_bin(folder: Path, images: list[bytes], same: list[bool], name: str = "pairs") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.bin").write_bytes(pickle.dumps((images, same), 2))
    manifest = folder / f"{name}.toml"
    manifest.write_text(
        f'name = "{name}"\nformat = "verification"\nroot = "."\nrecord_file = "{name}.bin"\npairs = {len(same)}\n'
        'pose_model = "fr_pose"\n'
    )
    return manifest


def write_photos(folder: Path, images: list[bytes], same: list[bool]) -> Path:
    """The same pairs as a folder of photos with a list in LFW's form, whose order is another than that of the paths."""
    lines = []
    for pair, flag in enumerate(same):
        people = (f"p{pair:02d}", f"p{pair:02d}" if flag else f"q{pair:02d}")
        for side in (0, 1):
            photo = folder / "photos" / people[side] / f"{people[side]}_{2 - side:04d}.jpg"
            photo.parent.mkdir(parents=True, exist_ok=True)
            photo.write_bytes(images[2 * pair + side])
        lines.append(f"{people[0]}\t2\t1" if flag else f"{people[0]}\t2\t{people[1]}\t1")
    (folder / "pairs.txt").write_text(f"{len(same) // 2}\t1\n" + "\n".join(lines) + "\n")
    manifest = folder / "listed.toml"
    manifest.write_text(
        'name = "listed"\nformat = "verification"\nroot = "."\npairs_file = "pairs.txt"\nimages_folder = "photos"\n'
        f'pairs = {len(same)}\nimages = {len(images)}\npose_model = "fr_pose"\n'
    )
    return manifest


@pytest.fixture(scope="module")
def faces() -> tuple[list[bytes], list[bool]]:
    """Twelve pairs of the sample's faces, half of them genuine; one image is none."""
    drawn = list(draw_images())
    own = [i.encoded for i in drawn if i.identity == 0], [i.encoded for i in drawn if i.identity == 1]
    images, same = [], []
    for pair in range(0, 12, 2):
        images += [own[0][pair], own[0][pair + 1], own[0][pair], own[1][pair]]
        same += [True, False]
    images[BROKEN - 1] = b"no image"
    return images, same


@pytest.fixture(scope="module")
def embedded(
    faces: tuple[list[bytes], list[bool]], sample_weights: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Factory, dict[str, Path]]:
    """A workspace with the embeddings of the pairs in both forms."""
    folder = tmp_path_factory.mktemp("benchmarks")
    factory = Factory(workspace=folder / "workspace")
    manifests = {"pairs": write_bin(folder / "bin", *faces), "listed": write_photos(folder / "list", *faces)}
    for manifest in manifests.values():
        factory.luigi("EmbeddingsAll", "--dataset", str(manifest))
    return factory, manifests


def embeddings_of(factory: Factory, name: str) -> NDArray[np.float32]:
    """Unit embeddings by row, float32 [N, 512]; NaN where there is none."""
    column = pl.read_parquet(factory.workspace / name / "embeddings" / "current")["embedding"]
    nothing = np.full(512, np.nan, np.float16).tobytes()
    return np.stack([np.frombuffer(v or nothing, np.float16) for v in column]).astype(np.float32)


def similarities(embeddings: NDArray[np.float32], a: NDArray[np.int32], b: NDArray[np.int32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (embeddings[a - 1] * embeddings[b - 1]).sum(axis=1)  # keys start at 1
    return found


def test_a_bin_is_indexed_and_measured(
    embedded: tuple[Factory, dict[str, Path]], faces: tuple[list[bytes], list[bool]]
) -> None:
    factory, manifests = embedded
    index = pl.read_parquet(factory.workspace / "pairs" / "index" / "current")
    assert tuple(index.columns) == INDEX.names
    assert index["key"].to_list() == list(range(1, 25))
    assert index["offset"].to_list() == list(range(24))
    assert index["length"].to_list() == [len(image) for image in faces[0]]
    assert set(index["identity"]) == {-1}
    assert set(index["status"].cast(pl.String)) == {"ok"}
    assert index["path"].null_count() == 24
    table = pl.read_parquet(factory.workspace / "pairs" / "embeddings" / "current")
    assert table.filter(pl.col("embedding").is_null())["key"].to_list() == [BROKEN]
    assert table.filter(key=BROKEN)["status"].cast(pl.String).to_list() == ["decode_error"]
    pairs = read_pairs(load_manifest(manifests["pairs"]))
    found = similarities(embeddings_of(factory, "pairs"), pairs.a, pairs.b)
    assert np.isnan(found).tolist() == [pair == (BROKEN - 1) // 2 for pair in range(12)]
    assert np.nanmedian(found[pairs.same]) > 0.6  # some of these faces are covered or dark
    assert np.nanmax(found[~pairs.same]) < 0.2


def test_a_list_gives_the_same_similarities_as_a_bin(embedded: tuple[Factory, dict[str, Path]]) -> None:
    factory, manifests = embedded
    in_bin, listed = (read_pairs(load_manifest(manifests[name])) for name in ("pairs", "listed"))
    assert listed.same.tolist() == in_bin.same.tolist()
    assert listed.a.tolist() != in_bin.a.tolist()
    one = similarities(embeddings_of(factory, "pairs"), in_bin.a, in_bin.b)
    other = similarities(embeddings_of(factory, "listed"), listed.a, listed.b)
    np.testing.assert_allclose(one, other, atol=2e-3)  # float16, and other places in the batch
    names = pl.read_parquet(factory.workspace / "listed" / "identities" / "current")["name"].to_list()
    assert names == sorted({f"p{i:02d}" for i in range(12)} | {f"q{i:02d}" for i in range(1, 12, 2)})


def test_a_second_run_computes_nothing_and_another_bin_everything(
    embedded: tuple[Factory, dict[str, Path]], tmp_path: Path
) -> None:
    factory, manifests = embedded
    first = resolve(str(manifests["pairs"]), workspace=factory.workspace).stages["embeddings"]
    times = {p: p.stat().st_mtime_ns for p in factory.workspace.rglob("*.parquet")}
    factory.luigi("EmbeddingsAll", "--dataset", str(manifests["pairs"]))
    assert {p: p.stat().st_mtime_ns for p in factory.workspace.rglob("*.parquet")} == times
    copy = shutil.copytree(manifests["pairs"].parent, tmp_path / "copy")
    job = resolve(str(copy / "pairs.toml"), workspace=factory.workspace)
    assert job.stages["embeddings"].fingerprint == first.fingerprint  # neither place nor time decides
    data = bytearray((copy / "pairs.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "pairs.bin").write_bytes(data)
    changed = resolve(str(copy / "pairs.toml"), workspace=factory.workspace)
    assert changed.stages["embeddings"].fingerprint != first.fingerprint


def test_a_listed_set_is_known_by_its_list_and_its_photos(
    embedded: tuple[Factory, dict[str, Path]], tmp_path: Path
) -> None:
    copy = shutil.copytree(embedded[1]["listed"].parent, tmp_path / "copy")
    seen = set()

    def look(*, recheck: bool = False) -> str:
        job = resolve(str(copy / "listed.toml"), workspace=tmp_path / "workspace", recheck=recheck)
        seen.add(job.stages["index"].fingerprint)
        return job.stages["index"].fingerprint

    assert look() == look(recheck=True)
    photo = copy / "photos" / "p00" / "p00_0001.jpg"
    before = photo.stat()
    photo.write_bytes(photo.read_bytes()[::-1])
    os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))
    look()
    assert len(seen) == 1  # same size and time
    look(recheck=True)
    assert len(seen) == 2
    os.utime(photo, ns=(1, 1))
    look()
    (copy / "pairs.txt").write_text((copy / "pairs.txt").read_text() + "\n")
    look()
    assert len(seen) == 4


def test_a_lost_shard_is_made_again_with_the_same_bytes(sample_weights: None, tmp_path: Path) -> None:
    drawn = [image.encoded for image in draw_images()]
    images = [drawn[place // 16] if place % 16 == 0 else b"no image" for place in range(2048)]
    manifest = write_bin(tmp_path, images, [True] * 1024, "large")
    factory = Factory(workspace=tmp_path / "workspace")
    factory.luigi("BlurAll", "--dataset", str(manifest))
    blur = factory.files("large", "blur")
    assert len({name.split("/")[-1] for name in blur}) == 2
    (factory.workspace / "large" / "blur" / "current" / "shard-00001.parquet").unlink()
    factory.luigi("BlurAll", "--dataset", str(manifest))
    assert factory.files("large", "blur") == blur
    sobel = pl.read_parquet(factory.workspace / "large" / "blur" / "current")["sobel"]
    assert sobel.is_not_null().to_list() == [place % 16 == 0 for place in range(2048)]


def test_goals_that_need_people_say_which_goals_do_not(embedded: tuple[Factory, dict[str, Path]]) -> None:
    factory, manifests = embedded
    done = factory.luigi("LabelAll", "--dataset", str(manifests["listed"]), check=False)
    assert done.returncode != 0
    said = "verification, which cannot be labelled: labelling works with recordio and image_folder; of this set"
    assert f"{said}, BlurAll, PoseAll, FactorsAll and EmbeddingsAll can be made" in done.stderr
    assert "Traceback" not in done.stderr
    for stage in ("centres", "anchors", "anchor_range", "labels"):
        with pytest.raises(ManifestError, match="which cannot be labelled"):
            resolve(str(manifests["pairs"]), workspace=factory.workspace, stage=stage)
    for stage in ("", "index", "blur", "pose", "factors", "embeddings"):
        resolve(str(manifests["pairs"]), workspace=factory.workspace, stage=stage)


def test_sets_that_are_no_aligned_faces_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.toml").write_text('name = "w"\nformat = "wider_face"\nroot = "."\n')
    with pytest.raises(ManifestError, match="wider_face, whose photos are not aligned faces: images of recordio, "):
        resolve(str(tmp_path / "w.toml"), workspace=tmp_path, stage="blur")


def test_wrong_counts_and_lists_are_found_before_anything_is_computed(
    faces: tuple[list[bytes], list[bool]], tmp_path: Path
) -> None:
    manifest = write_bin(tmp_path, *faces)
    manifest.write_text(manifest.read_text().replace("pairs = 12", "pairs = 13"))
    with pytest.raises(ManifestError, match="expected 13 pairs, found 12"):
        index_images(load_manifest(manifest))
    listed = write_photos(tmp_path, *faces)
    (tmp_path / "photos" / "p03" / "p03_0002.jpg").unlink()
    with pytest.raises(ValueError, match=r"pairs\.txt, line 5: the image 'p03/p03_0002' is not in"):
        index_images(load_manifest(listed))


def test_how_many_images_there_will_be(embedded: tuple[Factory, dict[str, Path]], tmp_path: Path) -> None:
    factory, manifests = embedded
    for manifest in manifests.values():
        job = resolve(str(manifest), workspace=factory.workspace)
        assert estimate_images(job) == 24
        (finding,) = check_data(job)
        assert finding.text.startswith(f"{job.name}: 24 images")
        assert (" people" in finding.text) == (job.name == "listed")
    copy = shutil.copytree(manifests["pairs"].parent, tmp_path / "copy")
    text = (copy / "pairs.toml").read_text().replace("pairs = 12\n", "")
    (copy / "pairs.toml").write_text(text)
    assert estimate_images(resolve(str(copy / "pairs.toml"), workspace=tmp_path)) >= 24


def test_a_bin_that_became_shorter_lacks_images(faces: tuple[list[bytes], list[bool]], tmp_path: Path) -> None:
    manifest = load_manifest(write_bin(tmp_path, *faces))
    rows = index_images(manifest).table
    write_bin(tmp_path, faces[0][:4], [True, False])
    read = ImageSource(bin_file=manifest.data_path).read(rows)
    assert read[:4] == faces[0][:4]
    assert set(read[4:]) == {Status.MISSING}


@pytest.mark.parametrize("before", ["", "aligned_112/", "/data/ijb/aligned_112/", "D:\\ijb\\aligned_112\\"])
def test_templates_are_indexed_in_the_order_of_their_list(
    faces: tuple[list[bytes], list[bool]], tmp_path: Path, caplog: pytest.LogCaptureFixture, before: str
) -> None:
    order = [3, 1, 2, 10]
    (tmp_path / "meta").mkdir()
    (tmp_path / "aligned_112").mkdir()
    lists = {
        "face_tid_mid": [f"{before}{n}.jpg {n % 2} {n}" for n in order],
        "name_5pts_score": [f"{before}{n}.jpg {'1 ' * 10}0.5" for n in order],
        "template_pair_label": ["0 1 0"],
    }
    for name, lines in lists.items():
        (tmp_path / "meta" / f"x_{name}.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "x.toml").write_text('name = "x"\nformat = "templates"\nroot = "."\nimages = 4\ntemplates = 2\n')
    with pytest.raises(ValueError, match="no image in it"):
        resolve(str(tmp_path / "x.toml"), workspace=tmp_path / "workspace")
    for n in (1, 3, 10, 77):
        (tmp_path / "aligned_112" / f"{n}.jpg").write_bytes(faces[0][n % 20])
    job = resolve(str(tmp_path / "x.toml"), workspace=tmp_path / "workspace", stage="embeddings")
    with caplog.at_level(logging.WARNING):
        rows = index_images(job.manifest).table
    assert f"1 of 4 images are missing, the first is {before}2.jpg" in caplog.text
    assert rows["key"].to_pylist() == [1, 2, 3, 4]
    assert rows["path"].to_pylist() == ["3.jpg", "1.jpg", f"{before}2.jpg", "10.jpg"]
    assert rows["status"].to_pylist() == ["ok", "ok", "missing_record", "ok"]
    assert rows["length"].to_pylist() == [len(faces[0][3]), len(faces[0][1]), 0, len(faces[0][10])]
    assert job.source.read(rows) == [faces[0][3], faces[0][1], Status.MISSING, faces[0][10]]
    assert estimate_images(job) == 4


def test_real_pairs_are_told_apart(real_data: Path, sample_weights: None, tmp_path: Path) -> None:
    manifest = tmp_path / "clean.toml"
    manifest.write_text(
        f'name = "clean"\nformat = "verification"\nroot = "{real_data / "data" / "verification"}"\n'
        'record_file = "lfw_clean.bin"\npairs = 1000\n'
    )
    factory = Factory(workspace=tmp_path / "workspace")
    factory.luigi("EmbeddingsAll", "--dataset", str(manifest), "--limit", "64")
    embeddings = embeddings_of(factory, "clean-first-64")
    assert np.isfinite(embeddings).all()
    pairs = read_pairs(load_manifest(manifest))
    a, b, same = pairs.a[:32], pairs.b[:32], pairs.same[:32]
    assert same.all()
    strangers = similarities(embeddings, a, np.roll(b, 5))
    assert similarities(embeddings, a, b).min() > 0.3  # over the threshold at FMR 1e-3
    assert strangers.max() < 0.35
