"""The page of labels where something is missing, damaged, hostile or in the way."""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from data_manifests.tables.stages import LABELS, Status
from labelers.faces import decode
from pipeline.label_report import page as page_module
from pipeline.label_report.output import report_spec
from pipeline.pages.document import LIMIT
from tests.pipeline.shown import Shown, current, facts_of, job_of, render

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.job import Job
    from tests.pipeline.conftest import Factory

HOSTILE = """<img src=x onerror="alert(1)">'"&{{ 7 * 7 }}<script>alert(2)</script>"""
HOSTILE_NAME = HOSTILE.replace("/", "\N{DIVISION SLASH}")


pytestmark = pytest.mark.usefixtures("workspace_variable")


def rewrite(job: Job, **columns: pl.Expr) -> None:
    """Replace columns of the labels, which are one shard."""
    stored = job.store.read(job.stages["labels"], 0)
    frame = pl.DataFrame(pl.from_arrow(stored)).with_columns(**columns)
    arrays = []
    for name in LABELS.names:
        kind = LABELS.column(name)
        if kind.categories:
            codes = frame[name].to_physical().to_arrow().cast(pa.int8())
            arrays.append(pa.DictionaryArray.from_arrays(codes, pa.array(kind.categories), ordered=True))
        elif name == "status":
            arrays.append(pa.array(frame[name].cast(pl.String).to_list()).dictionary_encode())
        else:
            arrays.append(frame[name].to_arrow().cast(kind.type))
    job.store.write_shard(job.stages["labels"], 0, pa.table(arrays, schema=LABELS.schema()), 1)


def test_every_cause_is_shown_with_its_images(copied_job: Job) -> None:
    bad = pl.col("key").is_between(5, 9)
    none = pl.lit(None)
    rewrite(
        copied_job,
        status=pl.when(bad).then(pl.lit("no_face+single_image")).when(pl.col("key") == 20).then(pl.lit("decode_error"))
        .otherwise(pl.lit("ok")),
        yaw_deg=pl.when(bad).then(none).otherwise(pl.col("yaw_deg")),
        pose=pl.when(bad).then(none).otherwise(pl.col("pose")),
        quality=pl.when(bad).then(none).otherwise(pl.col("quality")),
    )  # fmt: skip
    page = render(copied_job)
    heads = [head.text for head in page.section("failures").all("h3")]
    assert heads == ["no_face 5 images, 2.0 %", "single_image 5 images, 2.0 %", "decode_error 1 image, 0.4 %"]
    faces = page.section("failures").all("ul", class_="faces")
    assert [int(facts_of(face)["image"]) for face in faces[0].all("button")] == [5, 6, 7, 8, 9]
    assert facts_of(faces[2].one("button"))["status"] == "decode_error"
    assert "Status: ok 250, no_face+single_image 5, decode_error 1." in page.section("overview").text
    assert "5 images have no class." in page.section("pose").text
    assert page.data["splits"]["pose"]["total"] == 251


def test_a_set_without_pose_and_without_two_photos_of_anyone_has_a_page(copied_job: Job) -> None:
    none = dict.fromkeys(
        ("yaw_deg", "pitch_deg", "roll_deg", "pose", "ccs", "nnccs", "certainty_ratio", "quality"), pl.lit(None)
    )
    rewrite(copied_job, identity=pl.col("key"), status=pl.lit("no_face+single_image"), **none)
    page = render(copied_job)
    assert "No image has a quality" in page.section("quality").text
    assert "Without qualities there is nothing to compare." in page.section("cost").text
    assert "256 images have no class." in page.section("pose").text
    assert page.table("pose")["profile nearly empty"][:2] == ["0", "0.0 %"]
    assert page.tree.one("div", data_pool="pose").all("li") == []
    assert "none for 256 images" in page.section("scores").text
    assert "256 people" in page.tree.one("ul", class_="tiles").text


def test_a_set_without_any_measure_has_a_page(copied_job: Job) -> None:
    kept = {"key", "identity", "status"}
    rewrite(
        copied_job,
        status=pl.lit(Status.DECODE_ERROR.value),
        **dict.fromkeys(set(LABELS.names) - kept, pl.lit(None)),
    )
    page = render(copied_job)
    assert page.section("failures").all("h3")[0].text == "decode_error 256 images, 100.0 %"
    assert "NaN" not in re.sub(r"data:image/jpeg;base64,[^\"]*", "", page.text)
    assert "nan" not in page.tree.text.replace("finance", "")


def test_images_that_are_gone_are_said_in_their_place(copied_job: Job) -> None:
    assert copied_job.source.record_file is not None
    copied_job.source.record_file.unlink()
    page = render(copied_job)
    assert page.tree.all("img") == []
    assert "This page contains pictures of people." not in page.text
    places = page.tree.all("span", class_="broken")
    assert len(places) > 400
    assert all("image" in place.text and "gone" in place.text for place in places)
    assert page.table("blur")["hazy"] == Shown.of(page.text, page.labels).table("blur")["hazy"]


def test_one_damaged_image_is_said_in_its_place(copied_job: Job, sample_page: Shown) -> None:
    index = copied_job.store.read(copied_job.stages["index"], 0)
    key = int(facts_of(sample_page.tree.one("div", class_="strip").all("button")[0])["image"])
    row = index["key"].to_pylist().index(key)
    with copied_job.source.record_file.open("r+b") as file:
        file.seek(index["offset"][row].as_py() + 48)
        file.write(b"\0" * 300)
    page = render(copied_job)
    broken = [face for face in page.tree.all("button", class_="face") if not face.all("img")]
    assert {facts_of(face)["image"] for face in broken} == {str(key)}
    assert "not an image that decodes" in broken[0].text


def test_large_pictures_give_way_to_the_limit(copied_job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = render(copied_job)
    size = len(whole.text.encode())
    assert size < LIMIT
    monkeypatch.setattr(page_module, "LIMIT", size - 1)
    page = render(copied_job)
    assert len(page.text.encode()) < 0.8 * size
    assert len(page.tree.all("img")) == len(whole.tree.all("img"))
    jpeg = base64.b64decode(page.tree.all("img")[0].attributes["src"].partition(",")[2])
    assert decode(jpeg).shape == (84, 84, 3)


def test_a_page_cannot_grow_over_the_limit(sample_page: Shown) -> None:
    """At any size of a data set: as many faces as a page can have, each as large as one may be."""
    most = 36 + 2 * 12 + 5 * 60 + 12 * 3 * 12 + len(Status) * 12
    texts = sum(len(face.attributes["title"]) for face in sample_page.tree.all("button", class_="face"))
    pictures = sum(len(image.attributes["src"]) for image in sample_page.tree.all("img"))
    frame = len(sample_page.text) - pictures - texts
    assert frame < 800_000
    assert frame + most * (4 / 3 * 6000 + 1000) < LIMIT


@pytest.fixture
def hostile_folder(tmp_path: Path, labelled_sample: Factory) -> Path:
    """A folder whose people and files have names that a page must not obey, as a data set of such a name."""
    job = job_of(labelled_sample)
    index = job.store.read(job.stages["index"], 0)
    stored = job.source.read(index)
    root = tmp_path / "photos"
    names = (HOSTILE_NAME, "two\nlines\tand a tab", "plain")
    for person, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(4):
            (root / name / f"{HOSTILE_NAME[:40]}{number}.jpg").write_bytes(stored[32 * person + number])
    large = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8))[1]
    (root / "plain" / "large.png").write_bytes(large.tobytes())
    (root / "plain" / "broken.jpg").write_bytes(stored[0][:300])
    manifest = tmp_path / f"{HOSTILE_NAME}.toml"
    models = 'recognition_model = "fr_feature"\npose_model = "fr_pose"\n'
    manifest.write_text(f'name = "hostile"\nformat = "image_folder"\nroot = {json.dumps(str(root))}\n{models}')
    return manifest


def test_hostile_names_are_text(sample_copy: Factory, hostile_folder: Path) -> None:
    sample_copy.luigi("LabelAll", "--dataset", str(hostile_folder), page=True)
    labels = pl.read_parquet(sample_copy.workspace / "hostile" / "labels" / "current")
    page = Shown.of(current(sample_copy, "hostile").read_text(), labels)
    assert len(page.tree.all("script")) == 2
    assert page.data["command"] == shlex.join(
        ["luigi", "--module", "pipeline", "LabelAll", "--dataset", str(hostile_folder)]
    )
    assert shlex.quote(str(hostile_folder)) in page.section("making").text
    for element in page.tree.walk():
        assert not [name for name in element.attributes if name.startswith("on")]
        assert element.attributes.get("src", "data:").startswith("data:")
    facts = [facts_of(face) for face in page.tree.all("button", class_="face")]
    people = {each["person"] for each in facts}
    assert f"{HOSTILE_NAME} (0)" in people
    assert "two\N{REPLACEMENT CHARACTER}lines\N{REPLACEMENT CHARACTER}and a tab (2)" in people
    assert any(each["file"].startswith("plain/") for each in facts)
    broken = [face for face in page.tree.all("button", class_="face") if not face.all("img")]
    assert {facts_of(face)["file"] for face in broken} == {"plain/broken.jpg"}
    # A PNG is not a stored JPEG: it is encoded anew.
    (large,) = {
        face.one("img").attributes["src"] for face in page.tree.all("button", class_="face")
        if facts_of(face)["file"] == "plain/large.png" and face.all("img")
    }  # fmt: skip
    assert decode(base64.b64decode(large.partition(",")[2])).shape == (112, 112, 3)


def test_what_a_jpeg_carries_beside_its_picture_stays_behind(copied_job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    read = type(copied_job.source).read

    def read_marked(self: Any, rows: pa.Table) -> list[Any]:
        secret = b"Exif\x00\x00where it was taken"
        segment = b"\xff\xe1" + (len(secret) + 2).to_bytes(2, "big") + secret
        return [each[:2] + segment + each[2:] for each in read(self, rows)]

    monkeypatch.setattr(type(copied_job.source), "read", read_marked)
    page = render(copied_job)
    for image in page.tree.all("img"):
        jpeg = base64.b64decode(image.attributes["src"].partition(",")[2])
        assert b"where it was taken" not in jpeg
        assert decode(jpeg).shape == (112, 112, 3)


def test_a_page_that_fails_costs_one_warning_and_no_label(sample_copy: Factory) -> None:
    folder = sample_copy.workspace / "sample" / "report"
    shutil.rmtree(folder)
    folder.write_text("a file where the pages should lie")
    done = sample_copy.luigi("LabelAll", "--labels-blur-hazy", "0.3", "--workers", "2", page=True)
    labels = pl.read_parquet(sample_copy.workspace / "sample" / "labels" / "current")
    assert (labels["blur"] == "hazy").sum() == (labels["cpbd"] < np.float32(0.3)).sum()
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line and "page" in line]
    assert len(warnings) == 1
    assert "the labels are there, but their page could not be made: " in warnings[0]
    assert str(folder) in warnings[0]
    assert "Traceback" not in done.stderr
    once = ("--scheduler-retry-count", "1")
    asked = sample_copy.luigi("LabelReport", "--labels-blur-hazy", "0.3", *once, check=False)
    assert asked.returncode == 30
    assert str(folder) in asked.stderr


def test_without_the_switch_labelling_makes_no_page(sample_copy: Factory) -> None:
    before = current(sample_copy).resolve()
    done = sample_copy.luigi("LabelAll", "--labels-blur-hazy", "0.3", "--report-page", "false")
    assert "look at the labels" not in done.stdout
    assert current(sample_copy).resolve() == before


def test_a_page_follows_its_labels_and_its_command(copied_job: Job) -> None:
    spec = report_spec(copied_job)
    assert report_spec(copied_job) == spec
    assert report_spec(replace(copied_job, asked="./sample.toml")).fingerprint != spec.fingerprint
    other = replace(copied_job.stages["labels"], version=99)
    changed = replace(copied_job, stages={**copied_job.stages, "labels": other})
    assert report_spec(changed).fingerprint != spec.fingerprint
