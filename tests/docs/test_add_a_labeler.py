"""The page on adding a labeler is followed to the letter, in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from benchmarks.documents import ROOT, Fence, Reader, compare, environment, read_fences
from data_manifests.recordio.record_file import RecordFile
from labelers.faces import decode

PAGE = ROOT / "docs" / "howto" / "add-a-labeler.md"
PACKAGES = ("pipeline", "labelers", "training", "data_manifests", "benchmarks", "docs", "tests")
MODULE = "labelers/brightness.py"


def apply_diff(file: Path, diff: str) -> None:
    """Change a file as one hunk says, wherever its lines stand; they have to stand there once."""
    lines = diff.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    if not any(line[0] == " " for line in lines) and "-" not in {line[0] for line in lines}:
        raise AssertionError(f"{file}: nothing says where these lines belong")
    content = file.read_text()
    assert content.count(old) == 1, f"{file.name} holds {content.count(old)} times:\n{old}"
    file.write_text(content.replace(old, new))


def named_above(page: str, fence: Fence) -> str:
    """The file that the page names last before a block."""
    before = "\n".join(page.splitlines()[: fence.line - 1])
    return re.findall(r"`((?:labelers|data_manifests|pipeline)/[\w/]+\.py)`", before)[-1]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as somebody has it who has done what the page says."""
    folder = tmp_path_factory.mktemp("copy") / "project"
    folder.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("luigi.cfg", "pyproject.toml"):
        shutil.copy(ROOT / file, folder)
    page = PAGE.read_text()
    for fence in read_fences(PAGE):
        if fence.language == "diff":
            apply_diff(folder / named_above(page, fence), fence.text)
        elif fence.language == "python" and named_above(page, fence) == MODULE:
            (folder / MODULE).write_text(fence.text)
    return folder


def run(folder: Path, command: str, workspace: Path) -> str:
    """Run a command of the page in the copy."""
    variables = {**environment(), "PYTHONPATH": str(folder), "FIQA_WORKSPACE": str(workspace)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def printed(copy: Path, reader: Reader) -> str:
    """What the commands of the page print, run in the copy on the reader's labels."""
    workspace = reader.folder / "workspace"
    output = ""
    for fence in read_fences(PAGE):
        if fence.language == "sh":
            output = run(copy, fence.text, workspace)
            if "labelers.versions" in fence.text:
                versions = copy / "labelers" / "versions.py"
                found = output.split()[1]
                versions.write_text(versions.read_text().replace('code=""', f'code="{found}"'))
        elif fence.language == "text":
            compare(fence, output)
            return output
    raise AssertionError("the page shows no output")


def test_it_runs_and_leaves_the_labels_alone(printed: str) -> None:
    assert printed.count("nothing would run") == 2


def test_the_measure_is_right(printed: str, reader: Reader) -> None:
    folder = reader.folder / "workspace" / "sample"
    table = pl.read_parquet(folder / "brightness" / "current")
    assert table.columns == ["key", "brightness", "status"]
    assert len(table) == 256
    with RecordFile(folder / "_source" / "train.rec") as records:
        for key, brightness in table.select("key", "brightness").head(8).iter_rows():
            red, green, blue = decode(records.read(key)[1]).reshape(-1, 3).mean(axis=0)
            assert brightness == pytest.approx(0.299 * red + 0.587 * green + 0.114 * blue, abs=0.5)


def test_the_last_snippet_runs(printed: str, reader: Reader) -> None:
    snippet = next(f for f in reversed(read_fences(PAGE)) if f.language == "python")
    compare(read_fences(PAGE)[-1], Reader(folder=reader.folder).run(snippet))


def test_it_passes_the_checks_of_the_project(copy: Path, printed: str) -> None:
    changed = [copy / row for row in re.findall(r"^\| `([\w/.]+)` \|", PAGE.read_text(), re.MULTILINE)]
    for words in (["check"], ["format", "--check"]):
        subprocess.run([Path(sys.executable).with_name("ruff"), *words, *changed], check=True, cwd=copy)
    tests = ["tests/labelers/test_versions.py", "tests/data_manifests/tables/test_tables.py"]
    variables = {**os.environ, "PYTHONPATH": str(copy)}
    subprocess.run([sys.executable, "-m", "data_manifests.tables.page"], check=True, cwd=copy, env=variables)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests], check=False, cwd=copy, env=variables, capture_output=True, text=True
    )
    assert not done.returncode, done.stdout


def test_the_page_counts_its_lines(copy: Path) -> None:
    page = PAGE.read_text()
    counts = dict.fromkeys(re.findall(r"^\| `([\w/.]+)` \|", page, re.MULTILINE), 0)
    for fence in read_fences(PAGE):
        if fence.language == "diff":
            added = [line[1:] for line in fence.text.splitlines() if line.startswith("+")]
            counts[named_above(page, fence)] += sum(bool(line.strip()) for line in added)
        elif fence.language == "python" and named_above(page, fence) == MODULE:
            counts[MODULE] += sum(bool(line.strip()) for line in fence.text.splitlines())
    shown = {name: int(lines) for name, lines in re.findall(r"^\| `([\w/.]+)` \|.*\| (\d+) \|$", page, re.MULTILINE)}
    assert shown == counts
