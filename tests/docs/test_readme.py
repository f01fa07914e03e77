"""What README.md shows of `make labels` is what it prints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import polars as pl

from benchmarks.documents import ROOT
from benchmarks.readme import MARKS, as_block
from data_manifests.tables.stages import CLASSES
from pipeline.label_report.summary import class_shares

if TYPE_CHECKING:
    from pathlib import Path

_ROW = re.compile(r"^│ *(\w*) *│ *([\w ]+?) *│ *([\d.]+)% *│", re.MULTILINE)


def shown() -> str:
    """The generated section."""
    page = (ROOT / "README.md").read_text()
    assert page.count(MARKS[0]) == page.count(MARKS[1]) == 1
    return page.partition(MARKS[0])[2].partition(MARKS[1])[0]


def test_the_class_shares_are_those_of_the_sample(sample_labels: Path) -> None:
    wanted = [
        (factor.value if not place else "", word, f"{100 * share:.1f}")
        for factor, shares in class_shares(pl.scan_parquet(sample_labels)).items()
        for place, (word, share) in enumerate(shares.items())
    ]
    assert _ROW.findall(shown().partition("Classes")[2]) == wanted, "run python -m benchmarks.readme"
    assert len(wanted) == sum(len(names) for names in CLASSES.values())


def test_paths_are_those_of_the_reader(tmp_path: Path) -> None:
    printed = f"\n  Status  \n256 labels lie in {tmp_path}/workspace/sample/labels/current\n"
    block = as_block(printed, tmp_path)
    assert block == "```\n  Status\n256 labels lie in workspace/sample/labels/current\n```"
