"""A training that is killed, stopped or shared out gives the weights of one that was left alone."""

from __future__ import annotations

import json
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
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr

from data_manifests.tables.stages import CLASSES
from tests.forked import forking, start
from training.evaluation.training_losses import read_losses
from training.train_quality import main
from training.trainer.checkpoint import STATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.process import BaseProcess

    from tests.training.conftest import LabelledSample

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 120.0


@dataclass(slots=True, kw_only=True)
class Launcher:
    """Starts the command line in real processes, forked from one that has imported the slow packages already.

    They are told who is who as torchrun does, by the environment.
    """

    labels: Path
    more_labels: Path
    images: Path
    started: list[BaseProcess] = field(default_factory=list)

    def start(self, run: Path, ranks: int, words: Sequence[str]) -> list[BaseProcess]:
        """Start all processes of a training; none sees a GPU."""
        command = [*self.data(words), "--output", str(run), *SMALL, *words]
        common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        run.parent.mkdir(parents=True, exist_ok=True)
        processes = [
            start("training.train_quality", command, {**common, "RANK": str(r), "LOCAL_RANK": str(r)}, log_of(run))
            for r in range(ranks)
        ]
        self.started += processes
        return processes

    def data(self, words: Sequence[str]) -> list[str]:
        """The labels and images; with people held out there are more labels, so that as many are learned from."""
        labels = self.more_labels if "--held-out" in words else self.labels
        return ["--labels", str(labels), "--images", str(self.images)]

    def execute(self, code: str) -> None:
        """Run a piece of code to its end."""
        process = forking().Process(target=exec, args=(code,))
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
HELD_OUT = ("--held-out", "1/4")
"""The second person of the sample, with rows 32 to 63."""

WORDS = {1: (), 2: ("--recipe", "released", *HELD_OUT)}
"""Two processes use the released recipe, whose weights also depend on the losses of the epochs before."""

IMAGES = 47
MORE_IMAGES = IMAGES + 32
STEPS = 6
"""Batches in an epoch of 46 images; one of the 47 rows says that its image does not decode."""


@pytest.fixture(scope="module")
def launcher(labelled_faces: LabelledSample) -> Iterator[Launcher]:
    """A launcher with labels of a few images."""
    labels = labelled_faces.write_labels("trainer-labels", rows=IMAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        # What is compiled for the first process is there for the three that torchrun starts.
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(labelled_faces.folder / "bytecode"))
        more = labelled_faces.write_labels("trainer-more-labels", rows=MORE_IMAGES)
        made = Launcher(labels=labels, more_labels=more, images=labelled_faces.record_file)
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
    for name in ("confidence/confidence.parquet", "README.md", "metrics.json"):
        assert (run / name).exists() == (other / name).exists()
        assert not (run / name).exists() or (run / name).read_bytes() == (other / name).read_bytes()


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
    launcher.run(tmp_path / "both", 2, *words, "--accumulation", "2")
    for step in (1, 2, 3, 4):
        expected = step_sums(tmp_path / "one", step)
        assert expected.shape == (7,)
        assert (expected > 0).all()
        for name in ("two", "parts", "both"):
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
    command += ["-m", "training.train_quality", *launcher.data(WORDS[2])]
    done = subprocess.run(
        [*map(str, command), "--output", str(run), *SMALL, *WORDS[2]], cwd=ROOT, capture_output=True, text=True,
        check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same_result(run, undisturbed[2])


_MULTIPLY = """
from training import train_quality

def multiply(*_):
    import sys
    import torch
    torch.set_num_threads(2)
    denormal = torch.full((1 << 20,), 1000, dtype=torch.int32).view(torch.float32)
    sys.exit(int((denormal * 1.0).view(torch.int32).count_nonzero()) != {wanted})

{call}
"""


@pytest.mark.parametrize(
    ("call", "wanted"),
    [("multiply()", 1 << 20),
     ("train_quality.train = multiply; train_quality.main(['--labels=.', '--images=.', '--output=.'])", 0)],
)  # fmt: skip
def test_every_thread_of_a_training_takes_denormals_for_zero(launcher: Launcher, call: str, wanted: int) -> None:
    launcher.execute(_MULTIPLY.format(call=call, wanted=wanted))


def test_the_run_folder_tells_what_it_is(launcher: Launcher, undisturbed: dict[int, Path]) -> None:
    run = undisturbed[1]
    facts = json.loads((run / "config.json").read_text())
    assert facts["data"]["labels_fingerprint"] == "0123456789ab"
    assert facts["data"]["images"] == IMAGES - 1
    assert facts["data"]["left_out"] == {"unreadable": 1, "unlabelled": 0, "held out": 0}
    assert facts["config"]["rules"]["distance"] == "paper"
    assert "torch" in facts["versions"]
    assert facts["run"] in (run / "README.md").read_text()
    assert "| 46 of 47, left out: 1 unreadable |" in (run / "README.md").read_text()
    assert "nothing below was measured on such" in (run / "README.md").read_text()
    assert not (run / "metrics.json").exists()
    assert list(run.glob("events/events.out.tfevents.*"))
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        f"step-{step:09d}" for step in (18, 21, 24)
    ]


def curves_of(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415 - slow

    events = EventAccumulator(str(run / "events"))
    events.Reload()
    return events


def test_curves_hold_every_term(undisturbed: dict[int, Path]) -> None:
    events = curves_of(undisturbed[1])
    terms = {"total", "quality", "blur", "occlusion", "pose", "expression", "lighting", "merged"}
    assert {f"loss/{term}" for term in terms} | {"rate/tower", "speed/images_per_second"} <= set(
        events.Tags()["scalars"]
    )
    total = events.Scalars("loss/total")
    assert [point.step for point in total] == [4, 8, 12, 16, 20, 24]
    assert total[-1].value < total[0].value
    means = read_losses({"run": undisturbed[1], "none": undisturbed[1] / "checkpoints"}).to_pylist()
    assert {row["loss"] for row in means} == terms
    assert {row["method"] for row in means} == {"run"}
    by_epoch = [row["mean"] for row in means if row["loss"] == "total"]
    assert [row["epoch"] for row in means if row["loss"] == "total"] == [1, 2, 3, 4]
    assert STEPS * sum(by_epoch) == pytest.approx(4 * sum(point.value for point in total), rel=1e-5)
    rates = [point.value for point in events.Scalars("rate/tower")]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    held = curves_of(undisturbed[2])
    metrics = json.loads((undisturbed[2] / "metrics.json").read_text())
    points = {point.step: point.value for point in held.Scalars("held_out/spearman")}
    assert points == pytest.approx({12: metrics["phase_one"]["spearman"], 24: metrics["end"]["spearman"]})
    assert "held_out/spearman" not in events.Tags()["scalars"]


_RECOMPUTE = """
import sys
import numpy as np, torch
from pathlib import Path
from safetensors.torch import load_file
from labelers.faces import decode
from data_manifests.recordio.record_file import RecordFile
from training.quality.scorer import TrainedNetworks
from training.quality.model import MergedFactors, QualityModel, log_marginals
from training.clip.backbone import build_image_encoder, find_clip_config
weights = load_file({weights!r})
tower = find_clip_config("test-resnet")
model = QualityModel(tower, build_image_encoder(tower), weights["model.text_features"], torch.zeros(()))
heads = TrainedNetworks(model, MergedFactors())
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
    assert table["key"].to_numpy().tolist() == keys[:IMAGES, 0].tolist(), "one row for every record of the labels"
    status = ["ok"] * IMAGES
    status[IMAGES // 3] = "decode_error"
    assert table["status"].to_pylist() == status
    assert [value is None for value in table["js"].to_pylist()] == [text != "ok" for text in status]
    table = table.drop_null()
    found = np.isin(keys[:, 0], table["key"].to_numpy())
    assert found.sum() == IMAGES - 1
    np.testing.assert_allclose(table["js"].to_numpy(), js[found], rtol=1e-3, atol=1e-6)
    rho = 1 / (1 + np.exp(32 * table["js"].to_numpy())) + 0.5
    np.testing.assert_allclose(table["confidence"].to_numpy(), rho, atol=1e-6)
    launcher.run(run, 1)
    assert_same_result(run, undisturbed[1])


def test_the_confidences_say_who_was_held_out(undisturbed: dict[int, Path]) -> None:
    table = pq.read_table(undisturbed[2] / "confidence")
    status = ["ok"] * 32 + ["held_out"] * 32 + ["ok"] * (MORE_IMAGES - 64)
    status[MORE_IMAGES // 3] = "decode_error"
    assert table["status"].to_pylist() == status
    assert [value is None for value in table["confidence"].to_pylist()] == [text != "ok" for text in status]


_SCORE = """
import numpy as np
from pathlib import Path
from training.scoring.inputs import decode_ahead, open_images
from training.scoring.models import open_model
model = open_model(Path({run!r}))
second = list(decode_ahead(open_images(Path({images!r})), batch=32, threads=1))[1]
np.save({output!r}, model.run(second.pixels))
"""


def test_people_held_out_are_measured_with_the_model_that_is_kept(
    launcher: Launcher, undisturbed: dict[int, Path], tmp_path: Path
) -> None:
    """Scored anew from the run's folder, with the formulas written out."""
    run = undisturbed[2]
    output = tmp_path / "numbers.npy"
    launcher.execute(_SCORE.format(run=str(run), images=str(launcher.images), output=str(output)))
    numbers, frame = np.load(output), pl.read_parquet(launcher.more_labels / "*.parquet")[32:64]
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(metrics) == ["phase_one", "end"]
    assert metrics["phase_one"] != metrics["end"]
    end = metrics["end"]
    assert (end["images"], end["people"]) == (32, 1)
    usable = frame["quality"].is_not_null().to_numpy()
    wanted = spearmanr(numbers[usable, 0], frame["quality"].to_numpy()[usable]).statistic
    assert end["spearman"] == pytest.approx(wanted, abs=0.02)
    first = 6
    for factor, classes in CLASSES.items():
        told = numbers[:, first : first + len(classes)].argmax(1)
        first += len(classes)
        codes = frame[factor.value].cast(pl.Enum(classes)).to_physical().fill_null(99).to_numpy()
        recalls = [(told[codes == code] == code).mean() for code in range(len(classes))]
        assert end["balanced_accuracy"][factor.value] == pytest.approx(np.mean(recalls), abs=0.02)
    assert first == numbers.shape[1]
    card, log = (run / "README.md").read_text(), log_of(run).read_text()
    assert "fold 1/4 of the people (`data_manifests.folds`). People: 1, images: 32." in card
    assert f"| Spearman of score and quality | {metrics['phase_one']['spearman']:.3f} | {end['spearman']:.3f} |" in card
    assert "46 of 79, left out: 1 unreadable, 32 held out" in card
    assert "nothing below was measured" not in card
    assert "46 images to learn from, left out 1 unreadable, 32 held out" in log
    assert (
        f"at the end: people held out (1, with 32 images): Spearman of score and quality {end['spearman']:.3f}" in log
    )


def test_measuring_people_held_out_leaves_the_training_as_it_was(launcher: Launcher, tmp_path: Path) -> None:
    """The same images are learned from when the others are not in the labels at all."""
    table = pl.read_parquet(launcher.more_labels / "*.parquet")
    (tmp_path / "labels").mkdir()
    (table[:32].vstack(table[64:])).write_parquet(tmp_path / "labels" / "labels.parquet")
    launcher.run(tmp_path / "held", 1, *HELD_OUT, "--epochs-one", "1", "--epochs-two", "1")
    without = ("--labels", str(tmp_path / "labels"), "--epochs-one", "1", "--epochs-two", "1")
    launcher.run(tmp_path / "without", 1, *without)
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("held", "without"))
    assert found.keys() == expected.keys()
    assert not [name for name in found if not torch.equal(found[name], expected[name])]
    assert (tmp_path / "held" / "metrics.json").exists()


def test_one_image_held_out_is_measured_by_one_of_two_processes(launcher: Launcher, tmp_path: Path) -> None:
    table = pl.read_parquet(launcher.more_labels / "*.parquet")
    (tmp_path / "labels").mkdir()
    (table[:33].vstack(table[64:])).write_parquet(tmp_path / "labels" / "labels.parquet")
    words = (*HELD_OUT, "--labels", str(tmp_path / "labels"), "--epochs-one", "1", "--epochs-two", "0")
    launcher.run(tmp_path / "run", 2, *words)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics) == ["end"]
    assert metrics["end"]["images"] == 1
    assert metrics["end"]["spearman"] is None
    assert "| Spearman of score and quality | unknown |" in (tmp_path / "run" / "README.md").read_text()


def test_a_warm_training_begins_slowly(launcher: Launcher, tmp_path: Path) -> None:
    words = ("--limit-steps", "6", "--log-every", "1")
    launcher.run(tmp_path / "warm", 1, *words, "--warm-up", "0.25")
    rates = [point.value for point in curves_of(tmp_path / "warm").Scalars("rate/tower")]
    # Of 24 steps six are warm: what is shown after step s is the rate of the next, (s + 1) / 7 of the highest.
    assert rates == pytest.approx([1e-3 * (step + 1) / 7 for step in range(1, 7)])


def test_without_its_confidences_phase_two_does_not_go_on(launcher: Launcher, tmp_path: Path) -> None:
    run = tmp_path / "robbed"
    launcher.run(run, 1, "--limit-steps", str(2 * STEPS + 1))
    (run / "confidence" / "confidence.parquet").unlink()
    text = launcher.run(run, 1, code=1)
    assert "not the table with which phase two was begun" in text.strip().splitlines()[-1]


def test_other_settings_in_the_same_folder_are_one_error(launcher: Launcher, undisturbed: dict[int, Path]) -> None:
    run = undisturbed[1]
    text = launcher.run(run, 1, "--beta", "25", "--no-confidence", "--checkpoint-every", "9", code=1)
    error = text.strip().splitlines()[-1]
    assert "checkpoint_every" not in error
    assert error.startswith("error: ")
    assert "config.beta: 32.0 there, 25.0 here" in error
    assert "config.terms.confidence: True there, False here" in error


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--beta", "abc"), 2, "argument --beta: a number is expected"),
        (("--prompts", "spred"), 2, "argument --prompts: one of encoded, spread is expected"),
        (("--bath", "3"), 2, "unrecognized arguments: --bath 3"),
        (("--warm-up", "1"), 1, "warm_up is a share of all steps, from 0 to below 1, not 1.0"),
    ],
)
def test_a_wrong_value_is_one_line(
    words: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        ended = main(["--labels", "a", "--images", "b", "--output", "c", *words])
    except SystemExit as end:
        ended = end.code
    said = capsys.readouterr().err
    assert (ended, said.count("\n")) == (code, 1)
    assert said.startswith("error: ")
    assert message in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tower", "RN51"), "there is no tower 'RN51'"),
        (("--batch", "2", "--accumulation", "3"), "raise the batch"),
        (("--device", "cuda"), "no GPU can be used here"),
        (("--compiled", "reduce-overhead", "--accumulation", "2"), "takes a share in one part"),
        (("--no-quality",), "the confidence compares quality with factors"),
        (("--learning-rate", "1e30"), "not finite"),
        (("--recipe", "released", "--warm-up", "0.1"), "the released schedule has no warm_up"),
        (("--held-out", "0/4"), "nobody of fold 0/4 has an image to learn from"),
        (("--labels", "/nowhere"), "no Parquet file"),
    ],
)
def test_a_mistake_is_one_message(launcher: Launcher, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    text = launcher.run(tmp_path / "wrong", 1, *words, code=1)
    error = text.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in text
    # Only a run that has begun leaves something: its settings, and the mistake shows when its networks are built.
    assert (tmp_path / "wrong").exists() == (words[0] in ("--tower", "--batch", "--learning-rate"))
