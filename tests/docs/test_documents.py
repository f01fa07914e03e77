"""The runner of pages notices what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.documents import ROOT, DocumentError, Reader, compare, read_fences

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """
┏━━━━━━┳━━━━━━━┓
┃ name ┃ share ┃
┡━━━━━━╇━━━━━━━┩
│ hazy │ 56.2% │ ▇▇▇
└──────┴───────┘
lies in /some/where/labels
"""


def page_with(tmp_path: Path, text: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text(text)
    return page


def shown(tmp_path: Path, lines: str, note: str = "") -> object:
    head = f"<!-- {note} -->\n" if note else ""
    return read_fences(page_with(tmp_path, f"{head}```text\n{lines}\n```\n"))[0]


@pytest.mark.parametrize(
    "lines",
    [
        "│ hazy │ 56.2% │ …",
        "│  hazy  │  56.2%  │",
        "┃ name ┃ share ┃\nlies in …/labels",
        "…\nlies in …labels",
        "name share",
    ],
)
def test_what_is_printed_is_found(tmp_path: Path, lines: str) -> None:
    compare(shown(tmp_path, lines), TABLE)


@pytest.mark.parametrize(
    "lines",
    [
        "│ hazy │ 56.3% │ …",
        "│ hazy │",
        "lies in …/labels\n┃ name ┃ share ┃",
        "lies in …/label",
        "hazy 56.2%\nhazy 56.2%",
    ],
)
def test_what_is_not_printed_is_noticed(tmp_path: Path, lines: str) -> None:
    with pytest.raises(DocumentError, match="is not printed"):
        compare(shown(tmp_path, lines), TABLE)


def test_numbers_vary_where_that_is_said(tmp_path: Path) -> None:
    compare(shown(tmp_path, "│ hazy │ 1.25% │", "numbers vary"), TABLE)
    with pytest.raises(DocumentError):
        compare(shown(tmp_path, "│ clear │ 1.25% │", "numbers vary"), TABLE)


def test_fingerprints_are_alike(tmp_path: Path) -> None:
    compare(shown(tmp_path, "run 0123456789ab ended"), "run fedcba987654 ended\n")
    with pytest.raises(DocumentError):
        compare(shown(tmp_path, "run 0123456789ab ended"), "run fedcba98765 ended\n")


def test_a_failing_command_names_its_place(tmp_path: Path) -> None:
    page = page_with(tmp_path, "text\n\n```sh\nfalse\necho never\n```\n")
    with pytest.raises(DocumentError, match=r"page\.md:3: ended with exit code 1"):
        Reader(folder=tmp_path).follow(page)


def test_a_failing_pipe_fails(tmp_path: Path) -> None:
    with pytest.raises(DocumentError):
        Reader(folder=tmp_path).follow(page_with(tmp_path, "```sh\nfalse | cat\n```\n"))


def test_blocks_follow_each_other(tmp_path: Path) -> None:
    blocks = [("sh", "echo 4 > n"), ("python", "n = int(open('n').read())"), ("python", "print(n + 1)"), ("text", "5")]
    text = "".join(f"```{language}\n{content}\n```\n" for language, content in blocks)
    assert "5" in Reader(folder=tmp_path).follow(page_with(tmp_path, text))


def test_what_is_not_run_is_not_run(tmp_path: Path) -> None:
    text = "<!-- not run: it would fail -->\n```sh\nfalse\n```\n```toml\nfalse\n```\n"
    assert Reader(folder=tmp_path).follow(page_with(tmp_path, text)) == ""


def test_settings_of_whoever_runs_the_tests_play_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIQA_WORKSPACE", "/elsewhere")
    page = page_with(tmp_path, '```sh\necho "[${FIQA_WORKSPACE:-}]"\n```\n```text\n[]\n```\n')
    Reader(folder=tmp_path).follow(page)


def test_a_clone_cannot_write_to_the_project(tmp_path: Path) -> None:
    reader = Reader.with_clone(tmp_path / "clone")
    assert (reader.folder / "pipeline").resolve() == ROOT / "pipeline"
    assert not (reader.folder / "workspace").exists()
    (reader.folder / "luigi.cfg").write_text("changed")
    assert "[dataset]" in (ROOT / "luigi.cfg").read_text()
