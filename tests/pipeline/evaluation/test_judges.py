"""What a method loses by the errors of recognisers that did not make its labels."""

import json

import pytest

from data_manifests.weights.registry import load_registry
from pipeline.evaluation.makers import find_makers
from pipeline.evaluation.plan import make_plan
from pipeline.evaluation.report.frames import OperatingPoint, read_frames
from pipeline.evaluation.report.judges import compare_judges, describe_losses
from pipeline.evaluation.report.markdown import render_markdown
from pipeline.evaluation.report.paper_tables import write_csv
from pipeline.evaluation.report.side_by_side import Known
from pipeline.evaluation.request import EvaluationRequest
from tests.pipeline.evaluation.test_evaluation_markdown import area, make_table
from training.evaluation.error_reject import Protocol

METRICS = [
    *(area(r, "clib", pauc, 0.4, benchmark=b) for r, b, pauc in (
        ("a", "lfw", 0.5), ("b", "lfw", 0.6), ("c", "lfw", 0.8),
        ("a", "cfp", 0.7), ("b", "cfp", 0.7), ("c", "cfp", 0.9),
    )),
    *(area(r, "theirs", 0.6, 0.5, benchmark="lfw") for r in "abc"),
    *(area(r, "theirs", 0.1, 0.1, benchmark="cfp") for r in "ab"),
    area("c", "theirs", 0.1, 0.1, benchmark="cfp", status="no_errors"),
    *(area(r, "norm", 0.9, 0.9, benchmark="lfw") for r in "abc"),
]  # fmt: skip


def test_the_loss_is_over_benchmarks_where_all_judge():
    metrics = read_frames({"metrics": make_table("metrics", METRICS)})["metrics"]
    (found,) = compare_judges(metrics, {"clib": "a"})
    assert found.title == "labels by a: its errors and those of the others, FMR 1e-2"
    assert write_csv(found.table).splitlines() == [
        "method,pAUC ↓ a,pAUC ↓ the others,pAUC ↓ loss,AUC ↓ a,AUC ↓ the others,AUC ↓ loss",
        "clib,0.600,0.750,+0.150,0.400,0.400,+0.000",
        "theirs,0.600,0.600,+0.000,0.500,0.500,+0.000",
        "norm,0.900,0.900,+0.000,0.900,0.900,+0.000",
    ]
    notes = {row.name: row.footnote for row in found.table.rows}
    texts = dict(found.table.numbered)
    assert texts[notes["clib"]] == "its labels are by a"
    assert texts[notes["theirs"]] == "not known whose labels it learned from; over 1 of 2 benchmarks"
    assert texts[notes["norm"]] == "over 1 of 2 benchmarks"
    point = OperatingPoint(protocol="fixed", fmr=1e-2)
    assert list(describe_losses(metrics, {"clib": "a", "theirs": "elsewhere"}, point)) == [
        "clib, labels by a: pAUC +0.150 (0.600 by its errors, 0.750 by those of the others); AUC +0.000 (0.400 by its "
        "errors, 0.400 by those of the others)"
    ]
    report = render_markdown({"metrics": make_table("metrics", METRICS)}, Known(makers={"clib": "a"}))
    assert "| clib¹ | 0.600 | 0.750 | +0.150 |" in report


@pytest.mark.parametrize("makers", [{}, {"clib": "elsewhere"}])
def test_without_a_judge_that_made_labels_nothing_is_said(makers):
    metrics = read_frames({"metrics": make_table("metrics", METRICS)})["metrics"]
    assert list(compare_judges(metrics, makers)) == []
    alone = metrics.filter(recogniser="a")
    assert list(compare_judges(alone, {"clib": "a"})) == []


def test_the_recogniser_of_a_training_is_that_of_its_labels(sample_copy, tmp_path):
    store = sample_copy.workspace / "sample"
    labels = (store / "labels" / "current").resolve().name
    run = store / "quality_model" / "0123456789ab"
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(b"weights")
    (run / "config.json").write_text(json.dumps({"data": {"labels_fingerprint": labels}}))
    trained = tmp_path / "trained"  # a recogniser with a quality
    trained.mkdir()
    (trained / "config.json").write_text("{}")
    beside = tmp_path / "beside"  # a network that lies beside a recogniser
    beside.mkdir()
    for folder in (trained, beside):
        (folder / "quality.pt").write_bytes(b"weights")
        entry = load_registry().get("fr_feature")
        (folder / "models.toml").write_text(
            '[mine]\nkind = "recognition"\nversion = 1\nlicence = "mine"\nbatch = 1\n'
            f'files = [{{ name = "mine.onnx", sha256 = "{entry.files[0].sha256}" }}]\n'
            'input = { width = 112, height = 112, colour = "rgb", mean = [0, 0, 0], std = [1, 1, 1] }\n'
            'output = { kind = "embedding", dimension = 512 }\n'
        )
    lost = tmp_path / "lost"
    lost.mkdir()
    (lost / "model.safetensors").write_bytes(b"others")
    methods = f"ours=model:{run},file=model:{run / 'model.safetensors'},lost=model:{lost},ccs:fr_feature,norm"
    methods += f",trained=model:{trained / 'quality.pt'},beside=model:{beside / 'quality.pt'}"
    request = EvaluationRequest(
        benchmarks=("sample",), recognisers=(), methods=methods, protocols=(Protocol.FIXED,), fmrs=(0.1,), replicates=0,
        fewest_impostors=0, correlate=False, limit=0, workspace=store.parent,
    )  # fmt: skip
    assert find_makers(make_plan(request)) == {
        "ours": "fr_feature", "file": "fr_feature", "ccs (fr_feature)": "fr_feature", "trained": "fr_feature",
    }  # fmt: skip
