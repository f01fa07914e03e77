"""LabelAll end to end on the embedded sample: what a user does, with the real command line."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.parquet as pq
import pytest

from data_manifests.tables.stages import CLASSES, LABELS, TABLES
from pipeline.commands.export import ExportFormat, write_table
from pipeline.config.job import JobError
from tests.pipeline.shown import job_of

if TYPE_CHECKING:
    from tests.pipeline.conftest import Factory


def labels_of(factory: Factory) -> pl.DataFrame:
    return pl.read_parquet(factory.workspace / "sample" / "labels" / "current")


def test_every_image_has_a_row_in_key_order(labelled_sample: Factory) -> None:
    labels = labels_of(labelled_sample)
    assert labels["key"].to_list() == list(range(1, 257))
    assert labels["identity"].n_unique() == 8
    assert labels.columns == list(LABELS.names)


def test_no_null_but_where_the_status_says_why(labelled_sample: Factory) -> None:
    labels = labels_of(labelled_sample)
    good = labels.filter(pl.col("status") == "ok")
    assert len(good) > 200
    assert good.null_count().sum_horizontal().item() == 0


def test_classes_open_as_ordered_enums(labelled_sample: Factory) -> None:
    labels = labels_of(labelled_sample)
    for factor, names in CLASSES.items():
        assert labels.schema[factor.value] == pl.Enum(list(names))
        stored = labels[factor.value].drop_nulls()
        assert stored.sort().to_list() == sorted(stored.to_list(), key=names.index)
    assert set(labels.filter(pl.col("blur") > "hazy")["blur"]) <= {"blurry", "clear"}


def test_quality_spans_the_range(labelled_sample: Factory) -> None:
    quality = labels_of(labelled_sample)["quality"].drop_nulls()
    assert quality.min() == 0.0
    assert quality.max() == 1.0


@pytest.mark.parametrize("stage", ["index", "blur", "pose", "factors", "embeddings", "anchors", "labels"])
def test_tables_keep_the_contract(labelled_sample: Factory, stage: str) -> None:
    folder = labelled_sample.workspace / "sample" / stage / "current"
    names = [p.name for p in folder.iterdir()]
    assert names == ["shard-00000.parquet"]
    schema = pq.read_schema(folder / names[0])
    assert tuple(schema.names) == TABLES[stage].names
    dimension = 512 if stage == "embeddings" else None
    assert schema.remove_metadata() == TABLES[stage].schema(dimension)
    assert schema.metadata[b"fingerprint"].decode() == folder.readlink().name


def test_a_second_run_computes_nothing(sample_copy: Factory) -> None:
    before = {p: p.stat().st_mtime_ns for p in sample_copy.workspace.rglob("*.parquet")}
    receipts = len(list(sample_copy.workspace.rglob("run-*.json")))
    sample_copy.luigi("LabelAll")
    assert {p: p.stat().st_mtime_ns for p in sample_copy.workspace.rglob("*.parquet")} == before
    assert len(list(sample_copy.workspace.rglob("run-*.json"))) == receipts


def test_a_threshold_runs_the_labels_alone_and_back_computes_nothing(sample_copy: Factory) -> None:
    change = ("--labels-blur-hazy", "0.2")
    link = sample_copy.workspace / "sample" / "labels" / "current"
    first = link.readlink()
    sample_copy.luigi("LabelAll", *change, page=True)
    made = [json.loads(p.read_text()) for p in sample_copy.workspace.rglob("run-*.json") if "report" not in p.parts]
    assert sorted(r["stage"] for r in made).count("labels") == 2
    assert all(r["stage"] == "labels" for r in made if "labels" in r["stage"])
    assert len(made) == len(TABLES) - 1 + 1  # one of each stage (identities are made for folders alone), and labels
    assert link.readlink() != first
    assert (labels_of(sample_copy)["blur"] == "hazy").sum() < 256
    sample_copy.luigi("LabelAll", page=True)
    assert link.readlink() == first
    assert len(list(sample_copy.workspace.rglob("run-*.json"))) == len(made) + 2  # and a page for each set of labels


def test_plan_says_which_field_changed(sample_copy: Factory) -> None:
    config = sample_copy.workspace / "luigi.cfg"
    config.write_text("[core]\nlocal_scheduler = true\n[labels]\nblur_hazy = 0.2\n[models]\nfactors = factors_mini\n")
    said = sample_copy.command("plan", "LabelAll", LUIGI_CONFIG_PATH=str(config)).stdout
    assert "parameters.blur_hazy: 0.35 -> 0.2" in said
    assert "1 of 9 stages would run, and then the page would be drawn" in said
    assert "nothing would run" in sample_copy.command("plan", "LabelAll").stdout


def test_one_worker_and_two_give_the_same_bytes(
    labelled_sample: Factory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = type(labelled_sample)(workspace=tmp_path_factory.mktemp("one") / "workspace")
    other.luigi("LabelAll")
    assert other.files("sample") == labelled_sample.files("sample")


def test_explain_names_the_origin_of_each_number(labelled_sample: Factory) -> None:
    said = labelled_sample.command("explain", "7").stdout
    assert "fr_feature 87aacdfe5751, float32" in said
    assert re.search(r"labels +│ \w{12} +│ version \d+, index, blur, .* │ 20\d\d-\d\d-\d\d \d\d:\d\d", said)
    assert re.search(r"^data set sample: sha256 [0-9a-f]{64}$", said, re.MULTILINE)
    assert "certainty_ratio" in said
    assert "CR-FIQA Eq. 4" in said
    unknown = labelled_sample.command("explain", "999", check=False)
    assert unknown.returncode == 1
    assert "no image with the key 999" in unknown.stderr


def test_export_csv_holds_every_row(labelled_sample: Factory, tmp_path: Path) -> None:
    target = tmp_path / "labels.csv"
    labelled_sample.command("export", "--output", str(target))
    with target.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 256
    assert set(rows[0]) == set(LABELS.names)


def test_export_follows_the_suffix(labelled_sample: Factory, tmp_path: Path) -> None:
    target = tmp_path / "labels.parquet"
    labelled_sample.command("export", "--output", str(target))
    assert pl.read_parquet(target).equals(labels_of(labelled_sample))
    lost = labelled_sample.command("export", "--output", str(tmp_path / "none" / "a.csv"), check=False)
    assert lost.returncode == 1
    assert "there is no folder" in lost.stderr


def test_export_of_some_with_their_images(labelled_sample: Factory, tmp_path: Path) -> None:
    target, images = tmp_path / "low.csv", tmp_path / "low"
    words = ("export", "--output", str(target), "--images", str(images), "--where")
    labelled_sample.command(*words, "quality < 0.3 AND blur = 'hazy'")
    labels = labels_of(labelled_sample).filter(pl.col("quality") < 0.3, pl.col("blur") == "hazy")
    found = pl.read_csv(target)
    assert 5 < found.height < 100
    assert found["key"].to_list() == labels["key"].to_list()
    assert sorted(found["path"]) == sorted(map(str, images.iterdir()))
    for key, path in found.select("key", "path").iter_rows():
        saved = tmp_path / "face.jpg"
        labelled_sample.command("explain", str(key), "--save", str(saved))
        assert Path(path).read_bytes() == saved.read_bytes()
        break


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("quality <", "unable to parse 'quality <'"),
        ("qualit < 1", 'unable to find column "qualit"'),
        ("blur = 'haze'", 'failed for value "haze"'),
        ("quality", "must be of type `Boolean`"),
        ("sum(quality) > 1", "it has one value for all rows"),
        ("", "a comparison such as quality < 0.1 is expected"),
        ("key IN (SELECT key FROM read_csv('/etc/passwd'))", "a comparison such as quality < 0.1 is expected"),
    ],
)
@pytest.mark.usefixtures("workspace_variable")
def test_what_is_no_condition_is_told(wrong: str, said: str, labelled_sample: Factory, tmp_path: Path) -> None:
    job, target = job_of(labelled_sample), tmp_path / "some.csv"
    with pytest.raises(JobError, match=r"is no condition on the columns of labels: .*describe labels") as error:
        write_table(job, target, ExportFormat.CSV, wrong)
    assert said in str(error.value)
    assert not target.exists()
    assert write_table(job, target, ExportFormat.CSV, "quality < 0") == 0


def test_export_where_no_file_can_be(labelled_sample: Factory, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    output = ("--output", str(tmp_path / "x.csv"))
    for more in (("--output", str(tmp_path)), ("--output", "x.xlsx"), (*output, "--images", str(tmp_path / "a"))):
        done = labelled_sample.command("export", *more, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "name another one" in done.stderr or "call it .csv or .parquet" in done.stderr


def test_export_for_the_authors_loader(labelled_sample: Factory, tmp_path: Path) -> None:
    target, images = tmp_path / "labels.txt", tmp_path / "images"
    labelled_sample.command("export", "--format", "clib", "--output", str(target), "--images", str(images))
    rows = [line.split() for line in target.read_text().splitlines()]
    labels = labels_of(labelled_sample)
    usable = labels.drop_nulls(["quality", *CLASSES])
    assert len(rows) == len(usable)
    for row, label in zip(rows, usable.iter_rows(named=True), strict=True):
        path, quality, blur, pose, expression, lighting, occlusion = row
        assert int(path.rsplit("/", 1)[1].removesuffix(".jpg")) == label["key"]
        assert float(quality) == pytest.approx(label["quality"], abs=1e-7)
        stored = dict(
            zip(
                ("blur", "pose", "expression", "lighting", "occlusion"),
                (blur, pose, expression, lighting, occlusion),
                strict=True,
            )
        )
        assert {k: CLASSES[k][int(v)] for k, v in stored.items()} == {k: label[k] for k in stored}  # type: ignore[index]


def test_clean_keeps_current_and_trainings(sample_copy: Factory) -> None:
    training = sample_copy.workspace / "sample" / "quality_model" / "92918ee10122" / "checkpoints"
    training.mkdir(parents=True)
    page = sample_copy.workspace / "sample" / "report"
    sample_copy.luigi("LabelAll", "--labels-blur-hazy", "0.2")
    sample_copy.luigi("LabelAll")
    stage = sample_copy.workspace / "sample" / "labels"
    assert len([p for p in stage.iterdir() if not p.is_symlink()]) == 2
    assert "would remove" in sample_copy.command("clean", "--keep", "0", "--dry-run").stdout
    assert len([p for p in stage.iterdir() if not p.is_symlink()]) == 2
    sample_copy.command("clean", "--keep", "0")
    assert training.is_dir()
    assert len([p for p in page.iterdir() if not p.is_symlink()]) == 1
    assert [p.name for p in stage.iterdir() if not p.is_symlink()] == [(stage / "current").readlink().name]
    assert len(labels_of(sample_copy)) == 256


def test_limit_has_a_folder_of_its_own(sample_copy: Factory) -> None:
    sample_copy.luigi("BlurAll", "--limit", "10")
    blur = pl.read_parquet(sample_copy.workspace / "sample-first-10" / "blur" / "current")
    assert blur["key"].to_list() == list(range(1, 11))
    assert len(labels_of(sample_copy)) == 256


def test_commands_work_from_any_folder(labelled_sample: Factory, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("luigi")), "--module", "pipeline", "LabelAll"]
    environment = labelled_sample.environment()
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_doctor_status_describe_speak(labelled_sample: Factory) -> None:
    assert "onnxruntime-gpu" in labelled_sample.command("doctor").stdout
    assert "embeddings" in labelled_sample.command("status").stdout
    assert "hazy < blurry < clear" in labelled_sample.command("describe", "labels").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("LabelAll", "--dataset", "ms1mv3"), "no data set is called 'ms1mv3'"),
        (("LabelAll", "--dataset", "lfw"), "cannot be labelled"),
        (("LabelAll", "--labels-blur-hazy", "0.9"), "blur_hazy = 0.9 must lie below blur_clear = 0.7"),
        (("LabelAll", "--labels-recipe", "papers"), "papers"),
        (("LabelAll", "--models-precision", "tf32"), "tf32 is for device = cuda, not cpu"),
        (("LabelAll", "--models-precision", "half"), "one of float32, bfloat16, tf32, float16 is expected"),
        (("LabelAll", "--blur-edges", "sobel"), "--blur-edges sobel: one of matlab, python is expected"),
        (("LabelAll", "--models-factors", "fr_feature"), "fr_feature is a network for recognition, not factors"),
        (("LabelAll", "--dataset", "casia_webface"), "the data set casia_webface"),
        (("LabelAll", "--limit", "-3"), "--limit -3"),
        (("LabelAll", "--execution-device", "cuda", "--dataset", "sample", "--limit", "9"), "choose the device cpu"),
        (("LabelAll", "--gpus", "99", "--dataset", "sample", "--limit", "9"), "asked for 99 GPU(s)"),
        (("LabelAll", "--gpus", "-1"), "--gpus -1"),
        (("LabelAll", "--execution-device", "gpu"), "--execution-device gpu: one of cpu, cuda is expected"),
        (("LabelAll", "--execution-cpu-stages", "pose, blur"), "'blur' is none of pose, factors, embeddings, anchors"),
        (("LabelAll", "--execution-gpus", "0"), "--execution-gpus 0: at least 1 is expected"),
    ],
)
def test_mistakes_give_one_clear_message(labelled_sample: Factory, words: tuple[str, ...], message: str) -> None:
    done = labelled_sample.luigi(*words, check=False)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
