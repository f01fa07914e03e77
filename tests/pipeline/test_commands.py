"""What the command line says of commands that are wrong, and of those that have nothing to do."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pipeline.conftest import ROOT

if TYPE_CHECKING:
    from tests.pipeline.conftest import Factory

LUIGI = str(Path(sys.executable).with_name("luigi"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("LabelAl",), "error: No task LabelAl. Did you mean:\nLabelAll"),
        (("Ablation",), "requires the 'benchmarks' parameter to be set"),
        (("TrainQuality", "--recipe", "papr"), "papr is not a valid choice"),
        (("LabelAll", "--labels-recipe", "papr"), "labels recipe = 'papr' is none of paper, released"),
        (("LabelAll", "--labels-blur-hazy", "0.9"), "labels: blur_hazy = 0.9 must lie below blur_clear = 0.7"),
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


def test_a_command_with_nothing_to_do_says_where_it_lies(labelled_sample: Factory) -> None:
    done = labelled_sample.luigi("LabelAll")
    folder = labelled_sample.workspace / "sample" / "labels" / "current"
    assert done.stdout == f"nothing to do: labels of sample is complete in {folder}\n"


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="needs the right to mount a file system in a name space of its own")
def test_processes_that_cannot_share_locks_are_told_the_remedy(labelled_sample: Factory) -> None:
    alone = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o ro none /dev/shm && "$@"', "sh"]
    remedy = "make /dev/shm writable, or run with --workers 1"
    run = [LUIGI, "--module", "pipeline", "LabelAll", "--workers", "2"]
    done = labelled_sample._run([*alone, *run], check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("error: no locks in shared memory")
    assert done.stderr.rstrip().endswith(remedy)
    doctor = labelled_sample._run([*alone, sys.executable, "-m", "pipeline", "doctor"], check=False)
    assert doctor.returncode == 1
    assert remedy in re.sub(r"[^\w\-/,.]+", " ", doctor.stdout)


def test_settings_of_ones_own_lie_over_the_shipped_ones_in_any_folder(labelled_sample: Factory, tmp_path: Path) -> None:
    settings = tmp_path / "mine.cfg"
    settings.write_text("[labels]\nblur_hazy = 0.2\n")
    done = labelled_sample._run(
        [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); import pipeline; "
         "from pipeline.settings import labels; import luigi.configuration as c; "
         "print(labels().blur_hazy, c.get_config().get('core', 'local_scheduler'))"],
        check=True, LUIGI_CONFIG_PATH=str(settings), PYTHONPATH=str(ROOT),
    )  # fmt: skip
    assert done.stdout == "0.2 true\n"
