"""Every command that a page shows is one: its task, its options and their values are known."""

from __future__ import annotations

import importlib
import re
import shlex
from typing import TYPE_CHECKING

import pytest
import typer
from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import Register, TaskClassException

import pipeline
from benchmarks.documents import PAGES, ROOT, read_fences
from pipeline.__main__ import app
from training.quality import settings as quality
from training.recognition import settings as recognition

if TYPE_CHECKING:
    from pathlib import Path

UsageError = typer.BadParameter.__mro__[1]
"""What typer raises for words that it does not know; its click may be one of its own."""

WRONG = (SystemExit, UsageError, TaskClassException, KeyError, ValueError, AssertionError)
"""What a command that is none raises."""

_INLINE = re.compile(r"`((?:luigi --module|python -m|\.venv/bin/luigi) [^`]+)`")
_HEADING = re.compile(r"^#.*$", re.MULTILINE)
_PLACEHOLDER = {"TASK", "..."}
_ASSIGNMENT = re.compile(r"^[A-Z_]+=\S*$")
_PIPED = re.compile(r"\s[|>&].*$")


_CHECKED_ELSEWHERE = {"CHANGELOG.md", "add-a-labeler.md"}
"""A list of names, and a page that a test of its own follows."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(page: Path) -> list[str]:
    """The commands of a page: of its blocks without a language, of shell, and within its text."""
    blocks = [c for fence in read_fences(page) if fence.language in {"", "sh"} for c in fence.commands()]
    ours = [c for c in blocks if re.match(r"([A-Z_]+=\S* )*(\.venv/bin/)?(luigi|python|make|torchrun)\b", c)]
    return [*ours, *(" ".join(c.split()) for c in _INLINE.findall(_HEADING.sub("", page.read_text())))]


def check(command: str) -> None:
    """Raise one of WRONG unless the command can be understood."""
    words = shlex.split(_PIPED.sub("", command))
    while _ASSIGNMENT.match(words[0]):
        words = words[1:]
    if _PLACEHOLDER & set(words):
        return
    program, words = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words) <= set(targets), command
    elif program == "luigi":
        check_luigi(words)
    elif program == "python" and words[:1] == ["-m"]:
        check_module(words[1], words[2:])
    elif program == "python":
        assert (ROOT / words[0]).is_file(), command
    else:
        raise ValueError(f"{command}: {program} is checked by nothing")


def check_luigi(words: list[str]) -> None:
    """A task with its options."""
    task = words[2] if len(words) > 2 else ""
    if task.startswith("--") or not task:
        return
    if task == "LabelReport" and not hasattr(pipeline, task):
        pytest.skip("there is no LabelReport yet")
    with CmdlineParser.global_instance(words) as parser:
        family = Register.get_task_cls(task)
        for option, parameter in family.get_params():
            given = getattr(parser.known_args, option, None)
            if isinstance(given, str):
                parameter.parse(given)


def check_module(module: str, words: list[str]) -> None:
    """A module that is run: its options too, where they are of the product and not of a benchmark."""
    if module == "pipeline" and words:
        group = typer.main.get_command(app)
        command = group.commands[words[0]]
        nested = getattr(command, "commands", {})
        if words[1:2] and words[1] in nested:
            command, words = nested[words[1]], words[1:]
        command.make_context(words[0], words[1:])
    elif module.startswith("training."):
        name = "training.factor_net.__main__" if module == "training.factor_net" else module
        if words and not {"RUN", "--help"} & set(words):
            importlib.import_module(name).parser().parse_args(words)
    else:
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("script", sorted((ROOT / "recipes").glob("*.sh")), ids=name)
def test_the_commands_of_a_recipe_are_understood(script: Path) -> None:
    lines = re.sub(r"\\\n\s*", "", script.read_text()).splitlines()
    found = [line for line in lines if re.match(r"(luigi|python)\b", line)]
    assert len(found) >= 4
    for command in found:
        check(command)


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.toml")), ids=name)
def test_a_recipe_of_settings_can_be_trained(recipe: Path) -> None:
    of = recognition if recipe.stem.startswith("cr_fiqa") else quality
    assert of.make_config(of.read_recipe(recipe)).batch
    if recipe.stem in ("clib_paper", "cr_fiqa_s"):
        assert of.make_config(of.read_recipe(recipe)) == of.make_config({})


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in _CHECKED_ELSEWHERE], ids=name)
def test_the_commands_of_a_page_are_understood(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(page):
        try:
            check(command)
        except WRONG as error:
            shown = error.format_message() if isinstance(error, UsageError) else error
            raise AssertionError(f"{page.name}: {command}\n{shown}\n{capsys.readouterr().err[-500:]}") from error


@pytest.mark.parametrize(
    "command",
    [
        "luigi --module pipeline LabelAl",
        "luigi --module pipeline LabelAll --datasett x",
        "luigi --module pipeline LabelAll --limit many",
        "luigi --module pipeline LabelAll --labels-blur-hazi 0.3",
        "luigi --module pipeline AlignFaces --face biggest",
        "luigi --module pipeline TrainQuality --epoch-two 2",
        "luigi --module pipeline TrainQuality --batch-size many",
        "python -m pipeline statu",
        "python -m pipeline plan",
        "python -m pipeline clean --keep no",
        "python -m training.score --input x",
        "python -m benchmarks.nothing",
        "python examples/nothing.py",
        "make nothing",
        "labelall",
    ],
)
def test_a_wrong_command_is_found(command: str) -> None:
    with pytest.raises(WRONG):
        check(command)


def test_the_pages_show_commands() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 60
