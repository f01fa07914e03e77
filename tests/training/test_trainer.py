"""A training that is killed, stopped or shared out gives the weights of one that was left alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from training.checkpoint import STATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.process import BaseProcess

    from tests.training.conftest import LabelledSample

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0

_CHILD = """
import os, sys
os.environ.update({environment!r})
log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.dup2(log, 1), os.dup2(log, 2)
import torch
torch.set_num_threads(1)
from training.train_quality import main
sys.exit(main({words!r}))
"""


@dataclass(slots=True, kw_only=True)
class Launcher:
    """Starts the command line in real processes, forked from one that has imported the slow packages already.

    They are told who is who as torchrun does, by the environment.
    """

    context: Any
    labels: Path
    images: Path
    started: list[BaseProcess] = field(default_factory=list)

    def start(self, run: Path, ranks: int, words: Sequence[str]) -> list[BaseProcess]:
        """Start all processes of a training."""
        command = ["--labels", str(self.labels), "--images", str(self.images), "--output", str(run), *SMALL, *words]
        common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        processes = []
        for rank in range(ranks):
            environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            code = _CHILD.format(environment=environment, log=str(log_of(run)), words=command)
            # `exec` is found by any process, which a function of a test module is not.
            processes.append(self.context.Process(target=exec, args=(code,)))
        run.parent.mkdir(parents=True, exist_ok=True)
        for process in processes:
            process.start()
        self.started += processes
        return processes

    def execute(self, code: str) -> None:
        """Run a piece of code to its end."""
        process = self.context.Process(target=exec, args=(code,))
        process.start()
        process.join(PATIENCE)
        assert process.exitcode == 0

    def run(self, run: Path, ranks: int = 1, *words: str, code: int = 0) -> str:
        """Run a training to its end, and return what it said."""
        processes = self.start(run, ranks, words)
        for process in processes:
            process.join(PATIENCE)
        text = log_of(run).read_text()
        assert [process.exitcode for process in processes] == [code] * ranks, text
        return text


SMALL = (
    "--pretrained", "", "--tower", "test-resnet", "--batch", "8", "--epochs-one", "2", "--epochs-two", "2",
    "--learning-rate", "1e-3", "--checkpoint-every", "3", "--threads", "1", "--log-every", "4",
)  # fmt: skip
WORDS = {1: (), 2: ("--recipe", "released")}
"""Two processes use the released recipe, whose weights also depend on the losses of the epochs before."""

IMAGES = 47
STEPS = 6
"""Batches in an epoch of 46 images; one of the 47 rows says that its image does not decode."""


@pytest.fixture(scope="module")
def launcher(labelled_faces: LabelledSample) -> Iterator[Launcher]:
    """A launcher with labels of a few images."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["open_clip", "torch.utils.tensorboard", "training.train_quality"])
    labels = labelled_faces.write_labels("trainer-labels", rows=IMAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        # What is compiled for the first process is there for the three that torchrun starts.
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(labelled_faces.folder / "bytecode"))
        made = Launcher(context=context, labels=labels, images=labelled_faces.record_file)
        yield made
    for process in made.started:
        if process.is_alive():
            process.kill()


@pytest.fixture(scope="module")
def undisturbed(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Finished runs that nobody disturbed, by the number of processes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for ranks in (1, 2):
        launcher.run(folder / str(ranks), ranks, *WORDS[ranks])
    return {ranks: folder / str(ranks) for ranks in (1, 2)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def log_of(run: Path) -> Path:
    return run.with_suffix(".log")


def last_step(run: Path) -> int:
    steps = [int(path.parent.name.removeprefix("step-")) for path in run.glob("checkpoints/*/checkpoint.json")]
    return max(steps, default=0)


def wait_for_step(run: Path, step: int, processes: Sequence[BaseProcess]) -> None:
    end = time.monotonic() + PATIENCE
    while last_step(run) < step:
        assert time.monotonic() < end
        if any(process.exitcode is not None for process in processes):
            raise AssertionError(log_of(run).read_text())
        time.sleep(0.002)


def assert_same_result(run: Path, other: Path) -> None:
    found, expected = load_file(run / "model.safetensors"), load_file(other / "model.safetensors")
    assert found.keys() == expected.keys()
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert not different
    assert (run / "confidence/confidence.parquet").read_bytes() == (
        other / "confidence/confidence.parquet"
    ).read_bytes()


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_five_times_it_ends_with_the_same_bits(
    launcher: Launcher, undisturbed: dict[int, Path], tmp_path: Path, ranks: int
) -> None:
    run, chance = tmp_path / "killed", random.Random(ranks)
    kills = sorted(chance.sample(range(4 * STEPS - 2), 5))
    for number, step in enumerate(kills):
        processes = launcher.start(run, ranks, WORDS[ranks])
        wait_for_step(run, step - step % 3, processes)
        time.sleep(chance.uniform(0.0, 0.1))
        os.kill(processes[number % ranks].pid, signal.SIGKILL)
        processes[number % ranks].join(PATIENCE)
        assert processes[number % ranks].exitcode == -signal.SIGKILL
        for process in processes:
            process.kill()
            process.join(PATIENCE)
        assert not (run / "model.safetensors").exists()
    text = launcher.run(run, ranks, *WORDS[ranks])
    assert text.count("going on from step") >= 3
    assert_same_result(run, undisturbed[ranks])
    assert "finished already" in launcher.run(run, ranks, *WORDS[ranks])


@pytest.mark.parametrize("ranks", [1, 2])
def test_told_to_stop_it_saves_and_says_so(
    launcher: Launcher, undisturbed: dict[int, Path], tmp_path: Path, ranks: int
) -> None:
    run = tmp_path / "stopped"
    processes = launcher.start(run, ranks, WORDS[ranks])
    wait_for_step(run, 3, processes)
    os.kill(processes[-1].pid, signal.SIGTERM)  # the others learn of it
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [75] * ranks
    assert 3 <= last_step(run) < 4 * STEPS
    assert not (run / "model.safetensors").exists()
    launcher.run(run, ranks, *WORDS[ranks])
    assert_same_result(run, undisturbed[ranks])


def step_sums(run: Path, step: int) -> np.ndarray:
    """The sums of every term's mean over the steps of the epoch so far, over all processes."""
    state = torch.load(run / "checkpoints" / f"step-{step:09d}" / STATE, weights_only=True)
    return torch.stack([part["sums"] for part in state["ranks"]]).sum(0).numpy()


def test_two_processes_or_parts_have_the_loss_of_one(launcher: Launcher, tmp_path: Path) -> None:
    words = ("--tower", "test-vit", "--limit-steps", "4", "--checkpoint-every", "1", "--keep", "9")
    launcher.run(tmp_path / "one", 1, *words)
    launcher.run(tmp_path / "two", 2, *words)
    launcher.run(tmp_path / "parts", 1, *words, "--accumulation", "2")
    for step in (1, 2, 3, 4):
        expected = step_sums(tmp_path / "one", step)
        assert expected.shape == (7,)
        assert (expected > 0).all()
        for name in ("two", "parts"):
            np.testing.assert_allclose(step_sums(tmp_path / name, step), expected, rtol=1e-5)


def test_reduced_precision_trains_too(launcher: Launcher, tmp_path: Path) -> None:
    words = ("--tower", "test-vit", "--limit-steps", "2", "--checkpoint-every", "1")
    launcher.run(tmp_path / "full", 1, *words)
    launcher.run(tmp_path / "half", 1, *words, "--bf16", "--no-channels-last")
    full, half = step_sums(tmp_path / "full", 2), step_sums(tmp_path / "half", 2)
    assert not np.array_equal(full, half)
    np.testing.assert_allclose(half, full, rtol=0.05)


@pytest.mark.slow
def test_torchrun_gives_the_same_bits(launcher: Launcher, undisturbed: dict[int, Path], tmp_path: Path) -> None:
    run = tmp_path / "torchrun"
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [torchrun, "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    command += ["-m", "training.train_quality", "--labels", launcher.labels, "--images", launcher.images]
    done = subprocess.run(
        [*map(str, command), "--output", str(run), *SMALL, *WORDS[2]], cwd=ROOT, capture_output=True, text=True,
        check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same_result(run, undisturbed[2])


def test_the_run_folder_tells_what_it_is(launcher: Launcher, undisturbed: dict[int, Path]) -> None:
    run = undisturbed[1]
    facts = json.loads((run / "config.json").read_text())
    assert facts["data"]["labels_fingerprint"] == "0123456789ab"
    assert facts["data"]["images"] == IMAGES - 1
    assert facts["data"]["left_out"] == {"unreadable": 1, "unlabelled": 0}
    assert facts["config"]["rules"]["distance"] == "paper"
    assert "torch" in facts["versions"]
    assert facts["run"] in (run / "README.md").read_text()
    assert "46 of 47, 1 unreadable left out" in (run / "README.md").read_text()
    assert list(run.glob("events/events.out.tfevents.*"))
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        f"step-{step:09d}" for step in (18, 21, 24)
    ]


def test_curves_hold_every_term(undisturbed: dict[int, Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415 - slow

    events = EventAccumulator(str(undisturbed[1] / "events"))
    events.Reload()
    terms = {"total", "quality", "blur", "occlusion", "pose", "expression", "lighting", "merged"}
    assert {f"loss/{term}" for term in terms} | {"rate/tower", "speed/images_per_second"} <= set(
        events.Tags()["scalars"]
    )
    total = events.Scalars("loss/total")
    assert [point.step for point in total] == [4, 8, 12, 16, 20, 24]
    assert total[-1].value < total[0].value
    rates = [point.value for point in events.Scalars("rate/tower")]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


_RECOMPUTE = """
import sys
import numpy as np, torch
from pathlib import Path
from safetensors.torch import load_file
from labelers.faces import decode
from data_manifests.recordio import RecordFile
from training.heads import Heads
from training.model import MergedFactors, QualityModel, log_marginals
from training.tower import build_image_tower, find_tower
weights = load_file({weights!r})
tower = find_tower("test-resnet")
model = QualityModel(tower, build_image_tower(tower), weights["model.text_features"], torch.zeros(()))
heads = Heads(model, MergedFactors())
heads.load_state_dict(weights)
heads.eval()
rows = []
with torch.no_grad():
    for key, _, encoded in RecordFile({images!r}).images():
        log_joint, merged = heads(torch.from_numpy(decode(encoded))[None])
        rows.append([key, *log_marginals(log_joint).quality[0].exp().tolist(), *merged[0].tolist()])
np.save({output!r}, np.array(rows))
"""


def test_confidence_is_that_of_the_weights_after_phase_one(
    launcher: Launcher, undisturbed: dict[int, Path], tmp_path: Path
) -> None:
    """Recomputed one image at a time, in evaluation mode and unmirrored, with the formulas written out."""
    run = tmp_path / "phase-one"
    launcher.run(run, 1, "--limit-steps", str(2 * STEPS))
    assert not (run / "confidence").exists()
    weights = run / "checkpoints" / f"step-{2 * STEPS:09d}" / "model.safetensors"
    output = tmp_path / "recomputed.npy"
    launcher.execute(_RECOMPUTE.format(weights=str(weights), images=str(launcher.images), output=str(output)))
    keys, told, justified = np.split(np.load(output), [1, 6], axis=1)
    middle = (told + justified) / 2
    js = ((told * np.log(told / middle)).sum(1) + (justified * np.log(justified / middle)).sum(1)) / 2
    table = pq.read_table(undisturbed[1] / "confidence")
    found = np.isin(keys[:, 0], table["key"].to_numpy())
    assert found.sum() == len(table) == IMAGES - 1
    np.testing.assert_allclose(table["js"].to_numpy(), js[found], rtol=1e-3, atol=1e-6)
    rho = 1 / (1 + np.exp(32 * table["js"].to_numpy())) + 0.5
    np.testing.assert_allclose(table["confidence"].to_numpy(), rho, atol=1e-6)
    launcher.run(run, 1)
    assert_same_result(run, undisturbed[1])


def test_without_its_confidences_phase_two_does_not_go_on(launcher: Launcher, tmp_path: Path) -> None:
    run = tmp_path / "robbed"
    launcher.run(run, 1, "--limit-steps", str(2 * STEPS + 1))
    (run / "confidence" / "confidence.parquet").unlink()
    text = launcher.run(run, 1, code=1)
    assert "not the table with which phase two was begun" in text.strip().splitlines()[-1]


def test_other_settings_in_the_same_folder_are_one_error(launcher: Launcher, undisturbed: dict[int, Path]) -> None:
    run = undisturbed[1]
    text = launcher.run(run, 1, "--beta", "25", "--no-confidence", code=1)
    error = text.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert "config.beta: 32.0 there, 25.0 here" in error
    assert "config.terms.confidence: True there, False here" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tower", "RN51"), "there is no tower 'RN51'"),
        (("--batch", "2", "--accumulation", "3"), "raise the batch"),
        (("--device", "cuda"), "no GPU can be used here"),
        (("--no-quality",), "the confidence compares quality with factors"),
        (("--learning-rate", "1e30"), "not finite"),
        (("--labels", "/nowhere"), "no Parquet file"),
    ],
)
def test_a_mistake_is_one_message(launcher: Launcher, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    if words[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    text = launcher.run(tmp_path / "wrong", 1, *words, code=1)
    error = text.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in text
