"""The labels of sixteen images of the sample, as they were when this file was made: a number that moves is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

if TYPE_CHECKING:
    from tests.pipeline.conftest import Factory

VALUES = Path(__file__).with_name("reference_values.json")

TOLERANCES = {
    "cpbd": 1e-9,  # integers and tables: the same on every processor, but for the order of a sum
    "sobel": 1e-6,  # exact integers, then square roots in float64, stored in float32
    "yaw_deg": 1e-2,  # float32 networks: kernels of another processor add in another order
    "pitch_deg": 1e-2,
    "roll_deg": 1e-2,
    "p_obstructed": 1e-4,
    "p_exaggerated": 1e-4,
    "p_extreme_lighting": 1e-4,
    "norm": 1e-3,
    "ccs": 1e-4,
    "nnccs": 1e-4,
    "certainty_ratio": 1e-4,
    "quality": 1e-3,  # a range of ratios is stretched to [0, 1]
}
"""How far a value may lie from the one that is kept; classes and identities must be equal."""


def test_labels_of_the_sample_are_those_that_were_kept(labelled_sample: Factory) -> None:
    kept = json.loads(VALUES.read_text())
    labels = pl.read_parquet(labelled_sample.workspace / "sample" / "labels" / "current", glob=False)
    rows = labels.filter(pl.col("key").is_in([row["key"] for row in kept])).to_dicts()
    assert len(rows) == len(kept) == 16
    for row, wanted in zip(rows, kept, strict=True):
        assert row.keys() == wanted.keys()
        for name, value in wanted.items():
            near = pytest.approx(value, abs=TOLERANCES[name]) if name in TOLERANCES and value is not None else value
            assert row[name] == near, f"key {row['key']}, {name}"
