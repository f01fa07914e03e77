"""EvaluateQuality end to end: small benchmarks of every kind, the real recogniser, and what goes wrong."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import spearmanr

from data_manifests.sample import draw_images
from data_manifests.tables.evaluation import EVALUATION_TABLES
from data_manifests.weights.files import find
from data_manifests.weights.registry import load_registry
from labelers.faces import decode
from pipeline.config.job import change_recogniser, resolve
from pipeline.evaluation.methods import MethodError
from pipeline.evaluation.plan import make_plan
from pipeline.evaluation.request import (
    EvaluationError,
    EvaluationRequest,
    TemplateWeight,
    read_protocols,
    read_rates,
    read_weights,
)
from tests.pipeline.conftest import ROOT, Factory
from training.evaluation.error_reject import Protocol, area, curve, threshold
from training.evaluation.methods.baselines import random_quality
from training.evaluation.methods.networks import QualityNetworkError
from training.evaluation.templates import measure_tar
from training.evaluation.verification import measure_accuracy

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FMRS = "0.1"
RATIO = "certainty_ratio (ratio)"
"""How the method that the command calls `ratio` is called."""
BROKEN = 11
"""Key of the image of the pairs that does not decode."""
FARS = (1e-4, 1e-5, 1e-6)


def write_network(path: Path, sign: float = 1.0) -> Path:
    """A network that takes brightness for quality."""
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "sign"], ["score"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([1, 2, 3]), "axes"),
        numpy_helper.from_array(np.float32(sign), "sign"),
    ]
    takes = helper.make_tensor_value_info("input", TensorProto.FLOAT, ("N", 3, 112, 112))
    gives = helper.make_tensor_value_info("score", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "brightness", [takes], [gives], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def write_bin(folder: Path, images: list[bytes], same: list[bool], name: str) -> Path:
    (folder / f"{name}.bin").write_bytes(pickle.dumps((images, same), 2))
    manifest = folder / f"{name}.toml"
    manifest.write_text(
        f'name = "{name}"\nformat = "verification"\nroot = "."\nrecord_file = "{name}.bin"\npose_model = "fr_pose"\n'
    )
    return manifest


DETECTED = [0.5 + row / 64 for row in range(30)]
"""The detector's scores of the faces in the lists of templates."""


def write_templates(folder: Path, images: list[bytes], people: list[int]) -> Path:
    """Templates of three images each, two of which are of one medium; all pairs of templates."""
    root = folder / "sets"
    (root / "meta").mkdir(parents=True)
    (root / "aligned_112").mkdir()
    points = " ".join(["50"] * 10)
    owners, faces = [], []
    for row, image in enumerate(images):
        if row != 4:  # an image that the lists name is missing
            (root / "aligned_112" / f"{row}.jpg").write_bytes(image)
        owners.append(f"{row}.jpg {row // 3} {row % 3 // 2}")
        faces.append(f"{row}.jpg {points} {DETECTED[row]}")
    count = len(images) // 3
    pairs = [(a, b, int(people[3 * a] == people[3 * b])) for a in range(count) for b in range(a + 1, count)]
    (root / "meta" / "x_face_tid_mid.txt").write_text("\n".join(owners) + "\n")
    (root / "meta" / "x_name_5pts_score.txt").write_text("\n".join(faces) + "\n")
    (root / "meta" / "x_template_pair_label.txt").write_text("".join(f"{a} {b} {same}\n" for a, b, same in pairs))
    (folder / "sets.toml").write_text('name = "sets"\nformat = "templates"\nroot = "sets"\npose_model = "fr_pose"\n')
    return folder / "sets.toml"


def write_people(folder: Path, people: list[list[bytes]]) -> Path:
    for person, images in enumerate(people):
        for number, image in enumerate(images):
            path = folder / "people" / f"p{person}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
    (folder / "people.toml").write_text(
        'name = "people"\nformat = "image_folder"\nroot = "people"\npose_model = "fr_pose"\n'
    )
    return folder / "people.toml"


class Benchmarks:
    """Files of small benchmarks, and the words that evaluate on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        drawn = list(draw_images())
        people = [[i.encoded for i in drawn if i.identity == person] for person in range(8)]
        images, same = [], []
        for number in range(20):
            own, other = people[number % 4], people[number % 4 + 4]
            images += [own[number % 16], own[16 + number // 4], own[number % 16], other[number % 16]]
            same += [True, False]
        images[BROKEN - 1] = b"no image"
        self.pairs = write_bin(folder, images, same, "pairs")
        self.images = images
        kept = [image for image in drawn if image.identity < 4][::4]
        self.sets = write_templates(folder, [i.encoded for i in kept][:30], [i.identity for i in kept])
        (folder / "away.toml").write_text(
            'name = "away"\nformat = "verification"\nroot = "nowhere"\nrecord_file = "a.bin"\ndownload = "ask for it"\n'
        )
        self.network = write_network(folder / "bright.onnx")
        self.people = write_people(folder, [pick[::4] for pick in people])
        rows = ["benchmark,key,path,score"] + [f"pairs,{key},,{key % 7}" for key in range(1, 75)] + ["pairs,999,,1"]
        rows += [f"people,,/somewhere/p{person}/{number}.jpg,{person}" for person in range(8) for number in range(8)]
        (folder / "list.csv").write_text("\n".join(rows) + "\n")
        (folder / "models").mkdir()
        entry = load_registry().get("fr_feature")
        (weights,) = find(entry)
        (folder / "models" / "swapped.onnx").write_bytes(weights.read_bytes())
        (folder / "models" / "models.toml").write_text(
            '[swapped]\nkind = "recognition"\nversion = 1\nlicence = "as fr_feature"\nbatch = 32\n'
            f'files = [{{ name = "swapped.onnx", bytes = {entry.files[0].bytes}, sources = [] }}]\n'
            'input = { width = 112, height = 112, colour = "rgb", mean = [127, 127, 127], std = [128, 128, 128] }\n'
            'output = { kind = "embedding", dimension = 512 }\n'
        )

    @property
    def words(self) -> tuple[str, ...]:
        names = [str(self.folder / f"{name}.toml") for name in ("pairs", "sets", "away", "people")]
        methods = f"light=onnx:{self.network},table:{self.folder / 'list.csv'},norm,sobel,certainty_ratio,random"
        methods += ",ccs,ratio=certainty_ratio:swapped"
        return (
            "EvaluateQuality", "--benchmarks", ",".join(names), "--recognition", "fr_feature,swapped",
            "--methods", methods, "--protocols", "fixed,cr_fiqa", "--replicates", "50",
            "--fewest-errors", "0",
        )  # fmt: skip


def evaluate(factory: Factory, benchmarks: Benchmarks, *words: str) -> subprocess.CompletedProcess[str]:
    folders = os.pathsep.join([str(benchmarks.folder / "models"), os.environ.get("FIQA_MODELS", "")]).rstrip(os.pathsep)
    return factory.luigi(*benchmarks.words, *words, FIQA_MODELS=folders)


@pytest.fixture(scope="module")
def benchmarks(sample_weights: None, tmp_path_factory: pytest.TempPathFactory) -> Benchmarks:
    return Benchmarks(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="module")
def evaluated(
    benchmarks: Benchmarks, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Factory, subprocess.CompletedProcess[str]]:
    """A workspace with an evaluation, and what the terminal said."""
    factory = Factory(workspace=tmp_path_factory.mktemp("evaluated") / "workspace")
    return factory, evaluate(factory, benchmarks, "--fmrs", FMRS)


def table(factory: Factory, name: str) -> pl.DataFrame:
    return pl.read_parquet(factory.workspace / "evaluation" / "current" / f"{name}.parquet").with_columns(
        pl.selectors.categorical().cast(pl.String)
    )


def embeddings_of(factory: Factory, name: str, recogniser: str) -> NDArray[np.float64]:
    """Unit embeddings by row of one recogniser, float64 [N, 512]; NaN where there is none."""
    for path in (factory.workspace / "_receipts").rglob("made_from.json"):
        described = {b["name"]: b for b in json.loads(path.read_text())["parameters"]["benchmarks"]}
        stage = next(r["embeddings"] for r in described[name]["recognisers"] if r["name"] == recogniser)
    column = pl.read_parquet(factory.workspace / name / "embeddings" / stage)["embedding"]
    nothing = np.full(512, np.nan, np.float16).tobytes()
    vectors = np.stack([np.frombuffer(v or nothing, np.float16) for v in column]).astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def quality_of(factory: Factory, benchmark: str, method: str) -> NDArray[np.float64]:
    rows = table(factory, "qualities").filter(benchmark=benchmark, method=method)
    return rows["quality"].cast(pl.Float64).fill_null(-np.inf).to_numpy()


def test_all_tables_are_there(evaluated: tuple[Factory, subprocess.CompletedProcess[str]]) -> None:
    factory, _ = evaluated
    for name, described in EVALUATION_TABLES.items():
        assert tuple(table(factory, name).columns) == described.names, name
        assert len(table(factory, name)) or name == "losses", name  # no method is a training
    metrics = table(factory, "metrics")
    assert set(metrics["benchmark"]) == {"pairs", "sets", "people"}
    assert set(metrics["recogniser"]) == {"fr_feature", "swapped"}
    assert set(metrics.filter(benchmark="pairs")["method"]) == {"light", "list", "norm", "sobel", "random", "floor"}
    assert set(metrics.filter(benchmark="people")["method"]) == {
        "light", "list", "norm", "sobel", "certainty_ratio", "random", "floor", "ccs", RATIO,
    }  # fmt: skip
    names = set(table(factory, "qualities").filter(benchmark="pairs")["method"])
    assert names == {"light", "list", "norm (fr_feature)", "norm (swapped)", "sobel", "random"}
    assert set(table(factory, "templates")["method"]) == {"mean", "light", "norm", "sobel", "random"}
    assert set(table(factory, "accuracy")["benchmark"]) == {"pairs"}


def test_areas_of_pairs_are_those_of_the_curve(
    evaluated: tuple[Factory, subprocess.CompletedProcess[str]], benchmarks: Benchmarks
) -> None:
    factory, _ = evaluated
    for recogniser in ("fr_feature", "swapped"):
        units = embeddings_of(factory, "pairs", recogniser)
        kept = ~np.isnan(units[0::2, 0] + units[1::2, 0])
        assert kept.sum() == 39
        same = np.tile([True, False], 20)[kept]
        similarity = (units[0::2] * units[1::2]).sum(axis=1)[kept].astype(np.float32)
        for method in ("light", "list", "norm", "sobel", "random"):
            name = f"norm ({recogniser})" if method == "norm" else method
            quality = quality_of(factory, "pairs", name)
            of_pairs = np.minimum(quality[0::2], quality[1::2])[kept]
            for protocol, rule in ((Protocol.FIXED, "step"), (Protocol.CR_FIQA, "trapezoid")):
                found = table(factory, "metrics").filter(
                    benchmark="pairs", recogniser=recogniser, method=method, protocol=protocol.value, fmr=0.1
                )
                assert len(found) == 1
                points = curve(similarity, same, of_pairs, 0.1, protocol)
                assert found["fnmr"].item() == pytest.approx(points[1][0])
                assert found["pauc"].item() == pytest.approx(area(*points, 0.3, rule), abs=1e-6, nan_ok=True)
                assert found["auc"].item() == pytest.approx(area(*points, 0.95, rule), abs=1e-6, nan_ok=True)
        accuracy = table(factory, "accuracy").filter(recogniser=recogniser)
        folds = np.repeat(np.arange(10), 4)[kept]
        assert accuracy["accuracy"].item() == pytest.approx(measure_accuracy(similarity, same, folds).mean)
    metrics = table(factory, "metrics").filter(benchmark="pairs")
    assert metrics["status"].unique().to_list() == ["ok"]  # though 2 of 20 alone may match
    assert table(factory, "metrics").filter(benchmark="people")["status"].unique().to_list() == ["ok"]
    assert metrics.filter(protocol="fixed")["auc"].is_finite().all()


def test_a_printed_table_is_that_of_the_metrics(evaluated: tuple[Factory, subprocess.CompletedProcess[str]]) -> None:
    factory, _ = evaluated
    folder = factory.workspace / "evaluation" / "current"
    written = (folder / "tables" / "swapped-FMR-1e-1.csv").read_text().splitlines()
    rows = table(factory, "metrics").filter(recogniser="swapped", protocol="fixed", fmr=0.1)
    areas = {(r["benchmark"], r["method"], a): r[a] for r in rows.iter_rows(named=True) for a in ("pauc", "auc")}
    places = [(benchmark, area) for benchmark in ("pairs", "sets", "people") for area in ("pauc", "auc")]
    heads = [f"{benchmark} {'pAUC' if area == 'pauc' else 'AUC'} ↓" for benchmark, area in places]
    assert written[0].split(",") == ["method", *heads, "Avg. pAUC ↓", "Avg. AUC ↓"]
    assert {line.split(",")[0] for line in written[1:]} == set(rows["method"])
    for line in written[1:]:
        method, *cells = line.split(",")
        found = [areas.get((benchmark, method, area)) for benchmark, area in places]
        means = [sum(found[place::2]) / 3 for place in (0, 1)] if None not in found else [None] * 2
        assert cells == ["" if value is None else f"{value:.3f}" for value in [*found, *means]]
        latex = (folder / "tables" / "swapped-FMR-1e-1.tex").read_text()
        assert all(cell in latex for cell in cells)


def test_qualities_are_what_their_methods_say(
    evaluated: tuple[Factory, subprocess.CompletedProcess[str]], benchmarks: Benchmarks
) -> None:
    factory, _ = evaluated
    faces = [i for i in benchmarks.images if i != b"no image"]
    bright = np.array([(decode(face).mean() - 127.5) / 127.5 for face in faces])
    found = np.delete(quality_of(factory, "pairs", "light"), BROKEN - 1)
    np.testing.assert_allclose(found, bright, atol=1e-4)
    assert quality_of(factory, "pairs", "light")[BROKEN - 1] == -np.inf
    keys = np.arange(1, 81, dtype=np.int32)
    np.testing.assert_array_equal(quality_of(factory, "pairs", "random"), random_quality(keys).astype(np.float32))
    listed = quality_of(factory, "pairs", "list")
    np.testing.assert_array_equal(listed, np.where(keys < 75, keys % 7, -np.inf))
    unscored = table(factory, "metrics").filter(benchmark="pairs", method="list", recogniser="swapped")["unscored"]
    assert set(unscored) == {2}  # 77 and 78, for 75, 76, 79 and 80 are in impostor pairs
    norm = pl.read_parquet(factory.workspace / "people" / "embeddings" / "current")["norm"]
    np.testing.assert_array_equal(quality_of(factory, "people", "norm (fr_feature)"), norm.to_numpy())
    assert not np.array_equal(quality_of(factory, "people", "norm (swapped)"), norm.to_numpy())
    assert quality_of(factory, "people", "list").tolist() == [person for person in range(8) for _ in range(8)]


def test_anchors_are_the_judge_s_own_or_those_of_the_recogniser_that_is_named(
    evaluated: tuple[Factory, subprocess.CompletedProcess[str]],
) -> None:
    factory, _ = evaluated
    (made_from,) = (factory.workspace / "_receipts" / "evaluation").rglob("made_from.json")
    described = {b["name"]: b for b in json.loads(made_from.read_text())["parameters"]["benchmarks"]}
    assert "anchored" not in described["pairs"]  # nobody knows who is on its pictures
    anchors = {r["name"]: r["anchors"] for r in described["people"]["recognisers"]}
    assert described["people"]["anchored"] == {RATIO: anchors["swapped"]}
    found = {n: pl.read_parquet(factory.workspace / "people" / "anchors" / a) for n, a in anchors.items()}
    for method, judge, column in (
        (RATIO, "swapped", "certainty_ratio"),
        ("certainty_ratio (fr_feature)", "fr_feature", "certainty_ratio"),
        ("ccs (swapped)", "swapped", "ccs"),
    ):
        np.testing.assert_array_equal(quality_of(factory, "people", method), found[judge][column].to_numpy())
    metrics = table(factory, "metrics").filter(benchmark="people", protocol="fixed")
    areas = {(r["recogniser"], r["method"]): r["auc"] for r in metrics.iter_rows(named=True)}
    assert areas["swapped", RATIO] == areas["swapped", "certainty_ratio"]
    assert areas["fr_feature", RATIO] != areas["fr_feature", "certainty_ratio"]


def test_correlations_are_of_the_measures(evaluated: tuple[Factory, subprocess.CompletedProcess[str]]) -> None:
    factory, _ = evaluated
    rows = table(factory, "correlations").filter(benchmark="people")
    assert set(rows["measure"]) == {
        "cpbd", "sobel", "abs_yaw_deg", "abs_pitch_deg", "p_obstructed", "p_exaggerated", "p_extreme_lighting",
        "certainty_ratio",
    }  # fmt: skip
    yaw = pl.read_parquet(factory.workspace / "people" / "pose" / "current")["yaw_deg"].abs().to_numpy()
    light = quality_of(factory, "people", "light")
    known = ~np.isnan(yaw)
    found = rows.filter(method="light", measure="abs_yaw_deg")
    assert found["spearman"].item() == pytest.approx(spearmanr(light[known], yaw[known]).statistic, abs=1e-6)
    assert found["images"].item() == known.sum()
    assert rows.filter(method="sobel", measure="sobel")["spearman"].item() == pytest.approx(1.0)


class TemplateLists:
    """The lists of the benchmark `sets`, without its missing image 4."""

    def __init__(self, benchmarks: Benchmarks) -> None:
        lines = (benchmarks.folder / "sets" / "meta" / "x_template_pair_label.txt").read_text().split()
        self.a, self.b, same = np.array(lines, int).reshape(-1, 3).T
        self.same = same == 1
        self.there = np.arange(30) != 4
        self.template, self.medium = np.repeat(np.arange(10), 3)[self.there], np.tile([0, 0, 1], 10)[self.there]

    def pool(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Unit templates of the images that are there: media first, then their sum."""
        found = []
        for number in range(10):
            media = {m: vectors[(self.template == number) & (self.medium == m)] for m in (0, 1)}
            found.append(sum(images.mean(axis=0) for images in media.values() if len(images)))
        return np.stack([each / np.linalg.norm(each) for each in found])


def test_templates_are_pooled_with_and_without_quality(
    evaluated: tuple[Factory, subprocess.CompletedProcess[str]], benchmarks: Benchmarks
) -> None:
    factory, _ = evaluated
    lists = TemplateLists(benchmarks)
    units = embeddings_of(factory, "sets", "swapped")
    assert np.flatnonzero(np.isnan(units[:, 0])).tolist() == [4]
    units = units[lists.there]
    rows = table(factory, "templates").filter(recogniser="swapped")
    assert set(rows["status"]) == {"ok"}
    for method in ("mean", "light"):
        weights = np.ones(29)
        if method == "light":
            quality = quality_of(factory, "sets", "light")[lists.there]
            weights = (quality - quality.min()) / (quality.max() - quality.min())
        pooled = lists.pool(weights[:, None] * units)
        similarity = (pooled[lists.a] * pooled[lists.b]).sum(axis=1).astype(np.float32)
        tars = measure_tar(similarity, lists.same)
        found = dict(rows.filter(method=method).select("far", "tar").iter_rows())
        assert found == pytest.approx({far: tars[far] for far in FARS})
        printed = factory.workspace / "evaluation" / "current" / "tables" / "sets-true-accept-rate.csv"
        (line,) = (line for line in printed.read_text().splitlines() if line.startswith(f"{method},"))
        assert line.split(",")[4:] == [f"{100 * tars[far]:.2f}" for far in sorted(FARS)]


def test_pairs_of_templates_are_rejected_by_their_worst_image(
    evaluated: tuple[Factory, subprocess.CompletedProcess[str]], benchmarks: Benchmarks
) -> None:
    factory, _ = evaluated
    lists = TemplateLists(benchmarks)
    pooled = lists.pool(embeddings_of(factory, "sets", "swapped")[lists.there])
    similarity = (pooled[lists.a] * pooled[lists.b]).sum(axis=1).astype(np.float32)
    for method in ("light", "norm", "random"):
        name = "norm (swapped)" if method == "norm" else method
        quality = quality_of(factory, "sets", name)[lists.there]
        worst = np.array([quality[lists.template == number].min() for number in range(10)])
        of_pairs = np.minimum(worst[lists.a], worst[lists.b])
        for protocol, rule in ((Protocol.FIXED, "step"), (Protocol.CR_FIQA, "trapezoid")):
            found = table(factory, "metrics").filter(
                benchmark="sets", recogniser="swapped", method=method, protocol=protocol.value, fmr=0.1
            )
            points = curve(similarity, lists.same, of_pairs, 0.1, protocol)
            assert found["genuine"].item() == lists.same.sum()
            assert found["fnmr"].item() == pytest.approx(points[1][0])
            expected = area(*points, 0.95, rule, normalised=False)
            # With so few pairs, the highest rates of `cr_fiqa` keep no pair of one kind.
            assert np.isfinite(expected) or protocol is Protocol.CR_FIQA
            assert found["auc_raw"].item() == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert set(table(factory, "comparisons")["benchmark"]) == {"pairs", "sets", "people"}
    assert "sets" not in set(table(factory, "accuracy")["benchmark"])


def test_features_of_templates_are_weighted_and_flipped_as_insightface_does(
    evaluated: tuple[Factory, subprocess.CompletedProcess[str]], benchmarks: Benchmarks, tmp_path: Path
) -> None:
    factory = Factory(workspace=tmp_path / "workspace")
    words = ("--benchmarks", str(benchmarks.folder / "sets.toml"), "--recognition", "swapped", "--methods", "norm",
             "--models-flip", "true", "--template-weights", "detector,norm", "--no-correlate",
             "--replicates", "0", "--protocols", "cr_fiqa", "--fmrs", FMRS)  # fmt: skip
    done = evaluate(factory, benchmarks, *words)
    assert not done.returncode, done.stderr
    faces = np.stack([decode((benchmarks.folder / "sets" / "aligned_112" / f"{row}.jpg").read_bytes())
                      for row in range(30) if row != 4])  # fmt: skip
    entry = load_registry().get("fr_feature")
    spec = entry.input
    assert spec is not None
    session = onnxruntime.InferenceSession(find(entry)[0])

    def embed(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        shown = (images.astype(np.float32) - 127) / 128  # as the entry of `swapped` says, in RGB
        blobs = np.ascontiguousarray(shown.transpose(0, 3, 1, 2))
        name = session.get_inputs()[0].name
        return np.concatenate([session.run(None, {name: blob[None]})[0] for blob in blobs]).astype(np.float64)

    features = embed(faces) + embed(faces[:, :, ::-1])
    lists = TemplateLists(benchmarks)
    pooled = lists.pool(features * np.array(DETECTED)[lists.there, None])
    similarity = (pooled[lists.a] * pooled[lists.b]).sum(axis=1).astype(np.float32)
    tars = measure_tar(similarity, lists.same)
    rows = table(factory, "templates").filter(method="mean")
    assert dict(rows.select("far", "tar").iter_rows()) == pytest.approx({far: tars[far] for far in FARS})
    norm = quality_of(factory, "sets", "norm")[lists.there]
    np.testing.assert_allclose(norm, np.linalg.norm(features, axis=1), rtol=1e-3)
    found = table(factory, "metrics").filter(method="norm", fmr=0.1)
    assert found["threshold"].item() == pytest.approx(threshold(similarity, lists.same, 0.1), abs=2e-3)
    report = (factory.workspace / "evaluation" / "current" / "report.md").read_text()
    assert "- templates: sums of unit embeddings times the detector's score of the face and their norm" in report
    assert "- embeddings: each the sum of those of a face and of its mirror image" in report


def test_what_is_missing_or_left_out_is_said(evaluated: tuple[Factory, subprocess.CompletedProcess[str]]) -> None:
    factory, done = evaluated
    assert "away is left out: the data set away" in done.stderr
    assert "left out: away; the data set away" in done.stdout
    assert done.stdout.count("ask for it") == 1
    assert f"{RATIO}, labels by swapped: pAUC" in done.stdout
    assert (
        "by key (not '999'); 74 of 80 images have a score (not '75', '76', '77', ..., which are rejected"
        in done.stdout.replace("\n", " ")
    )
    folder = factory.workspace / "evaluation" / "current"
    assert f"all tables and pictures: {folder.resolve() / 'index.html'}" in done.stdout.replace("\n", "")
    report, page = (folder / "report.md").read_text(), (folder / "index.html").read_text()
    for said in (
        "away is not at hand and left out",
        "certainty_ratio is not defined on pairs and left out there",
        "certainty_ratio is not defined on sets and left out there",
        f"{RATIO} is not defined on pairs and left out there",
        "list.csv on pairs: 74 of 75 rows name an image, by key (not ",
        "74 of 80 images have a score (not ",
        "which are rejected first). Quality is column score",
        "list.csv on people: 64 of 64 rows name an image, by path; 64 of 64 images have a score.",
        "none of its 139 rows names an image of sets, by ",
        "no row is about it",
        "1 images are left out, for want of an embedding",
    ):
        assert said in re.sub(r"\\(.)", r"\1", report), said
        assert said in page, said
    assert str(factory.workspace) not in report + page


def test_the_page_shows_faces_of_every_kind_of_benchmark(
    evaluated: tuple[Factory, subprocess.CompletedProcess[str]],
) -> None:
    factory, _ = evaluated
    page = (factory.workspace / "evaluation" / "current" / "index.html").read_text()
    assert page.count("data:image/jpeg") > 3 * 5 * 24
    assert re.search(r"image \d+, quality [^,]+, cpbd ", page)


def test_another_rate_computes_the_evaluation_alone_and_back_nothing(
    evaluated: tuple[Factory, subprocess.CompletedProcess[str]], benchmarks: Benchmarks
) -> None:
    factory, _ = evaluated
    link = factory.workspace / "evaluation" / "current"
    first = link.readlink()

    def receipts() -> set[Path]:
        return set(factory.workspace.rglob("run-*.json"))

    before, files = receipts(), factory.files("evaluation", first.name)
    (made_from,) = (factory.workspace / "_receipts" / "evaluation" / first.name).glob("made_from.json")
    assert json.loads(made_from.read_text())["parameters"]["fmrs"] == [0.1]
    done = evaluate(factory, benchmarks, "--fmrs", "0.2", "--no-correlate", "--fewest-errors", "30", "--workers", "2")
    assert {path.parent.parent.name for path in receipts() - before} == {"evaluation"}
    assert link.readlink() != first
    assert set(table(factory, "metrics")["fmr"]) == {0.2}
    assert len(table(factory, "correlations")) == 0
    check_few_errors(factory, done.stdout)
    before = receipts()
    evaluate(factory, benchmarks, "--fmrs", FMRS)
    assert receipts() == before
    assert link.readlink() == first
    assert factory.files("evaluation", first.name) == files
    assert not list((factory.workspace / "_staging").rglob("*.parquet"))


def check_few_errors(factory: Factory, said: str) -> None:
    """What rests on fewer than thirty wrong pairs is shown, and neither ranked nor compared; the rest is."""
    metrics = table(factory, "metrics").filter(pl.col("errors") > 0)
    few = pl.col("errors") < 30
    assert metrics.filter(few)["status"].unique().to_list() == ["too_few_errors"]
    assert "too_few_errors" not in metrics.filter(~few)["status"].to_list()
    assert metrics["errors"].to_list() == pytest.approx((metrics["fnmr"] * metrics["genuine"]).to_list())
    assert metrics.filter(few)["auc"].is_finite().any()
    assert metrics.filter(few)["pauc_low"].null_count() == metrics.filter(few).height
    fixed = metrics.filter(protocol="fixed")
    assert fixed["draws"].unique().to_list() == [50]
    assert dict(fixed["benchmark", "drawn"].rows()) == {"pairs": "pairs", "sets": "people", "people": "people"}
    tests = table(factory, "comparisons").join(fixed.filter(few), on=("benchmark", "recogniser", "fmr"), how="semi")
    assert tests.height
    assert tests["p_value"].null_count() == tests.height
    assert tests["difference"].is_finite().all()
    assert "too few errors" in said
    assert "by fewer than 30 wrong pairs no method is ranked or compared" in said.replace("\n", " ")
    folder = factory.workspace / "evaluation" / "current"
    report, page = (folder / "report.md").read_text(), (folder / "index.html").read_text()
    row = fixed.filter(few & (pl.col("benchmark") == "pairs")).row(0, named=True)
    note = f"{row['errors']} of {row['genuine']} genuine pairs are wrong at FMR 2e-1: too few to rank methods"
    assert note in report
    assert note in page
    section = report[report.index("## pairs") : report.index("## sets")]
    assert "**" not in section
    assert "against every other" not in section


def test_what_is_doubtful_is_said_everywhere(evaluated: tuple[Factory, subprocess.CompletedProcess[str]]) -> None:
    factory, done = evaluated
    folder = factory.workspace / "evaluation" / "current"
    said = f"certainty_ratio and {RATIO} reject the same pairs, so their numbers are the same: people with swapped"
    assert f"warning: {said}" in done.stdout
    assert f"- **Warning**: {said}" in (folder / "report.md").read_text()
    assert f"<strong>Warning</strong>: {said}." in (folder / "index.html").read_text()
    metadata = pq.read_metadata(folder / "metrics.parquet").metadata
    assert said in json.loads(metadata[b"warnings"])
    assert "┃ note" in done.stdout  # no column is without a name


def test_weights_of_templates_need_templates(benchmarks: Benchmarks, tmp_path: Path) -> None:
    asked = replace(ask(benchmarks, tmp_path, "pairs"), template_weights=(TemplateWeight.NORM,))
    with pytest.raises(EvaluationError, match="--template-weights norm: none of the benchmarks is of format templates"):
        make_plan(asked)
    both = replace(asked, benchmarks=(*asked.benchmarks, str(benchmarks.sets)))
    assert [each.template_weights for each in make_plan(both).benchmarks] == [None, ("norm",)]


# --- a network's scores survive a kill ------------------------------------------------------------------------------

SCORE = """
import sys, luigi
from pathlib import Path
import pipeline
from pipeline.evaluation.request import EvaluationRequest
from pipeline.evaluation.plan import make_plan
from pipeline.tasks.evaluation import Quality
from training.evaluation.pairs.ranked_pairs import Protocol

if __name__ == "__main__":
    toml, network, workspace, processes = sys.argv[1:]
    plan = make_plan(EvaluationRequest(benchmarks=(toml,), recognisers=(), methods=f"n=onnx:{network}",
        protocols=(Protocol.FIXED,), fmrs=(0.1,), replicates=0, fewest_impostors=0, correlate=False, limit=0,
        workspace=Path(workspace)))
    task = Quality.by(plan.sources.factories["n"], plan.benchmarks[0].scorings["n"], int(processes))
    sys.exit(not luigi.build([task], local_scheduler=True, log_level="WARNING"))
"""


def start_scoring(toml: Path, network: Path, workspace: Path, processes: int) -> subprocess.Popen[bytes]:
    script = toml.parent / "score.py"
    script.write_text(SCORE)
    return subprocess.Popen(
        [sys.executable, str(script), str(toml), str(network), str(workspace), str(processes)],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_a_killed_scoring_goes_on_and_gives_the_same_bytes(benchmarks: Benchmarks, tmp_path: Path) -> None:
    faces = [image for image in benchmarks.images if image != b"no image"]
    images = [faces[place % 70] for place in range(6144)]
    toml = write_bin(tmp_path, images, [True] * 3072, "many")
    whole, killed = Factory(workspace=tmp_path / "whole"), Factory(workspace=tmp_path / "killed")
    assert start_scoring(toml, benchmarks.network, whole.workspace, 1).wait() == 0
    assert len(whole.files("many", "quality")) == 6
    process = start_scoring(toml, benchmarks.network, killed.workspace, 2)
    deadline = time.monotonic() + 300
    while not killed.files("many", "quality") and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    there = {p: p.stat().st_mtime_ns for p in (killed.workspace / "many" / "quality").rglob("*.parquet")}
    assert 0 < len(there) < 6
    assert start_scoring(toml, benchmarks.network, killed.workspace, 2).wait() == 0
    assert killed.files("many", "quality") == whole.files("many", "quality")
    assert {p: p.stat().st_mtime_ns for p in there} == there


# --- what cannot be -------------------------------------------------------------------------------------------------


def ask(benchmarks: Benchmarks, workspace: Path, *names: str, methods: str = "norm") -> EvaluationRequest:
    return EvaluationRequest(
        benchmarks=tuple(str(benchmarks.folder / f"{name}.toml") for name in names),
        recognisers=(),
        methods=methods,
        protocols=(Protocol.FIXED,),
        fmrs=(0.1,),
        replicates=10,
        fewest_impostors=0,
        correlate=False,
        limit=0,
        workspace=workspace,
    )


def test_what_cannot_be_is_one_error(benchmarks: Benchmarks, tmp_path: Path) -> None:
    asked = ask(benchmarks, tmp_path, "pairs")
    for change, error, said in (
        ({"benchmarks": ()}, EvaluationError, "no benchmark is named"),
        ({"fmrs": (0.1, 2.0)}, EvaluationError, "give false match rates over 0 and at most 1"),
        ({"fmrs": (0.1, 0.1)}, EvaluationError, "two of the false match rates are 0.1"),
        ({"protocols": ()}, EvaluationError, "give one or more of fixed, cr_fiqa"),
        ({"replicates": -1}, EvaluationError, "give a number of draws"),
        ({"fewest_impostors": -1}, EvaluationError, "give a number of pairs"),
        ({"fewest_errors": -1}, EvaluationError, "--fewest-errors -1: give a number of pairs"),
        ({"benchmarks": asked.benchmarks * 2}, EvaluationError, "two of the benchmarks are pairs"),
        ({"recognisers": ("fr_feature", "fr_feature")}, EvaluationError, "two of the recognisers are fr_feature"),
        ({"recognisers": ("fr_featur",)}, ValueError, "no network is called 'fr_featur'"),
        ({"methods": "clib"}, MethodError, "is no method"),
        ({"methods": f"model:{tmp_path}"}, QualityNetworkError, "holds no model.safetensors"),
        ({"methods": f"table:{tmp_path / 'a.csv'}"}, EvaluationError, "a.csv: no such file"),
    ):
        with pytest.raises(error, match=re.escape(said)):
            make_plan(replace(asked, **change))  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="'fixd' is none: give one or more of fixed, cr_fiqa"):
        read_protocols("fixed,fixd")
    with pytest.raises(EvaluationError, match="could not convert string to float: 'x': give numbers"):
        read_rates("0.1,x")
    assert read_rates("1e-2, 0.001") == (0.01, 0.001)
    with pytest.raises(EvaluationError, match="--template-weights: 'score' is none: give norm, detector, both or none"):
        read_weights("norm,score")
    assert (read_weights(""), read_weights("norm, detector")) == ((), ("norm", "detector"))


def test_without_any_benchmark_or_with_a_bad_list_the_command_ends_with_one_message(
    benchmarks: Benchmarks, tmp_path: Path
) -> None:
    factory = Factory(workspace=tmp_path / "workspace")
    done = factory.luigi("EvaluateQuality", "--benchmarks", str(benchmarks.folder / "away.toml"), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: none of the benchmarks is at hand:\nthe data set away")
    assert "ask for it" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "bad.csv").write_text("key,quality\n1,x\n")
    words = ("--benchmarks", str(benchmarks.pairs), "--methods", f"table:{tmp_path / 'bad.csv'}")
    done = factory.luigi("EvaluateQuality", *words, check=False)
    assert done.returncode != 0
    assert "bad.csv, line 2: column quality: 'x' is no number" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (factory.workspace / "pairs" / "index").exists()  # it was found before anything was computed


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            "p0/0,1\np0/1,2\n",
            "names an image of people, by path: rows are called like 'p0/0', images like 'p0/0.jpg': check its columns",
        ),
        ("p0/0.jpg,1\nx/p0/0.jpg,2\n", "line 3: 'x/p0/0.jpg' has another score already, in line 2: leave one"),
    ],
)
def test_a_list_that_does_not_fit_is_known_before_any_network_runs(
    benchmarks: Benchmarks, tmp_path: Path, rows: str, said: str
) -> None:
    (tmp_path / "list.csv").write_text(f"path,quality\n{rows}")
    factory = Factory(workspace=tmp_path / "workspace")
    words = ("--benchmarks", str(benchmarks.people), "--methods", f"table:{tmp_path / 'list.csv'}")
    done = factory.luigi("EvaluateQuality", *words, check=False)
    assert done.returncode == 1
    assert done.stderr.count(said) == 1
    made = {path.name for path in (factory.workspace / "people").iterdir() if not path.name.startswith((".", "_"))}
    assert made == {"index", "identities"}


def test_what_decides_the_outcome_enters_the_fingerprint(benchmarks: Benchmarks, tmp_path: Path) -> None:
    network, scores = tmp_path / "n.onnx", tmp_path / "s.csv"
    scores.write_text("key,quality\n1,1\n")
    write_network(network)
    methods = f"n=onnx:{network},s=table:{scores},norm"
    asked = ask(benchmarks, tmp_path, "pairs", methods=methods)
    first = make_plan(asked).spec.fingerprint
    seen = {first}
    for change in (
        {"fmrs": (0.2,)},
        {"protocols": (Protocol.CR_FIQA,)},
        {"replicates": 11},
        {"fewest_impostors": 5},
        {"fewest_errors": 5},
        {"correlate": True},
        {"limit": 40},
        {"methods": methods.replace(",norm", "")},
        {"methods": methods.replace("n=", "m=")},
        {"methods": "norm"},
        {"benchmarks": (*asked.benchmarks, str(benchmarks.sets))},
        {"benchmarks": (*asked.benchmarks, str(benchmarks.folder / "away.toml"))},
    ):
        seen.add(make_plan(replace(asked, **change)).spec.fingerprint)  # type: ignore[arg-type]
    assert make_plan(asked).benchmarks[0].published == ""
    published = tmp_path / "published.toml"
    text = benchmarks.pairs.read_text().replace('root = "."', f'root = "{benchmarks.folder}"\npublished = "LFW"')
    published.write_text(text)
    known = replace(asked, benchmarks=(str(published),))
    assert make_plan(known).benchmarks[0].published == "LFW"
    assert make_plan(replace(known, limit=40)).benchmarks[0].published == ""  # a part is another benchmark
    seen.add(make_plan(known).spec.fingerprint)
    (tmp_path / "twice.toml").write_text(text.replace('name = "pairs"', 'name = "again"'))
    with pytest.raises(EvaluationError, match="two of the benchmarks in the field `published` of their manifests are"):
        make_plan(replace(known, benchmarks=(str(published), str(tmp_path / "twice.toml"))))
    scores.write_text("key,quality\n1,2\n")
    seen.add(make_plan(asked).spec.fingerprint)
    write_network(network, -1.0)
    seen.add(make_plan(asked).spec.fingerprint)
    assert len(seen) == 16
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    write_network(moved / "other.onnx")
    (moved / "s.csv").write_text("key,quality\n1,1\n")
    elsewhere = methods.replace(str(network), str(moved / "other.onnx")).replace(str(scores), str(moved / "s.csv"))
    assert make_plan(replace(asked, methods=elsewhere)).spec.fingerprint == first  # names and places do not


def test_another_recogniser_changes_what_rests_on_embeddings_alone(sample_weights: None, tmp_path: Path) -> None:
    job = resolve("sample", workspace=tmp_path)
    assert change_recogniser(job, "fr_feature") is job
    other = change_recogniser(job, "w600k_r50")
    assert other.models["recognition"].name == other.settings.recognition == "w600k_r50"
    changed = {name for name, spec in job.stages.items() if spec.fingerprint != other.stages[name].fingerprint}
    assert changed == {"embeddings", "centres", "anchors", "anchor_range", "labels"}
    by_manifest = tmp_path / "same.toml"
    by_manifest.write_text(
        f'name = "sample"\nformat = "recordio"\nroot = "{job.manifest.root}"\nrecognition_model = "w600k_r50"\n'
        f'pose_model = "{job.settings.pose}"\n'
    )
    resolved = resolve(str(by_manifest), workspace=tmp_path)
    assert resolved.stages["labels"].fingerprint == other.stages["labels"].fingerprint


def test_planning_loads_no_model_library(benchmarks: Benchmarks, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; import pipeline, pipeline.tasks.evaluation\n"
        "from pipeline.evaluation.request import EvaluationRequest; from pipeline.evaluation.plan import make_plan\n"
        "from training.evaluation.pairs.ranked_pairs import Protocol\n"
        f"make_plan(EvaluationRequest(benchmarks=({str(benchmarks.pairs)!r},), recognisers=(),\n"
        "  methods='norm,cpbd,random', protocols=(Protocol.FIXED,), fmrs=(0.1,), replicates=0, fewest_impostors=0,\n"
        f"  correlate=True, limit=0, workspace=Path({str(tmp_path)!r})))\n"
        "print([m for m in ('torch', 'onnxruntime', 'mediapipe', 'scipy', 'matplotlib') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
