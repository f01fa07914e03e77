"""What the command line says of commands that are wrong, and of those that have nothing to do."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from luigi.cmdline_parser import CmdlineParser
from typer.testing import CliRunner

import pipeline
from data_manifests.tables.stages import TABLES
from pipeline.__main__ import app
from pipeline.commands.common import human_bytes
from pipeline.config.job import WORKSPACE_VARIABLE
from pipeline.config.parameters import option_of
from pipeline.config.settings import labels, list_sections
from pipeline.tasks.stage import Stage
from tests.mounting import may_mount
from tests.pipeline.conftest import ROOT, Factory

if TYPE_CHECKING:
    from collections.abc import Iterator

    import luigi


LUIGI = str(Path(sys.executable).with_name("luigi"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("LabelAl",), "error: No task LabelAl. Did you mean:\nLabelAll"),
        (("Ablation",), "requires the 'benchmarks' parameter to be set"),
        (("TrainQuality", "--recipe", "papr"), "error: --recipe papr: one of paper, released is expected"),
        (
            ("LabelAll", "--labels-recipe", "papr"),
            "error: --labels-recipe papr: one of paper, released, robust is expected",
        ),
        (("LabelAll", "--labels-blur-hazy", "0.9"), "labels: blur_hazy = 0.9 must lie below blur_clear = 0.7"),
        (("LabelAll", "--limit", "abc"), "error: --limit abc: a whole number is expected\n"),
        (("LabelAll", "--labels-blur-hazy", "x"), "error: --labels-blur-hazy x: a number is expected\n"),
        (("LabelAll", "--report-page", "maybe"), "error: --report-page maybe: true or false is expected\n"),
        (("LabelAll", "--workers", "many"), "error: --workers many: a whole number is expected\n"),
        (("LabelAll", "--workers", "0"), "error: --workers 0: at least 1 is expected\n"),
        (("LabelAll", "--workers", "-1"), "error: --workers -1: at least 1 is expected\n"),
        (("LabelAll", "--dataset", "nix"), "no data set is called 'nix'"),
    ],
)
def test_a_wrong_command_is_explained_without_a_trace(
    words: tuple[str, ...], said: str, labelled_sample: Factory
) -> None:
    done = labelled_sample.luigi(*words, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_workspace_that_is_a_file_is_told(tmp_path: Path) -> None:
    factory = Factory(workspace=tmp_path / "workspace")
    factory.workspace.touch()
    said = f"error: the workspace {factory.workspace} is a file: name a folder, by FIQA_WORKSPACE\n"
    assert factory.luigi("LabelAll", check=False).stderr == said
    assert factory.command("plan", "LabelAll", check=False).stderr == said


def test_a_command_with_nothing_to_do_says_where_it_lies(labelled_sample: Factory) -> None:
    done = labelled_sample.luigi("LabelAll")
    folder = labelled_sample.workspace / "sample" / "labels" / "current"
    assert done.stdout == f"nothing to do: labels of sample is complete in {folder}\n"


@pytest.mark.skipif(not may_mount(), reason="needs the right to mount a file system in a name space of its own")
def test_processes_that_cannot_share_locks_are_told_the_remedy(labelled_sample: Factory, tmp_path: Path) -> None:
    alone = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o ro none /dev/shm && "$@"', "sh"]
    remedy = "make /dev/shm writable, or run with --workers 1"
    run = [LUIGI, "--module", "pipeline", "LabelAll", "--workers", "2"]
    done = labelled_sample._run([*alone, *run], check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("error: no locks in shared memory")
    assert done.stderr.rstrip().endswith(remedy)
    alone_run = [LUIGI, "--module", "pipeline", "BlurAll", "--limit", "40", "--workspace", str(tmp_path), "--workers"]
    assert labelled_sample._run([*alone, *alone_run, "2"], check=False).stderr.rstrip().endswith(remedy)
    assert "is complete in" in labelled_sample._run([*alone, *alone_run, "1"], check=True).stdout
    doctor = labelled_sample._run([*alone, sys.executable, "-m", "pipeline", "doctor"], check=False)
    assert doctor.returncode == 1
    assert remedy in re.sub(r"[^\w\-/,.]+", " ", doctor.stdout)


def test_settings_of_ones_own_lie_over_the_shipped_ones_in_any_folder(labelled_sample: Factory, tmp_path: Path) -> None:
    settings = tmp_path / "mine.cfg"
    settings.write_text("[labels]\nblur_hazy = 0.2\n")
    done = labelled_sample._run(
        [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); import pipeline; "
         "from pipeline.config.settings import labels; import luigi.configuration as c; "
         "print(labels().blur_hazy, c.get_config().get('core', 'local_scheduler'))"],
        check=True, LUIGI_CONFIG_PATH=str(settings), PYTHONPATH=str(ROOT),
    )  # fmt: skip
    assert done.stdout == "0.2 true\n"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("[labels]\nblur_hazy = low", ": [labels] blur_hazy = low: a number is expected"),
        (
            "[labels]\nblur_hazi = 0.2",
            ": [labels] has no setting blur_hazi (did you mean blur_hazy?): correct or remove it",
        ),
        ("[label]\nblur_hazy = 0.2", ": there is no section [label] (did you mean labels?): correct it"),
    ],
)
def test_what_is_wrong_in_a_file_of_settings_is_named(
    labelled_sample: Factory, tmp_path: Path, lines: str, said: str
) -> None:
    settings = tmp_path / "mine.cfg"
    settings.write_text(lines)
    for run in (labelled_sample.luigi, functools.partial(labelled_sample.command, "plan")):
        done = run("LabelAll", check=False, LUIGI_CONFIG_PATH=str(settings))
        assert done.returncode == 1
        assert done.stderr == f"error: {settings}{said}\n"


def test_a_file_of_settings_that_is_not_there_is_named(labelled_sample: Factory, tmp_path: Path) -> None:
    done = labelled_sample.luigi("LabelAll", check=False, LUIGI_CONFIG_PATH=str(tmp_path / "gone.cfg"))
    assert done.returncode == 1
    assert f"error: LUIGI_CONFIG_PATH names {tmp_path / 'gone.cfg'}, and there is no such file" in done.stderr


@pytest.mark.parametrize("section", list_sections(), ids=lambda section: section.__name__)
@pytest.mark.parametrize("command", ["plan", "explain", "export", "doctor"])
def test_a_command_has_every_setting_under_its_name_for_luigi(command: str, section: type[luigi.Config]) -> None:
    options = {flag for option in typer.main.get_command(app).commands[command].params for flag in option.opts}
    known = CmdlineParser._build_parser()._option_string_actions
    for name, _ in section.get_params():
        assert option_of(section, name) in options & known.keys()


def test_plan_shows_what_a_setting_on_the_command_line_would_run(
    labelled_sample: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(labelled_sample.workspace))
    before = labels().blur_hazy
    said = CliRunner().invoke(app, ["plan", "LabelAll", "--labels-blur-hazy", "0.3", "--report-page", "false"]).output
    assert "parameters.blur_hazy: 0.35 -> 0.3" in said
    assert said.endswith("\n1 of 9 stages would run\n")
    assert (labels().blur_hazy, CmdlineParser.get_instance()) == (before, None)
    assert CliRunner().invoke(app, ["plan", "LabelAll"]).output.endswith("\nnothing would run\n")


def test_plan_knows_the_page(sample_copy: Factory) -> None:
    shutil.rmtree((sample_copy.workspace / "sample" / "report" / "current").resolve())
    said = sample_copy.command("plan", "LabelAll").stdout
    assert "LabelReport draws it" in said
    assert said.endswith("\nnothing would run\n")
    assert sample_copy.luigi("LabelAll").stdout.startswith("nothing to do")
    assert sample_copy.command("plan", "LabelReport").stdout.endswith("\nthe page alone would be drawn\n")
    sample_copy.luigi("LabelReport")
    assert sample_copy.command("plan", "LabelReport").stdout.endswith("\nnothing would run\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "LabelAl"), "did you mean LabelAll?"),
        (("plan", "EvaluateQuality"), "EmbeddingsAll with --dataset BENCHMARK"),
        (("plan", "LabelAll", "--labels-blur-hazi", "0.3"), "--labels-blur-hazy"),
        (("plan", "LabelAll", "--models-pose", "fsanett"), "did you mean fsanet?"),
        (
            ("export", "--output", "x.csv", "--labels-blur-hazy", "0.31"),
            "LabelAll --dataset sample --labels-blur-hazy 0.31",
        ),
    ],
)
def test_a_wrong_word_is_answered_by_what_is_right(words: tuple[str, ...], said: str, labelled_sample: Factory) -> None:
    done = labelled_sample.command(*words, check=False)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_status_shows_stages_as_they_are_made(labelled_sample: Factory) -> None:
    said = labelled_sample.command("status").stdout
    rows = {cells[0]: cells for line in said.splitlines() if len(cells := line.split()) > 3}
    stages = [stage for stage in rows if stage in {*TABLES, "report"}]
    assert stages == [*(stage for stage in TABLES if stage != "identities"), "report"]
    factors = rows["factors"]
    assert factors[2:4] == ["factors_mini", "256"]
    assert factors[-3:-1] == folder_size(labelled_sample.workspace / "sample" / "factors")
    assert factors[-1] == "never"  # nobody has asked for a recheck
    assert "look at the labels: " in said


def folder_size(folder: Path) -> list[str]:
    return human_bytes(sum(path.stat().st_size for path in folder.rglob("*.parquet"))).split()


def test_a_table_that_is_piped_is_whole(labelled_sample: Factory, tmp_path: Path) -> None:
    environment = labelled_sample.environment(FIQA_CACHE=str(tmp_path / ("long" * 40)))
    del environment["COLUMNS"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "doctor"], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert str(tmp_path / ("long" * 40)) in done.stdout


def test_the_command_line_stands_above_the_manifest(labelled_sample: Factory) -> None:
    """The sample's manifest names fr_pose."""
    said = labelled_sample.command("plan", "PoseAll", "--models-pose", "fsanet").stdout
    assert "parameters.model: fr_pose -> fsanet" in said


def test_advice_can_be_pasted(sample_copy: Factory) -> None:
    """With hardly any face clear, the recipe robust is offered, with the other settings that were given; what luigi.cfg
    says against its thresholds is named."""
    words = ("--labels-yaw-frontal", "8", "--labels-blur-clear", "0.95", "--report-page", "false")
    said = sample_copy.luigi("LabelAll", *words).stdout
    (line,) = [line for line in said.splitlines() if "--labels-recipe robust" in line]
    command = line.partition("luigi --module pipeline ")[2]
    assert command == "LabelAll --dataset sample --labels-yaw-frontal 8 --labels-recipe robust"
    again = sample_copy.command("plan", *shlex.split(command)).stdout
    assert "2 of 9 stages would run" in again
    config = sample_copy.workspace / "luigi.cfg"
    config.write_text("[labels]\nblur_hazy = 0.35\nblur_clear = 0.95\n")
    older = {"LUIGI_CONFIG_PATH": str(config)}
    assert (
        "blur_clear = 0.95 is a threshold of cpbd"
        in sample_copy.luigi("LabelAll", "--labels-recipe", "robust", check=False, **older).stderr
    )
    said = sample_copy.luigi("LabelAll", "--report-page", "false", **older).stdout
    (line,) = [line for line in said.splitlines() if "--labels-recipe robust" in line]
    command = line.partition("luigi --module pipeline ")[2]
    assert command.endswith("--labels-recipe robust --labels-blur-hazy 1.15 --labels-blur-clear 1.28")
    assert "2 of 9 stages would run" in sample_copy.command("plan", *shlex.split(command), **older).stdout


def every_command() -> Iterator[tuple[str, Any]]:
    for name, command in typer.main.get_command(app).commands.items():
        yield name, command
        yield from ((f"{name} {inner}", part) for inner, part in getattr(command, "commands", {}).items())


@pytest.mark.parametrize(("name", "command"), list(every_command()))
def test_a_command_shows_an_example_that_it_understands(name: str, command: Any) -> None:
    (example,) = re.findall(r"^ *Example: (.*)$", command.help, re.MULTILINE)
    words = shlex.split(example.replace("python -m pipeline", "fiqa"))
    assert words[: 1 + len(name.split())] == ["fiqa", *name.split()]
    command.make_context(name, words[1 + len(name.split()) :])


def test_tasks_lists_all_that_a_user_calls(labelled_sample: Factory) -> None:
    said = labelled_sample.command("tasks").stdout
    named = re.findall(r"^│ (\w+)", said, re.MULTILINE)
    assert named[0] == "LabelAll"
    assert {*named} == {task for task in pipeline.__all__ if not issubclass(getattr(pipeline, task), Stage)}
    of_one = labelled_sample.command("tasks", "TrainQuality").stdout
    assert "luigi --module pipeline TrainQuality --dataset ms1mv2" in of_one
    assert re.search(r"--seed +│ 323 +│ seed of random weights", of_one)
    assert "did you mean TrainQuality?" in labelled_sample.command("tasks", "TrainQualty", check=False).stderr
