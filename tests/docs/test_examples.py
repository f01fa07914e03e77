"""The script of Polars recipes answers its questions, for any folder of labels, and for groups."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import polars as pl
import pytest

from benchmarks.documents import ROOT, environment
from examples.inspect_labels import by_group, correlate, least_certain_blur, read_settings, spread_of_people, worst

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = ROOT / "examples" / "inspect_labels.py"


def inspect(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


def test_groups_are_reported(sample_labels: Path, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("identity,region\n0,north\n1,north\n2,south\n")
    done = inspect(sample_labels, "--groups", tmp_path / "people.csv", "--by", "region")
    assert not done.returncode, done.stderr
    assert "Quality by region" in done.stdout


def test_a_group_has_its_own_numbers(sample_labels: Path) -> None:
    labels = pl.scan_parquet(sample_labels)
    groups = pl.LazyFrame({"identity": [0, 1, 2], "region": ["north", "north", "south"]})
    found = {row["region"]: row for row in by_group(labels, groups, "region").iter_rows(named=True)}
    south = labels.filter(pl.col("identity") == 2).select("quality").collect()["quality"]
    limit = labels.select(pl.col("quality").quantile(0.1)).collect().item()
    assert found["south"]["images"] == len(south) == 32
    assert found["south"]["median"] == pytest.approx(south.median())
    assert found["south"]["share of low"] == pytest.approx((south <= limit).mean())
    assert found[None]["images"] == 5 * 32


def test_groups_by_key(sample_labels: Path) -> None:
    groups = pl.LazyFrame({"key": [1, 2, 3], "age": ["young", "old", "old"]})
    found = dict(by_group(pl.scan_parquet(sample_labels), groups, "age").select("age", "images").iter_rows())
    assert found == {"young": 1, "old": 2, None: 253}


def test_a_person_in_two_groups_is_refused(sample_labels: Path) -> None:
    groups = pl.LazyFrame({"identity": [0, 0], "region": ["north", "south"]})
    with pytest.raises(pl.exceptions.PolarsError):
        by_group(pl.scan_parquet(sample_labels), groups, "region")


def test_recipes_agree_with_the_labels(sample_labels: Path) -> None:
    labels, frame = pl.scan_parquet(sample_labels), pl.read_parquet(sample_labels)
    assert worst(labels, 1)["quality"].item() == frame["quality"].min() == 0.0
    assert spread_of_people(labels, 1)["spread"].item() == pytest.approx(1.0)
    yaw = frame.select(pl.corr(pl.col("yaw_deg").abs(), "quality", method="spearman")).item()
    assert dict(correlate(labels).iter_rows())["yaw_deg"] == pytest.approx(yaw)
    settings = read_settings(sample_labels)
    assert (settings["blur_hazy"], settings["blur_clear"]) == (0.35, 0.7)
    nearest = least_certain_blur(labels, settings, 256)
    assert nearest["distance"].is_sorted()
    assert nearest["distance"][0] == pytest.approx(
        min(abs(v - e) for v in frame["cpbd"] for e in (0.35, 0.7)), abs=1e-6
    )


@pytest.mark.parametrize("words", [["/nowhere"], [str(ROOT / "docs")]])
def test_a_folder_without_labels_is_one_message(words: list[str]) -> None:
    done = inspect(*words)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
