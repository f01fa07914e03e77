"""Fixtures that every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real faces, models and oracles; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("FIQA_TEST_DATA", ROOT.parent / "shared")).resolve()
    if not (folder / "oracles").is_dir():
        pytest.skip(f"no test data in {folder}; set FIQA_TEST_DATA to the folder that holds oracles/, data/, models/")
    return folder
