"""The pages do what they say: their commands and snippets run, in order, and print what stands below them."""

from __future__ import annotations

import pytest

from benchmarks.documents import NOT_RUN, ROOT, Reader, read_fences


def test_the_tutorial_runs(reader: Reader) -> None:
    assert (reader.folder / "workspace" / "evaluation" / "current" / "index.html").is_file()


def test_hardly_anything_is_left_out() -> None:
    fences = read_fences(ROOT / "docs" / "tutorial.md")
    left_out = [fence.text.split()[0:4] for fence in fences if fence.note.startswith(NOT_RUN)]
    assert left_out == [
        ["make", "setup", "source", ".venv/bin/activate"],
        ["luigi", "--module", "pipeline", "LabelReport"],
    ]
    assert sum(fence.is_run for fence in fences) >= 16
    assert sum(fence.language == "text" for fence in fences) >= 15


@pytest.mark.parametrize("page", ["README.md", "docs/labels.md", "docs/notices.md"])
def test_snippets_run(reader: Reader, page: str) -> None:
    assert any(fence.language == "python" and fence.is_run for fence in read_fences(ROOT / page))
    Reader(folder=reader.folder).follow(ROOT / page, languages=("python",))
