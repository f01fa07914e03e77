"""Rows of CLIB-FIQA's Table 4: what is switched in each, and a real run of two."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import polars as pl
import pytest

from data_manifests.tables import Factor
from pipeline.tasks.ablation import ROWS, AblationError, choose_rows
from training.config import Score
from training.train_quality import make_config, parser

if TYPE_CHECKING:
    from tests.pipeline.conftest import Factory

TABLE_4 = [
    (True, (), False, False),
    (False, ("pose", "blur", "lighting", "expression", "occlusion"), True, False),
    (True, ("pose",), False, False),
    (True, ("pose", "blur"), False, False),
    (True, ("pose", "blur", "lighting"), False, False),
    (True, ("pose", "blur", "lighting", "expression"), False, False),
    (True, ("pose", "blur", "lighting", "expression", "occlusion"), False, False),
    (True, ("pose", "blur", "lighting", "expression", "occlusion"), False, True),
]
"""CLIB-FIQA's Table 4 from the first row to the last: NQF, factors, M-F, CC."""


def test_rows_are_those_of_the_paper() -> None:
    found = []
    for words in ROWS.values():
        start = ["--labels", "l", "--images", "i", "--output", "o", "--pretrained="]
        terms = make_config(parser().parse_args([*start, *shlex.split(words)])).terms
        found.append((terms.quality, set(terms.factors), terms.score is Score.MERGED, terms.confidence))
    assert found == [(q, {Factor(name) for name in factors}, mf, cc) for q, factors, mf, cc in TABLE_4]


def test_betas_become_rows_of_their_own() -> None:
    assert choose_rows("none", "8, 25.0") == {"beta-8": "--beta 8", "beta-25": "--beta 25"}
    assert list(choose_rows("calibrated,nqf", "16")) == ["calibrated", "nqf", "beta-16"]


@pytest.mark.parametrize(
    ("rows", "betas", "message"),
    [("nqq", "", "no row 'nqq'; there are nqf"), ("nqf", "0", "'0' is not a number above 0"),
     ("nqf", "x", "'x' is not"), ("none", "inf", "'inf' is not"), ("none", "", "name --rows or --betas")],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_named(rows: str, betas: str, message: str) -> None:
    with pytest.raises(AblationError, match=message):
        choose_rows(rows, betas)


@pytest.mark.slow
def test_two_rows_are_trained_and_judged(sample_copy: Factory) -> None:
    words = ["Ablation", "--benchmarks", "sample", "--rows", "nqf,calibrated", "--tower", "test-vit"]
    words += ["--pretrained", "none", "--options", "--epochs-one 1 --epochs-two 1 --batch 64 --threads 1"]
    sample_copy.luigi(*words)
    metrics = pl.read_parquet(sample_copy.workspace / "evaluation" / "current" / "metrics.parquet")
    assert {"nqf", "calibrated", "norm", "random", "floor"} == set(metrics["method"].cast(pl.String))
    runs = sorted((sample_copy.workspace / "sample" / "quality_model").glob("*/model.safetensors"))
    assert len(runs) == 2
    before = [path.stat().st_mtime_ns for path in runs]
    sample_copy.luigi(*words)
    assert [path.stat().st_mtime_ns for path in runs] == before
