"""Fixtures that every test may ask for."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import data_manifests  # noqa: F401 - before PyTorch, whose threads it tells how to wait

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def logs_of_its_own() -> Iterator[None]:
    """Take away what a test sets up for logging: it would write to a terminal that is closed by then."""
    yield
    for name in ("data_manifests", "labelers", "pipeline", "training"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real faces, models and oracles; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("FIQA_TEST_DATA", ROOT.parent / "shared")).resolve()
    if not (folder / "oracles").is_dir():
        pytest.skip(f"no test data in {folder}; set FIQA_TEST_DATA to the folder that holds oracles/, data/, models/")
    return folder
