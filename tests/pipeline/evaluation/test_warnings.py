"""Warnings of an evaluation: scores that hardly differ, and methods that learned from the benchmark."""

import json
import shutil
from dataclasses import replace
from itertools import islice
from typing import ClassVar

import numpy as np
import pytest

from data_manifests.folds import Fold
from data_manifests.sample import draw_images
from pipeline.config.job import resolve
from pipeline.evaluation.images import read_images
from pipeline.evaluation.plan import make_plan
from pipeline.evaluation.request import EvaluationRequest
from pipeline.evaluation.warnings import join_warnings, warn_of_people, warn_of_scores, warn_of_training
from pipeline.tasks.pixels import Index
from training.evaluation.error_reject import Protocol
from training.evaluation.evaluate import Options, find_twins

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("quality", "said"),
    [
        (RANDOM.uniform(0.496, 0.5, 1000), "the scores of m hardly differ, so it may have learned nothing"),
        (-RANDOM.uniform(99, 100, 1000), "the scores of m hardly differ"),
        (np.append(RANDOM.uniform(0.496, 0.5, 1000), [0.1, 0.9]), "lfw (98 % of them from 0.4961 to 0.5)"),
        (np.full(20, 0.25), "nearly all images the same score, so it hardly orders them: lfw (0.25 to 20 of 20)"),
        (np.append(np.zeros(950), RANDOM.random(50)), "lfw (0 to 950 of 1,000)"),
        (np.array([np.nan, 3.0, 3.0]), "lfw (3 to 2 of 2)"),
        (RANDOM.uniform(0.4, 0.5, 1000), ""),
        (RANDOM.uniform(-1e-9, 1e-9, 1000), ""),  # small, but all of it: its scale is its own
        (RANDOM.normal(20, 2, 1000), ""),  # the length of an embedding
        (RANDOM.integers(0, 101, 1000).astype(float), ""),  # OFIQ
        (np.array([np.nan, np.nan, 1.0]), ""),
    ],
)
def test_scores_without_a_spread_are_named(quality, said):
    found = " ".join(join_warnings(warn_of_scores("lfw", {"m": quality, "sobel": RANDOM.random(50)})))
    assert said in found
    assert bool(said) == bool(found)


def test_one_warning_names_all_places():
    flat = {"m": np.zeros(9)}
    found = join_warnings([*warn_of_scores("lfw", flat), *warn_of_scores("cfp", flat)])
    assert len(found) == 1
    assert found[0].endswith(": lfw (0 to 9 of 9), cfp (0 to 9 of 9)")


def test_methods_that_reject_the_same_pairs_are_found():
    class Pairs:
        a, b = np.array([0, 1, 2]), np.array([3, 3, 4])

    one = np.array([0.1, 0.5, 0.3, 0.9, 0.2])
    qualities = {"one": one, "two": np.log(one), "none": -one, "rank": one.argsort().argsort(), "tied": one > 0.25}
    assert find_twins(Pairs, qualities) == [("one", "two", "rank")]
    gap = {"one": np.where(one > 0.4, one, np.nan), "two": np.where(one > 0.4, 2 * one, np.nan)}
    assert find_twins(Pairs, gap) == [("one", "two")]  # without a quality is with the lowest


@pytest.mark.parametrize(("people", "fewest", "said"), [(8, 30, "(8 people at FMR 0.01)"), (8, 0, ""), (30, 30, "")])
def test_wrong_pairs_of_few_people_are_said(people, fewest, said):
    class Pairs:
        similarity = np.tile([0.1, 0.9], 60)  # sixty wrong pairs at one threshold, and none at the other
        person = np.repeat(np.arange(people), -(-120 // people))[:120]
        thresholds: ClassVar = {1e-2: 0.5, 1e-3: 0.05}

    options = Options(fmrs=(1e-2, 1e-3), fewest_errors=fewest)
    found = join_warnings(warn_of_people("lfw with r50", Pairs, options))
    assert bool(found) == bool(said)
    assert all(text.endswith(f"p-values say: lfw with r50 {said}") for text in found)
    assert not list(warn_of_people("lfw", Pairs, replace(options, replicates=0)))  # there are no intervals
    Pairs.person = None
    assert not list(warn_of_people("lfw", Pairs, options))


def plan_with(workspace, runs, *benchmarks):
    methods = ",".join(f"{name}=model:{run}" for name, run in runs.items())
    request = EvaluationRequest(
        benchmarks=benchmarks, recognisers=(), methods=f"{methods},norm", protocols=(Protocol.FIXED,), fmrs=(0.1,),
        replicates=0, fewest_impostors=0, correlate=False, limit=0, workspace=workspace,
    )  # fmt: skip
    plan = make_plan(request)
    return plan, {b.name: read_images(b.job.store, b.job.stages["index"]) for b in plan.benchmarks}


def write_run(folder, **config):
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(folder.name.encode())
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_model_that_learned_from_the_benchmark_is_named(sample_copy, tmp_path):
    store = sample_copy.workspace / "sample"
    labels, anchors = ((store / stage / "current").resolve().name for stage in ("labels", "anchors"))
    data = {"labels_fingerprint": labels}
    runs = {
        "whole": write_run(store / "quality_model" / "0123456789ab", data=data, config={"held_out": None}),
        "part": write_run(tmp_path / "part", data=data, config={"held_out": {"number": 0, "folds": 3}}),
        "on_anchors": write_run(tmp_path / "top", anchors=anchors, config={"held_out": "1/3"}),
        "elsewhere": write_run(tmp_path / "far", data={"labels_fingerprint": "ffffffffffff"}, config={}),
        "broken": write_run(tmp_path / "bad", data=[], config={"held_out": "x"}),
    }
    plan, images = plan_with(sample_copy.workspace, runs, "sample")
    found = dict(warn_of_training(plan, images))
    people = images["sample"].identities
    seen = {fold: int((~Fold.parse(fold).holds(people)).sum()) for fold in ("0/3", "1/3")}
    assert {what.partition(" ")[0]: where for what, where in found.items()} == {
        "whole": f"sample ({len(people)} of {len(people)} images)",
        "part": f"sample ({seen['0/3']} of {len(people)} images, with fold 0/3 of the people held out)",
        "on_anchors": f"sample ({seen['1/3']} of {len(people)} images, with fold 1/3 of the people held out)",
    }
    assert all("was trained on images or people of a benchmark" in what for what in found)


def write_folder(root, people):
    """A data set of folders: person -> images."""
    for person, images in people.items():
        (root / "photos" / person).mkdir(parents=True)
        for number, image in enumerate(images):
            (root / "photos" / person / f"{number}.jpg").write_bytes(image)
    (root / f"{root.name}.toml").write_text(
        f'name = "{root.name}"\nformat = "image_folder"\nroot = "photos"\npose_model = "fr_pose"\n'
    )
    return str(root / f"{root.name}.toml")


def test_files_and_people_that_two_data_sets_share_are_named(sample_copy, tmp_path):
    images = [image.encoded for image in islice(draw_images(), 9)]
    workspace = sample_copy.workspace
    learned = write_folder(
        tmp_path / "learned", {"Ann_Other": images[:3], "Bo Li": images[3:5], "0001": images[5:6], "Cy_Me": images[8:]}
    )
    seen = write_folder(tmp_path / "seen", {"Ann_Other": images[:2], "0001": images[6:7]})
    met = write_folder(tmp_path / "met", {"Bo Li": images[7:8], "Dee_Da": images[:1]})
    new = write_folder(tmp_path / "new", {"0001": images[7:8], "Di_Du": images[:1]})
    for toml in (learned, seen, met, new):
        Index.of(resolve(toml, workspace=workspace), 1).make()
    index = resolve(learned, workspace=workspace).stages["index"].fingerprint
    run = write_run(workspace / "learned" / "quality_model" / "0123456789ab", config={})
    receipt = workspace / "learned" / "_receipts" / "quality_model" / run.name
    receipt.mkdir(parents=True)
    made_from = {"stage": "quality_model", "data": "x", "parameters": {}, "upstream": {"index": index}}
    (receipt / "made_from.json").write_text(json.dumps(made_from))
    plan, read = plan_with(workspace, {"m": run}, seen, met, new)
    assert [where for _, where in warn_of_training(plan, read)] == [
        "seen (2 of 3 images, by folder, name and size of their files)",
        "seen (1 of 1 people, by their names)",
        "met (1 of 2 people, by their names)",
    ]
    shutil.rmtree(workspace / "learned" / "index")
    assert list(warn_of_training(plan, read)) == []
