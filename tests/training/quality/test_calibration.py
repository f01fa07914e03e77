"""The confidence of the training images and its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from data_manifests.recipes import Recipe
from data_manifests.tables.scores import CONFIDENCE
from training.losses import confidence, js_divergence
from training.quality.calibration import ConfidenceError, Confidences, calibrate, read_confidence, write_confidence
from training.quality.model import MergedFactors

if TYPE_CHECKING:
    from pathlib import Path

KEYS = np.array([3, 7, 12, 15, 16], np.int32)
JS = np.array([0.01, 0.0, np.nan, 0.5, np.nan], np.float32)
RHO = np.array([0.92, 1.0, np.nan, 0.5, np.nan], np.float32)
STATUS = ["ok", "ok", "decode_error", "ok", "held_out"]


def table_of(keys: np.ndarray = KEYS, js: np.ndarray = JS, status: list[str] = STATUS) -> Confidences:
    return Confidences(keys=keys, js=js, rho=RHO, status=pa.array(status))


class Fixed(MergedFactors):
    """Tells the same quality for every face, and remembers what it was given."""

    def __init__(self, p: Tensor) -> None:
        super().__init__((2,))
        self.p = nn.Parameter(p)

    def forward(self, p_factors: Tensor) -> Tensor:
        self.given = p_factors
        return self.p.expand(len(p_factors), 5)


def test_compares_the_quality_that_is_seen_with_the_one_that_is_justified() -> None:
    joint = torch.rand(4, 360, generator=torch.Generator().manual_seed(5)).softmax(-1)
    merged = Fixed(torch.tensor([0.1, 0.2, 0.3, 0.3, 0.1]))
    by_hand = joint.reshape(4, 72, 5)
    for recipe in Recipe:
        found = calibrate(joint.log(), merged, beta=20.0, recipe=recipe)
        js = js_divergence(by_hand.sum(1), merged.p.expand(4, 5), recipe=recipe)
        assert torch.allclose(found.js, js, atol=1e-7)
        assert torch.allclose(found.confidence, confidence(js, 20.0), atol=1e-6)
        assert not found.js.requires_grad
    assert torch.allclose(merged.given, by_hand.sum(2), atol=1e-6)


def test_full_agreement_gives_full_confidence() -> None:
    even = torch.full((2, 360), 1 / 360).log()
    found = calibrate(even, Fixed(torch.full((5,), 0.2)))
    assert found.js.tolist() == pytest.approx([0.0, 0.0], abs=1e-9)
    assert found.confidence.tolist() == pytest.approx([1.0, 1.0])


def test_table_is_read_by_polars_in_key_order(tmp_path: Path) -> None:
    path = tmp_path / "confidence" / "part.parquet"
    write_confidence(path, table_of(), notes={"run": "abc"})
    frame = pl.read_parquet(path)
    assert frame.columns == list(CONFIDENCE.names) == ["key", "js", "confidence", "status"]
    assert frame["key"].to_list() == [3, 7, 12, 15, 16]
    for name, values in (("js", JS), ("confidence", RHO)):
        assert frame[name].null_count() == 2
        np.testing.assert_array_equal(frame[name].to_numpy(), values)
    assert frame["status"].to_list() == STATUS
    assert pq.read_schema(path).remove_metadata() == CONFIDENCE.schema().remove_metadata()
    assert pq.read_schema(path).metadata[b"run"] == b"abc"
    assert [entry.name for entry in path.parent.iterdir()] == ["part.parquet"]
    content = path.read_bytes()
    write_confidence(path, table_of(), notes={"run": "abc"})
    assert path.read_bytes() == content


def test_what_was_not_measured_is_null_whatever_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    write_confidence(path, table_of(status=["ok", "no_label", "decode_error", "ok", "held_out"]), notes={})
    assert pl.read_parquet(path)["confidence"].is_null().to_list() == [False, True, True, False, True]


def test_confidence_comes_back_in_the_order_of_the_keys_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "run [v2] *" / "c.parquet"
    write_confidence(path, table_of(), notes={})
    np.testing.assert_array_equal(read_confidence(path, np.array([15, 3, 3], np.int32)), RHO[[3, 0, 0]])


@pytest.mark.parametrize("asked", [[4], [3, 99], [-1, 7], [3, 12], [7, 16, 15]])
def test_an_image_that_was_not_measured_is_named(tmp_path: Path, asked: list[int]) -> None:
    path = tmp_path / "c.parquet"
    write_confidence(path, table_of(), notes={})
    stranger = next(key for key in asked if key not in (3, 7, 15))
    with pytest.raises(ConfidenceError, match=rf"lacks 1 of {len(asked)} images, such as key {stranger}:.*phase again"):
        read_confidence(path, np.array(asked, np.int32))


def test_wrong_values_are_never_written(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    for wrong in ([3, 7, 7, 15, 16], [7, 3, 12, 15, 16]):
        with pytest.raises(ConfidenceError, match="keys do not ascend"):
            write_confidence(path, table_of(keys=np.array(wrong, np.int32)), notes={})
    with pytest.raises(ConfidenceError, match="key 7 is not a number"):
        write_confidence(path, table_of(js=np.array([0, np.inf, 0, 0, 0], np.float32)), notes={})
    with pytest.raises(ConfidenceError, match="key 12 is not a number"):
        write_confidence(path, table_of(status=["ok"] * 5), notes={})
    assert not list(tmp_path.iterdir())


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(ConfidenceError, match="not a table of confidences"):
        read_confidence(tmp_path / "c.parquet", KEYS)
    pl.DataFrame({"key": [1]}).write_parquet(tmp_path / "d.parquet")
    with pytest.raises(ConfidenceError, match="not a table of confidences"):
        read_confidence(tmp_path / "d.parquet", KEYS)
