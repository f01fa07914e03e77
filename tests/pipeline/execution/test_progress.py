"""What a person reads while a stage runs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from pipeline.execution import progress
from pipeline.execution.progress import StageProgress
from pipeline.logs import set_up_logs
from tests.pipeline.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_speed_counts_this_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of it what came after the first images: before them, processes start and compile."""
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    meter = StageProgress("pose", total=1000, done=500)
    assert meter.text() == "starting; the first run on a machine compiles"
    now = 110.0
    meter.show(600)
    assert meter.text() == "600 of 1,000 images, 10 images/s, 40 s left"
    meter.show(600)
    assert meter.speed == pytest.approx(10.0)
    now = 112.0
    meter.show(800)
    assert meter.text() == "800 of 1,000 images, 100 images/s, 2 s left"
    assert meter.start == (10.0, 100)
    assert StageProgress("pose", total=1000).start == (0.0, 0)


def test_the_stages_that_follow_are_counted_where_their_time_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    meter = StageProgress("pose", total=1000, later=(60.0, " (anchors not counted)"))
    now = 110.0
    meter.show(600)
    expected = "600 of 1,000 images, 60 images/s, 7 s left, 67 s with the stages that follow (anchors not counted)"
    assert meter.text() == expected


def test_reports_share_and_line() -> None:
    heard: list[tuple[float, str]] = []
    with StageProgress("pose", total=10, report=lambda share, text: heard.append((share, text))) as meter:
        meter.show(5)
        meter.show(10)
    assert [share for share, _ in heard] == [0.5, 1.0]
    assert heard[-1][1].startswith("10 of 10 images")


def test_plain_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    logging.getLogger("pipeline").propagate = True
    with caplog.at_level(logging.INFO, logger="pipeline"), StageProgress("pose", total=10) as meter:
        meter.show(5)
    assert "pose: 5 of 10 images" in caplog.text


def test_an_expected_error_is_one_line_and_a_defect_keeps_its_trace(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up_logs()
    luigi = logging.getLogger("luigi-interface")
    luigi.propagate = True
    monkeypatch.delenv("FIQA_TRACE", raising=False)
    for error in (ValueError("the file is torn: fetch it again"), KeyError("oops")):
        try:
            raise error
        except (ValueError, KeyError):
            luigi.exception("[pid %s] Worker %s failed    %s", 1, "w", "Pose(data)")
    expected, defect = caplog.records
    assert expected.getMessage() == "Pose(data) failed: the file is torn: fetch it again"
    assert expected.exc_info is None
    assert defect.exc_info is not None


def test_a_task_in_a_process_of_its_own_shows_no_trace_either(tmp_path: Path) -> None:
    """Luigi starts one process a task when there are several workers."""
    program = """
        import luigi, pickle, sys
        if len(sys.argv) == 1:
            import subprocess
            import pipeline
            from pipeline.tasks.weights import Weights
            from data_manifests.weights.registry import load_registry
            task = Weights.of(load_registry().get("fr_pose"), ())
            subprocess.run([sys.executable, __file__, "task"], input=pickle.dumps(task), check=True)
        else:
            import logging
            task = pickle.load(sys.stdin.buffer)
            task.trigger_event(luigi.Event.START, task)
            try:
                raise ValueError("the file is torn: fetch it again")
            except ValueError:
                logging.getLogger("luigi-interface").exception("[pid %s] Worker %s failed    %s", 1, "w", task)
    """
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(program))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("FIQA_TRACE", None)
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False, env=environment)
    assert "Weights failed: the file is torn: fetch it again" in done.stderr
    assert "Traceback" not in done.stderr
