"""Texts come to the terminal as they are: what stands in brackets is not taken for markup."""

from __future__ import annotations

import ast
import inspect
import io
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
from rich.logging import RichHandler
from rich.table import Table
from typer.testing import CliRunner

import pipeline.execution.progress
import training.trainer.progress
from pipeline import logs
from pipeline.__main__ import app
from pipeline.terminal import make_console
from tests.pipeline.conftest import ROOT, Factory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

BRACKETS = "faces [2024] [/] [red] :cat:"
"""A name that Rich would lose the half of, refuse, and make a picture of."""


@pytest.fixture
def bracketed(labelled_sample: Factory, tmp_path: Path) -> Factory:
    """The labelled sample in a folder with brackets in its name."""
    place = tmp_path / "faces [2024] [red]"
    shutil.copytree(labelled_sample.workspace, place / "workspace", symlinks=True)
    return Factory(workspace=place / "workspace")


def shown(text: str) -> str:
    """What a table or a panel shows, its lines joined again."""
    return re.sub(r"[│\s]+", " ", text)


def run(factory: Factory, *words: str, code: int = 0, **environment: str) -> str:
    done = factory.command(*words, check=False, COLUMNS="10000", **environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return shown(done.stdout + done.stderr)


def test_every_command_shows_paths_whole(bracketed: Factory, tmp_path: Path) -> None:
    place = str(bracketed.workspace)
    sample = f"{place}/sample"
    assert f"free for {place}" in run(bracketed, "doctor")
    said = run(bracketed, "status")
    assert f" {sample} " in f" {said}"
    assert f'polars.scan_parquet("{sample}/labels/current")' in said
    assert f"{sample}/_source" in run(bracketed, "explain", "1")
    output = bracketed.workspace.parent / "labels [2024].csv"
    assert f"{output} holds 256 rows" in run(bracketed, "export", "--output", str(output))
    blank = output.with_name("images [2024]")
    run(bracketed, "export", "--format", "clib", "--output", f"{output}.txt", "--images", str(blank), code=1)
    bracketed.luigi("LabelAll", "--labels-blur-hazy", "0.3", "--report-page", "false")
    assert re.search(rf"would remove {re.escape(sample)}/labels/\w+ ", run(bracketed, "clean", "--keep=0", "--dry-run"))
    assert "0 B would be freed" in run(bracketed, "clean", "--dry-run", "--dataset", "s[a]mple")


def test_a_labelling_shows_paths_whole(bracketed: Factory) -> None:
    said = bracketed.luigi("LabelAll", "--labels-blur-clear", "0.95", page=True).stdout
    folder = bracketed.workspace / "sample" / "labels" / "current"
    assert f"256 labels lie in {folder}\n" in said
    assert f'open them: polars.scan_parquet("{folder}")\n' in said
    assert f"look at the labels: {bracketed.workspace}/sample/report/current/index.html\n" in said
    assert "\nwarning: blur: " in said


def test_what_a_terminal_cannot_show_decides_nothing(sample_copy: Factory) -> None:
    """A terminal without UTF-8: bars become question marks, and the page is drawn."""
    done = sample_copy.luigi("LabelAll", "--labels-blur-clear", "0.95", page=True, PYTHONIOENCODING="latin-1")
    assert "| ???" in done.stdout
    assert "256 labels lie in" in done.stdout
    assert "look at the labels" in done.stdout
    for words in (["describe", "labels"], ["explain", "1"], ["plan", "--help"], ["status"]):
        sample_copy.command(*words, PYTHONIOENCODING="latin-1")


@pytest.mark.parametrize(("output", "workers"), [(">/dev/full", 1), (">&-", 1), ("| true", 2)])
def test_what_nobody_reads_decides_nothing(sample_copy: Factory, output: str, workers: int) -> None:
    luigi = shutil.which("luigi", path=str(Path(sys.executable).parent))
    labelling = f"{luigi} --module pipeline LabelAll --labels-blur-clear 0.95 --workers {workers} {output}"
    program = f"for time in made complete; do {labelling}; echo ${{PIPESTATUS[0]}} >&3; done"
    command = ["bash", "-c", f"{program} 3>&1"]
    done = subprocess.run(command, cwd=ROOT, env=sample_copy.environment(), capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0", "0"], done.stderr
    assert "Traceback" not in done.stderr
    assert (sample_copy.workspace / "sample/report/current/index.html").exists()


@pytest.mark.parametrize("module", [pipeline.execution.progress, training.trainer.progress])
def test_a_terminal_that_is_gone_decides_nothing(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    master, terminal = os.openpty()
    stderr = io.TextIOWrapper(os.fdopen(terminal, "wb", buffering=0), write_through=True)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    with (
        module.StageProgress("pose", total=2)
        if module is pipeline.execution.progress
        else module.TrainingProgress(total=2)
    ):
        os.close(master)
    with pytest.raises(OSError, match="Input/output error"):
        stderr.write("lost")


def test_what_a_registry_says_is_shown_whole(labelled_sample: Factory, tmp_path: Path) -> None:
    folder = tmp_path / "weights [2024]"
    folder.mkdir()
    (folder / "net.onnx").write_bytes(b"no network")
    (folder / "models.toml").write_text(
        '[mine]\nkind = "pose"\nversion = 1\nlicence = "[research] only"\nnotes = ""\nbatch = 1\n'
        f'files = [{{ name = "net.onnx", bytes = 10, sha256 = "{"0" * 64}", sources = [] }}]\n'
        "input = { width = 8, height = 8, colour = 'rgb', mean = [0, 0, 0], std = [1, 1, 1] }\n"
        "output = { kind = 'angles', signs = [1, 1, 1] }\n"
    )
    said = run(labelled_sample, "weights", FIQA_MODELS=str(folder))
    assert "[research] only" in said
    assert f"{folder}/net.onnx" in said
    assert f"{folder}/net.onnx" in run(
        labelled_sample, "doctor", "--models-pose", "mine", code=1, FIQA_MODELS=str(folder)
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("plan", BRACKETS), 2),
        (("tasks", BRACKETS), 2),
        (("describe", BRACKETS), 2),
        (("explain", "1", "--dataset", BRACKETS), 1),
        (("weights", "fetch", BRACKETS), 1),
        (("doctor", "--dataset", BRACKETS), 1),
        (("status", BRACKETS), 2),
        (("plan", "LabelAll", "--models-pose", BRACKETS), 1),
        (("doctor", "--anchors-centres", "head", "--anchors-head", f"{BRACKETS}.npy"), 1),
        (("export", "--output", "x.csv", "--labels-recipe", BRACKETS), 1),
    ],
)
def test_what_was_asked_for_is_named_whole(words: tuple[str, ...], code: int, labelled_sample: Factory) -> None:
    assert BRACKETS in run(labelled_sample, *words, code=code)


def every_command() -> Iterator[tuple[list[str], typer.core.TyperCommand]]:
    for name, command in typer.main.get_command(app).commands.items():
        yield [name], command
        yield from (([name, inner], part) for inner, part in getattr(command, "commands", {}).items())


@pytest.mark.parametrize(("words", "command"), list(every_command()), ids=lambda value: str(value)[:20])
def test_help_is_shown_whole(words: list[str], command: typer.core.TyperCommand) -> None:
    said = shown(CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "10000"}).output)
    for text in (command.help or "", *(option.help or "" for option in command.params if not option.hidden)):
        for paragraph in inspect.cleandoc(text).split("\n\n"):
            assert shown(paragraph) in said


@pytest.mark.parametrize("module", [pipeline.execution.progress, training.trainer.progress])
def test_a_live_line_shows_its_texts_whole(module: ModuleType) -> None:
    live = module._live_line()
    live.add_task(BRACKETS, total=2, text=f"{BRACKETS}, 1 of 2")
    live.console.width = 200
    with live.console.capture() as caught:
        live.console.print(live.get_renderable())
    assert f"{BRACKETS}, 1 of 2" in caught.get()
    if module is pipeline.execution.progress:
        assert caught.get().startswith(f"{BRACKETS} ")


def test_a_log_in_a_terminal_shows_its_text_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs.sys.stderr, "isatty", lambda: True, raising=False)
    handler = logs._handler()
    assert isinstance(handler, RichHandler)
    handler.console.width = 200
    with handler.console.capture() as caught:
        handler.emit(logging.LogRecord("pipeline", logging.INFO, "", 0, "%s is torn", (BRACKETS,), None))
    assert f"{BRACKETS} is torn" in re.sub(r"\x1b\[[\d;]*m", "", caught.get())


def test_titles_and_columns_too() -> None:
    console = make_console()
    console.width = 200
    table = Table(BRACKETS, title=f"title {BRACKETS}")
    table.add_row(f"cell {BRACKETS}")
    with console.capture() as caught:
        console.print(table)
        console.print(f"line {BRACKETS}")
    for text in (f" {BRACKETS} ", f"title {BRACKETS}", f"cell {BRACKETS}", f"line {BRACKETS}\n"):
        assert text in caught.get()


def test_no_text_is_taken_for_markup_anywhere() -> None:
    """Every console, column of a live line and status of these packages, by their source."""
    found, wrong = 0, []
    for path in sorted(p for folder in ("pipeline", "training", "benchmarks") for p in (ROOT / folder).rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in {"Console", "TextColumn", "from_markup"}:
                found += 1
                plain = {key.arg for key in call.keywords if getattr(key.value, "value", True) is False}
                if not plain >= ({"markup", "emoji"} if name == "Console" else {"markup"}):
                    wrong.append(f"{path.relative_to(ROOT)}:{call.lineno}: {name} takes brackets for markup")
    assert found
    assert not wrong, "\n".join(wrong)
