"""Whatever the pages point to is there: files, headings, modules and names."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from benchmarks.documents import PAGES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"`((?:benchmarks|data_manifests|docs|examples|labelers|pipeline|training)/[\w./-]+\.\w+)`")
_NAMED = re.compile(r"`([\w/]+\.py)`\s*(?:\(|,\s*)((?:`\w+`(?:,\s*)?)+)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+?) *$", _CODE.sub("", page.read_text()), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        found[plain] = found.get(plain, -1) + 1
    return {
        plain if not again else f"{plain}-{number}" for plain, again in found.items() for number in range(again + 1)
    }


def names_in(module: Path) -> set[str]:
    """The names that a module defines."""
    tree = ast.parse(module.read_text())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    return defined | {target.id for target in targets if isinstance(target, ast.Name)}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for groups in _LINK.findall(_CODE.sub("", page.read_text())):
        target, _, anchor = next(filter(None, groups)).partition("#")
        if target.startswith(("http://", "https://")):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{target} is not there"
        assert file.is_relative_to(ROOT), f"{target} lies outside"
        assert not anchor or anchor in headings(file), f"{file.name} has no heading #{anchor}; it has {headings(file)}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_are_there(page: Path) -> None:
    made = {"labelers/brightness.py"}  # by the page on adding a labeler
    missing = [path for path in _PATH.findall(page.read_text()) if path not in made and not (ROOT / path).exists()]
    assert not missing


def test_every_formula_is_where_the_page_says() -> None:
    page = (ROOT / "docs" / "method.md").read_text()
    found = [(module, word) for module, words in _NAMED.findall(page) for word in re.findall(r"`(\w+)`", words)]
    assert len(found) > 30
    absent = [(module, word) for module, word in found if word not in names_in(ROOT / module)]
    assert not absent


def test_every_numbered_equation_of_the_papers_is_told() -> None:
    page = (ROOT / "docs" / "method.md").read_text()
    clib = {int(n) for found in re.findall(r"CLIB-FIQA\s+Eq\. ([\d, and]+)", page) for n in re.findall(r"\d+", found)}
    clib |= {int(n) for n in re.findall(r"confidence Eq\. (\d)", page)}
    assert clib == set(range(1, 10))
    assert "CR-FIQA Eq. 2, 3 and 4" in page


def test_every_page_stands_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [p for p in PAGES if p.parent in {ROOT / "docs", ROOT / "docs" / "howto"} and p.name != "README.md"]
    assert len(pages) > 10
    assert not [p for p in pages if f"({p.relative_to(ROOT / 'docs')})" not in index]
