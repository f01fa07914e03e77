"""The reference is what the code says, and says all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.documents import ROOT
from benchmarks.reference import CONFIG, INTERNAL, PAGE, VARIABLES, attributes, render, render_settings
from benchmarks.stale_stages import stale_stages
from benchmarks.tree import PAGE as ARCHITECTURE
from benchmarks.tree import renew
from data_manifests.manifest import Manifest
from pipeline.config import settings

_ALL_BUT_PIXELS = ["centres", "anchors", "anchor_range", "labels"]


def test_the_page_is_in_step() -> None:
    assert PAGE.read_text() == render(), "run python -m benchmarks.reference"


def test_the_tree_is_in_step() -> None:
    assert ARCHITECTURE.read_text() == renew(ARCHITECTURE.read_text()), "run python -m benchmarks.tree"


@pytest.mark.parametrize(
    ("section", "name", "stages"),
    [
        (settings.labels, "blur_hazy", ["labels"]),
        (settings.labels, "recipe", ["blur", "labels"]),
        (settings.blur, "edges", ["blur", "labels"]),
        (settings.blur, "edge_ratio", ["blur", "labels"]),
        (settings.models, "recognition", ["embeddings", *_ALL_BUT_PIXELS]),
        (settings.models, "precision", ["factors", "embeddings", *_ALL_BUT_PIXELS]),  # face_landmarker knows none
        (settings.anchors, "centres", _ALL_BUT_PIXELS),
        (settings.anchors, "head", _ALL_BUT_PIXELS),
        (settings.execution, "device", []),
    ],
)
def test_what_runs_again_is_computed(section: type, name: str, stages: list[str]) -> None:
    assert stale_stages(section, name) == stages


def test_every_variable_of_the_environment_is_told() -> None:
    code = [
        p for folder in ("pipeline", "labelers", "training", "data_manifests") for p in (ROOT / folder).rglob("*.py")
    ]
    used = {name for path in code for name in re.findall(r"\bFIQA_[A-Z]+\b", path.read_text())}
    known = {*VARIABLES, *INTERNAL} - {"LUIGI_CONFIG_PATH"}
    assert used - {"FIQA_RATES"} == known


def test_luigi_cfg_is_in_step() -> None:
    assert CONFIG.read_text() == render_settings(CONFIG.read_text()), "run python -m benchmarks.reference"


def test_every_section_stands_in_luigi_cfg() -> None:
    text = (ROOT / "luigi.cfg").read_text()
    for section in settings.list_sections():
        part = text.partition(f"[{section.__name__}]\n")[2].partition("\n[")[0]
        names = {name for name, _ in section.get_params()}
        assert set(re.findall(r"^(\w+) =", part, re.MULTILINE)) == names, section.__name__


def test_attributes_are_read_from_a_docstring() -> None:
    found = attributes(Manifest)
    assert found["images_folder"].endswith("and `aligned_112` for templates.")
    assert set(found) == set(Manifest.model_fields)


def test_no_path_of_this_machine_stands_in_a_page() -> None:
    for page in [*Path(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        assert str(ROOT) not in page.read_text()
        assert "/root/" not in page.read_text()
