"""One reader who has followed the tutorial, for all tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.documents import ROOT, Reader
from tests.pipeline.conftest import sample_weights

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["sample_weights"]

DOCS = ROOT / "docs"


@pytest.fixture(scope="session")
def reader(sample_weights: None, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Somebody with a fresh clone, who has done what the tutorial says."""
    somebody = Reader.with_clone(tmp_path_factory.mktemp("clone") / "clone")
    somebody.follow(DOCS / "tutorial.md")
    return somebody


@pytest.fixture(scope="session")
def sample_labels(reader: Reader) -> Path:
    """The labels that the tutorial leaves: of the sample, with the shipped settings."""
    return reader.folder / "workspace" / "sample" / "labels" / "current"
