"""The page of labels: its numbers against the Parquet, its faces, and when it is made."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from data_manifests.tables.stages import CLASSES, Factor
from labelers.levels import binary_level, blur_level, pose_level
from pipeline.label_report.output import page_file, report_spec
from pipeline.storage.receipts import read_receipts
from tests.pipeline.shown import Shown, current, facts_of, job_of, read_current, render

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.job import Job
    from tests.pipeline.conftest import Factory

MINUS = "\N{MINUS SIGN}"
SCORES = {Factor.BLUR: "cpbd", Factor.OCCLUSION: "p_obstructed", Factor.EXPRESSION: "p_exaggerated",
          Factor.LIGHTING: "p_extreme_lighting"}  # fmt: skip


pytestmark = pytest.mark.usefixtures("workspace_variable")


def test_labelling_ends_with_the_page_and_a_second_run_does_nothing(sample_copy: Factory) -> None:
    job = job_of(sample_copy)
    spec = report_spec(job)
    page = page_file(job.store, spec)
    assert current(sample_copy).resolve() == page
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]
    (receipt,) = read_receipts(job.store, spec)
    assert receipt["rows_computed"] == 256
    assert receipt["figures"]["bytes"] == page.stat().st_size
    assert job.store.recall("report", spec.fingerprint)["upstream"] == {"labels": job.stages["labels"].fingerprint}
    before = page.stat().st_mtime_ns
    sample_copy.luigi("LabelReport")
    sample_copy.luigi("LabelAll", page=True)
    assert page.stat().st_mtime_ns == before
    assert len(read_receipts(job.store, spec)) == 1


def test_the_page_is_made_where_only_it_is_missing(sample_copy: Factory) -> None:
    first = current(sample_copy).read_bytes()
    shutil.rmtree(current(sample_copy).resolve().parent)
    said = sample_copy.luigi("LabelReport", "--report-page", "false").stdout
    assert f"look at the labels: {current(sample_copy)}" in said
    assert current(sample_copy).read_bytes() == first


def test_equal_labels_give_equal_bytes(copied_job: Job, sample_page: Shown) -> None:
    assert render(copied_job).text == sample_page.text


def test_overview_counts_what_the_labels_hold(sample_page: Shown) -> None:
    labels = sample_page.labels
    tiles = [tile.text for tile in sample_page.tree.one("ul", class_="tiles").all("li")]
    assert tiles[0].startswith("256 images 256 with every label")
    assert tiles[1].startswith("8 people median 32 images each")
    assert tiles[2] == "100.0% have a quality 256 images"
    assert [element.text for element in sample_page.tree.all("h1")] == ["Labels of sample"]
    for factor, names in CLASSES.items():
        counts = dict(labels[factor.value].value_counts().iter_rows())
        shown = sample_page.table(factor.value)
        assert list(shown) == [f"{name} nearly empty" if counts.get(name, 0) < 2.56 else name for name in names]
        for (_, cells), name in zip(shown.items(), names, strict=True):
            count = counts.get(name, 0)
            assert cells[:2] == [f"{count:,}", f"{100 * count / 256:.1f} %"]


def test_costs_are_those_of_the_labels(sample_page: Shown) -> None:
    labels = sample_page.labels
    shown = sample_page.table("cost")
    worst = {factor: names[0] for factor, names in CLASSES.items()}

    def exactly(*damaged: Factor) -> pl.DataFrame:
        return labels.filter(*((pl.col(f.value) == worst[f]) == (f in damaged) for f in Factor))

    clean = exactly()["quality"].median()
    for factor, names in CLASSES.items():
        medians = [labels.filter(pl.col(factor.value) == name)["quality"].median() for name in names]
        for name, median in zip(names, medians, strict=True):
            images, _, middle, against, _ = shown[name]
            assert int(images) == labels.filter(pl.col(factor.value) == name).height
            assert float(middle) == pytest.approx(median, abs=5.1e-4)
            if name != names[-1]:
                assert float(against.replace(MINUS, "-")) == pytest.approx(median - medians[-1], abs=5.1e-4)
        rows = exactly(factor)
        said = shown[names[0]][-1]
        assert (said == "-") == rows.is_empty()
        if not rows.is_empty():
            assert float(said.replace(MINUS, "-")) == pytest.approx(rows["quality"].median() - clean, abs=5.1e-4)
    together = sample_page.table("cost", 1)
    assert int(together["none"][0]) == exactly().height
    assert int(together["hazy"][0]) == exactly(Factor.BLUR).height


def test_correlations_are_those_of_the_labels(sample_page: Shown) -> None:
    table = sample_page.table("cost", 2)
    columns = ["cpbd", "sobel", "yaw_deg", "p_obstructed", "p_exaggerated", "p_extreme_lighting", "norm", "quality"]
    labels = sample_page.labels.with_columns(pl.col("yaw_deg").abs())
    assert len(table) == len(columns)
    for one, cells in zip(columns, table.values(), strict=True):
        for other, said in zip(columns, cells, strict=True):
            if one != other:
                ranked = labels.select(pl.corr(one, other, method="spearman")).item()
                assert float(said.replace(MINUS, "-")) == pytest.approx(ranked, abs=0.0051)


@pytest.mark.parametrize("factor", Factor)
def test_counts_at_every_mark_are_those_of_the_classification(sample_page: Shown, factor: Factor) -> None:
    split = sample_page.data["splits"][factor.value]
    thresholds = sample_page.data["thresholds"]
    labels = sample_page.labels
    assert split["total"] == 256
    for side in split["sides"]:
        marks = thresholds[side["threshold"]]["marks"]
        assert len(marks) == len(side["counts"]) > 250
        for place in range(0, len(marks), 7):
            mark = marks[place]
            if factor is Factor.BLUR:
                low, high = (mark, 9.0) if side["place"] == 0 else (-1.0, mark)
                codes = blur_level(labels["cpbd"].to_numpy(), low, high)
            elif factor is Factor.POSE:
                near, far = (-1.0, mark) if side["place"] == 0 else (mark, 999.0)
                codes = pose_level(labels["yaw_deg"].to_numpy(), near, far)
            else:
                codes = binary_level(labels[SCORES[factor]].to_numpy(), mark)
            assert side["counts"][place] == (codes == side["place"]).sum(), (side["threshold"], mark)


def test_the_command_of_a_slider_makes_what_the_slider_showed(sample_copy: Factory, sample_page: Shown) -> None:
    wanted = {"blur_hazy": 0.31, "yaw_profile": 17.5, "worse_probability": 0.2}
    thresholds = sample_page.data["thresholds"]
    options = [word for name, value in wanted.items() for word in (thresholds[name]["option"], str(value))]
    program, *words = shlex.split(sample_page.data["command"])
    assert (program, words[:3]) == ("luigi", ["--module", "pipeline", "LabelAll"])
    sample_copy.luigi(*words[2:], *options, page=True)
    made = pl.read_parquet(sample_copy.workspace / "sample" / "labels" / "current")
    for factor, split in sample_page.data["splits"].items():
        for side in split["sides"]:
            if (name := side["threshold"]) in wanted:
                place = thresholds[name]["marks"].index(wanted[name])
                assert side["counts"][place] == (made[factor] == split["classes"][side["place"]]).sum()
    again = Shown.of(current(sample_copy).read_text(), made)
    assert {name: again.data["thresholds"][name]["now"] for name in wanted} == wanted
    assert {name: again.data["thresholds"][name]["bare"] for name in wanted} == {
        "blur_hazy": 0.35, "yaw_profile": 25.0, "worse_probability": 0.5
    }  # fmt: skip


def test_the_page_of_one_image_and_of_other_settings(sample_copy: Factory) -> None:
    """The command holds every setting that the command line gave; the released recipe cuts sobel."""
    sample_copy.luigi(
        "LabelAll", "--labels-recipe", "released", "--labels-normalise", "quantile", "--limit", "1", page=True
    )
    labels = pl.read_parquet(sample_copy.workspace / "sample-first-1" / "labels" / "current")
    page = Shown.of(current(sample_copy, "sample-first-1").read_text(), labels)
    words = shlex.split(page.data["command"])[4:]
    assert dict(zip(words[::2], words[1::2], strict=True)) == {
        "--dataset": "sample", "--limit": "1", "--labels-recipe": "released", "--labels-normalise": "quantile"
    }  # fmt: skip
    assert "1 image, 100.0 %" in page.tree.text
    worst, best = page.data["splits"]["blur"]["sides"]
    marks = page.data["thresholds"]["blur_hazy"]["marks"]
    edge = float(np.float32(labels["sobel"][0]))
    assert worst["counts"] == [int(edge < np.float32(mark)) for mark in marks]
    assert best["rule"] == ">="


def test_the_page_says_what_the_reference_scores_and_offers_what_follows_known_blur(sample_page: Shown) -> None:
    section = sample_page.section("blur")
    assert "The reference scores one block of 64 x 64 pixels, the upper left one, not the whole face" in section.text
    (offer,) = [code.text for code in section.all("code")]
    assert offer == "luigi --module pipeline LabelAll --dataset sample --labels-recipe robust"
    notes = sample_page.tree.one("div", role="note")
    assert offer in [code.text for code in notes.all("code")]


def test_the_page_of_the_robust_recipe_cuts_the_edge_ratio_and_offers_no_other(sample_copy: Factory) -> None:
    sample_copy.luigi("LabelAll", "--labels-recipe", "robust", page=True)
    page = read_current(sample_copy)
    section = page.section("blur")
    assert "made of edge ratio : under 1.15 is hazy" in section.text
    assert not section.all("code")
    assert "64 x 64" not in section.text
    assert page.data["thresholds"]["blur_hazy"]["bare"] == 1.15
    assert page.data["command"].endswith("--labels-recipe robust")
    assert "edge ratio" in page.section("scores").text


@pytest.mark.parametrize("factor", Factor)
def test_the_gallery_shows_each_class_at_random_at_its_border_and_its_end(sample_page: Shown, factor: Factor) -> None:
    column = "yaw_deg" if factor is Factor.POSE else SCORES[factor]
    labels = sample_page.labels.with_columns(pl.col("yaw_deg").abs())
    grids = {
        grid.attributes["aria-label"]: grid for grid in sample_page.section(factor.value).all("ul", class_="faces")
    }
    for place, name in enumerate(CLASSES[factor]):
        own = labels.filter(pl.col(factor.value) == name)
        kinds = {kind: grids.get(f"{name}, {kind}") for kind in ("at random", "at the border", "at the end")}
        keys = {
            kind: [int(facts_of(face)["image"]) for face in grid.all("button")]
            for kind, grid in kinds.items() if grid is not None
        }  # fmt: skip
        if own.height <= 12:
            (shown,) = [grid for label, grid in grids.items() if label.startswith(f"{name}, ")]
            assert shown.attributes["aria-label"] == f"{name}, all of them"
            assert [int(facts_of(face)["image"]) for face in shown.all("button")] == own.sort(column)["key"].to_list()
            continue
        people = dict(own.select("key", "identity").iter_rows())
        for found in keys.values():
            assert set(found) <= set(people)
            assert len(found) == len(set(found)) == min(12, sum(min(2, n) for n in Counter(people.values()).values()))
            assert max(Counter(people[key] for key in found).values()) <= 2
        if place == 1 and len(CLASSES[factor]) == 3:
            assert "at the end" not in keys
            continue
        smaller_is_worse = factor is Factor.BLUR
        upward = (place == 0) == smaller_is_worse
        values = dict(own.select("key", column).iter_rows())
        for kind, descending in (("at the end", not upward), ("at the border", upward)):
            ordered = own.sort(column, descending=descending)
            wanted = two_of_each(ordered)
            assert [values[key] for key in keys[kind]] == ordered.filter(pl.col("key").is_in(wanted))[column].to_list()


def two_of_each(labels: pl.DataFrame) -> list[int]:
    """The keys of the first twelve images of which no person has more than two."""
    before: Counter[int] = Counter()
    kept = []
    for key, person in labels.select("key", "identity").iter_rows():
        before[person] += 1
        if before[person] <= 2:
            kept.append(key)
    return kept[:12]


def test_a_face_has_the_scores_of_its_row(sample_page: Shown) -> None:
    rows = {row["key"]: row for row in sample_page.labels.iter_rows(named=True)}
    faces = sample_page.tree.all("button", class_="face")
    assert len(faces) > 400
    for face in faces:
        facts = facts_of(face)
        row = rows[int(facts["image"])]
        assert facts["quality"] == f"{row['quality']:.3f}"
        assert facts["cpbd"] == f"{row['cpbd']:.3f}"
        assert float(facts["yaw"].removesuffix("°")) == pytest.approx(row["yaw_deg"], abs=0.051)
        assert facts["classes"] == ", ".join(row[factor.value] for factor in CLASSES)
        assert facts["person"] == str(row["identity"])
    pool = sample_page.tree.one("div", data_pool="blur").all("li")
    assert 40 < len(pool) <= 60
    for item in pool:
        key = int(facts_of(item.one("button"))["image"])
        assert np.float32(item.attributes["data-value"]) == np.float32(rows[key]["cpbd"])


def test_the_strip_goes_from_worst_to_best(sample_page: Shown) -> None:
    (strip,) = sample_page.tree.one("div", class_="strip").all("ul")
    shown = [float(facts_of(face)["quality"]) for face in strip.all("button")]
    assert shown == sorted(shown)
    assert len(shown) == 36
    assert (shown[0], shown[-1]) == (0.0, 1.0)
    ordered = sample_page.labels.sort("quality", "key")
    for name, labels in (("lowest quality", ordered), ("highest quality", ordered.reverse())):
        (grid,) = [ul for ul in sample_page.tree.all("ul") if ul.attributes.get("aria-label") == name]
        assert [int(facts_of(face)["image"]) for face in grid.all("button")] == two_of_each(labels)


def test_what_contradicts_itself_is_counted_and_the_command_finds_it(
    sample_page: Shown, labelled_sample: Factory, tmp_path: Path
) -> None:
    section = sample_page.section("suspects")
    heads = [head.text for head in section.all("h3")]
    labels = sample_page.labels
    damages = sum((pl.col(factor).cast(pl.String) == CLASSES[factor][0]).cast(int) for factor in Factor)
    low, high = (labels["quality"].quantile(share, "lower") for share in (0.05, 0.95))
    wanted = {
        "Nearer to another person": labels.filter(pl.col("ccs") < pl.col("nnccs")),
        "Low quality, and no factor": labels.filter(pl.col("quality") <= low, damages == 0),
        "High quality in spite of": labels.filter(pl.col("quality") >= high, damages >= 2),
    }
    told = {name: rows.height for name, rows in wanted.items() if rows.height}
    for (name, count), head in zip(told.items(), heads, strict=True):
        assert head.startswith(name)
        assert f" {count} image" in head
    for command, rows in zip(section.all("code"), filter(len, wanted.values()), strict=True):
        output = tmp_path / "found.csv"
        words = shlex.split(command.text.replace("suspects.csv", str(output)))[3:]
        labelled_sample.command(*words)
        assert pl.read_csv(output)["key"].to_list() == rows["key"].to_list()


def test_pictures_are_the_stored_images(sample_page: Shown, labelled_sample: Factory) -> None:
    job = job_of(labelled_sample)
    index = job.store.read(job.stages["index"], 0)
    stored = dict(zip(index["key"].to_pylist(), job.source.read(index), strict=True))
    for face in sample_page.tree.all("button", class_="face")[:50]:
        jpeg = base64.b64decode(face.one("img").attributes["src"].removeprefix("data:image/jpeg;base64,"))
        assert jpeg == stored[int(facts_of(face)["image"])]


def test_nothing_is_fetched_and_no_other_script_may_run(sample_page: Shown) -> None:
    for element in sample_page.tree.walk():
        for name in ("src", "href", "srcset", "action", "poster"):
            assert element.attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,"))
        assert not [name for name in element.attributes if name.startswith("on")]
    assert not re.search(r"https?:|@import", sample_page.text)
    (policy,) = [m.attributes["content"] for m in sample_page.tree.all("meta") if "http-equiv" in m.attributes]
    script = re.search(r"<script>(.*?)</script>", sample_page.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'"
    ]  # fmt: skip


def test_ids_are_unique_and_links_and_labels_lead_somewhere(sample_page: Shown) -> None:
    elements = list(sample_page.tree.walk())
    ids = [element.attributes["id"] for element in elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for name in ("for", "aria-labelledby", "aria-describedby"):
        assert {element.attributes[name] for element in elements if name in element.attributes} <= set(ids)
    assert {link.attributes["href"][1:] for link in sample_page.tree.all("a")} <= set(ids)
    for slider in sample_page.tree.all("input", type="range"):
        assert sample_page.tree.one("label", for_=slider.attributes["id"]).text
    assert all(image.attributes["alt"] for image in sample_page.tree.all("img"))


def test_stages_and_fingerprints_stand_on_the_page(sample_page: Shown, labelled_sample: Factory) -> None:
    job = job_of(labelled_sample)
    shown = sample_page.table("making")
    for spec in job.stages["labels"].closure():
        (run,) = read_receipts(job.store, spec)
        cells = shown[spec.name]
        assert cells[0] == f"{run['rows_computed']:,}"
        assert cells[-1] == spec.fingerprint
    networks = sample_page.section("making").text
    for entry in job.models.values():
        assert entry.name in networks
