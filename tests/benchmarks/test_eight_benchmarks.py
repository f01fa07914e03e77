"""The stand-ins are benchmarks like any others, and none is taken for a published one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.eight_benchmarks import PEOPLE, SETS, main
from data_manifests.benchmarks.pairs import read_pairs
from data_manifests.manifest import load_manifest

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_eight_benchmarks_are_drawn(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(real_data / "data"), "--output", str(tmp_path), "--images", "60", "--pairs", "40"]
    monkeypatch.setattr(sys, "argv", ["eight_benchmarks", *words])
    main()
    named = capsys.readouterr().out.split("--benchmarks ")[1].split()[0].split(",")
    assert len(named) == len(SETS) == 8
    for name, path in zip(SETS, named, strict=True):
        manifest = load_manifest(path)
        manifest.require_data()
        assert manifest.name == f"stand_in_{name}"
        assert manifest.published is None
        photos = list((tmp_path / manifest.name / "photos").rglob("*.jpg"))
        assert 60 <= len(photos) < 90
        if name not in PEOPLE:
            pairs = read_pairs(manifest)
            people = {number: photo.parent.name for number, photo in enumerate(sorted(photos), 1)}
            assert [people[a] == people[b] for a, b in zip(pairs.a, pairs.b, strict=True)] == pairs.same.tolist()
            assert pairs.same.tolist() == [True, False] * 40
            assert len({*zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)}) == 80
