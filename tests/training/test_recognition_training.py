"""A recogniser's training: killed or shared out it gives the same weights, and what it leaves is of use."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from data_manifests.folds import Fold
from data_manifests.recordio.record_file import RecordFile
from data_manifests.recordio.writer import write_ms1mv2
from data_manifests.sample import draw_images
from labelers.faces import decode
from tests import forked
from training import export, score, train_recognition
from training.dataset.images import TrainingDataError
from training.evaluation.methods.networks import NetworkKind, find_network
from training.recognition.data import load_people
from training.recognition.model_file import is_recogniser, load_recogniser
from training.trainer.schedule import step_share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.process import BaseProcess

    from tests.training.conftest import LabelledSample

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0
SMALL = (
    "--backbone", "mobilefacenet", "--batch-size", "8", "--drops", "3", "--checkpoint-every", "1", "--threads", "1",
    "--log-every", "2", "--accumulation", "2",
)  # fmt: skip


def start(images: Path, run: Path, ranks: int, words: Sequence[str]) -> list[BaseProcess]:
    """All processes of a training, told who is who as torchrun does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    command = ["--images", str(images), "--output", str(run), *SMALL, *words]
    module, log = "training.train_recognition", run.with_suffix(".log")
    return [
        forked.start(module, command, {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, log)
        for rank in range(ranks)
    ]


def finish(processes: list[BaseProcess], run: Path) -> None:
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0] * len(processes), run.with_suffix(".log").read_text()


@pytest.mark.slow
def test_killed_it_ends_with_the_same_bits(labelled_faces: LabelledSample, tmp_path: Path) -> None:
    images, ranks = labelled_faces.record_file, 2
    words = ("--steps", "20", "--limit-steps", "4", "--held-out", "1/4", "--sample-rate", "0.5")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(images, whole, ranks, words), whole)
    processes = start(images, killed, ranks, words)
    end = time.monotonic() + PATIENCE
    while not (killed / "checkpoints/step-000000002/checkpoint.json").exists():
        assert time.monotonic() < end
        assert all(process.is_alive() for process in processes), killed.with_suffix(".log").read_text()
        time.sleep(0.005)
    for process in reversed(processes):
        process.kill()
        process.join(PATIENCE)
    finish(start(images, killed, ranks, words), killed)
    assert "going on from step" in killed.with_suffix(".log").read_text()
    last = "checkpoints/step-000000004"
    found, expected = load_file(killed / last / "model.safetensors"), load_file(whole / last / "model.safetensors")
    assert found.keys() == expected.keys()
    assert not [name for name in found if not torch.equal(found[name], expected[name])]
    found, expected = (torch.load(run / last / "state.pt", weights_only=True) for run in (killed, whole))
    assert found["history"] == expected["history"]
    momentum = expected["momentum"]
    people = len(load_people(images, held_out=Fold(number=1, folds=4)).identities)
    assert momentum["head.weight"].shape == (people, 512)
    assert not [name for name in momentum if not torch.equal(found["momentum"][name], momentum[name])]


@pytest.fixture(scope="module")
def run(labelled_faces: LabelledSample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on two of eight people fewer, of a data set that has no licence of its own."""
    folder = tmp_path_factory.mktemp("recogniser") / "run"
    images = str(labelled_faces.record_file)
    words = ["--images", images, "--output", str(folder), *SMALL, "--steps", "3", "--held-out", "1/4"]
    assert train_recognition.main([*words, "--licence", ""]) == 0
    return folder


@pytest.mark.slow
def test_what_a_run_leaves_gives_what_it_has_learned(run: Path, labelled_faces: LabelledSample) -> None:
    saved = load_recogniser(run / "model.safetensors")
    assert saved.notes["config"]["steps"] == 3
    file = RecordFile(labelled_faces.record_file)
    faces = np.stack([decode(file.read(int(key))[1]) for key in file.index().keys[:2]])
    with torch.no_grad():
        embeddings, qualities = saved.model(torch.from_numpy(faces))
    (found,) = onnxruntime.InferenceSession(run / "quality.onnx").run(None, {"images": faces})
    np.testing.assert_allclose(found, qualities.numpy(), atol=1e-4)
    pixels = ((faces.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)
    (found,) = onnxruntime.InferenceSession(run / "cr_fiqa.onnx").run(None, {"images": pixels})
    np.testing.assert_allclose(found, embeddings.numpy(), atol=1e-3)


@pytest.mark.slow
def test_a_run_scores_images(run: Path, labelled_faces: LabelledSample, tmp_path: Path) -> None:
    """`training.score` and an evaluation take the run's folder or its ONNX file; what it does not tell is null."""
    for number, checkpoint in enumerate((run, run / "quality.onnx")):
        words = ["--checkpoint", str(checkpoint), "--input", str(labelled_faces.record_file), "--flip-average"]
        assert score.main([*words, "--output", str(tmp_path / f"{number}.parquet")]) == 0
    table = pl.read_parquet(tmp_path / "0.parquet")
    assert table.equals(pl.read_parquet(tmp_path / "1.parquet"))
    assert table["quality"].null_count() == 0
    assert table["quality"].n_unique() > 100
    assert table["p_hazy"].null_count() == table["blur"].null_count() == len(table)
    network = find_network(run)
    assert (network.kind, network.files) == (NetworkKind.EXPORTED, (run / "quality.onnx",))
    assert find_network(run / "quality.onnx") == network


@pytest.mark.slow
def test_a_released_checkpoint_is_exported(run: Path, tmp_path: Path) -> None:
    torch.save(load_recogniser(run / "model.safetensors").model.published(), tmp_path / "authors.pth")
    images = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    found = []
    for checkpoint in (run, tmp_path / "authors.pth"):
        assert export.main(["--checkpoint", str(checkpoint), "--output", str(tmp_path / "out.onnx")]) == 0
        found.append(onnxruntime.InferenceSession(tmp_path / "out.onnx").run(["quality"], {"images": images})[0])
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.slow
def test_the_head_says_whose_centres_it_holds(run: Path, labelled_faces: LabelledSample) -> None:
    head = load_file(run / "head.safetensors")
    data = load_people(labelled_faces.record_file, held_out=Fold(number=1, folds=4))
    assert head["identities"].tolist() == data.identities.tolist() != list(range(len(data.identities)))
    assert head["centres"].shape == (len(data.identities), 512)


@pytest.mark.slow
def test_a_finished_run_is_left_alone_and_another_refused(
    run: Path, labelled_faces: LabelledSample, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--images", str(labelled_faces.record_file), "--output", str(run), *SMALL, "--held-out", "1/4"]
    before = (run / "model.safetensors").stat().st_mtime_ns
    assert train_recognition.main([*words, "--steps", "3"]) == 0
    assert (run / "model.safetensors").stat().st_mtime_ns == before
    assert train_recognition.main([*words, "--steps", "4"]) == 1
    assert "config.steps: 3 there, 4 here" in capsys.readouterr().err


@pytest.mark.slow
def test_files_of_recognisers_are_known(run: Path, tmp_path: Path) -> None:
    saved = load_recogniser(run / "model.safetensors")
    torch.save(saved.model.published(), tmp_path / "authors.pth")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    assert is_recogniser(run / "model.safetensors")
    assert is_recogniser(tmp_path / "authors.pth")
    assert not is_recogniser(tmp_path / "other.pth")
    assert not is_recogniser(run / "head.safetensors")
    again = load_recogniser(tmp_path / "authors.pth")
    assert (again.backbone, again.notes) == (saved.backbone, {})
    assert torch.equal(again.model.qs.weight, saved.model.qs.weight)


def test_people_are_left_out_and_counted(labelled_faces: LabelledSample) -> None:
    whole = load_people(labelled_faces.record_file)
    assert (len(whole), len(whole.identities)) == (256, 8)
    data = load_people(labelled_faces.record_file, held_out=Fold(number=1, folds=4))
    assert data.left_out["held out"] == 256 - len(data) > 0
    assert set(data.identities[data.labels]) == set(data.identities.tolist())
    assert data.content != whole.content
    with pytest.raises(TrainingDataError, match=r"0 people are left .* \(8 before those of fewer than 1000"):
        load_people(labelled_faces.record_file, least_images=1000)


def write_damaged(folder: Path, *, mended: bool = False) -> Path:
    """40 faces of two people; one is torn, one no image, one small. A third person has one image, which is torn."""
    whole = [(number % 2, image.encoded) for number, image in zip(range(40), draw_images(), strict=False)]
    small = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    damaged = {3: whole[3][1][:900], 10: b"no image", 21: small}
    faces = [(person, face if mended else damaged.get(number, face)) for number, (person, face) in enumerate(whole)]
    alone = (2, whole[0][1] if mended else whole[0][1][:1200])
    write_ms1mv2(folder, iter([*sorted(faces, key=lambda face: face[0]), alone])).close()
    return folder / "train.rec"


@pytest.mark.slow
def test_images_that_cannot_be_read_are_left_out_of_the_whole_run(tmp_path: Path) -> None:
    """Of one that goes on, too, whatever has become of the images since."""
    images = write_damaged(tmp_path / "images")
    words = ("--steps", "20", "--batch-size", "16")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    finish(start(images, whole, 1, (*words, "--limit-steps", "2")), whole)
    finish(start(images, resumed, 1, (*words, "--limit-steps", "1")), resumed)
    write_damaged(tmp_path / "images", mended=True)
    finish(start(images, resumed, 1, (*words, "--limit-steps", "2")), resumed)
    about = json.loads((resumed / "config.json").read_text())["data"]
    assert (about["images"], about["people"]) == (37, 2)
    assert {cause: len(keys) for cause, keys in about["unreadable"].items()} == {"decode_error": 3, "wrong_size": 1}
    assert about["left_out"]["decode_error"] == 3
    said = resumed.with_suffix(".log").read_text()
    assert said.count("3 images are left out: decode_error; ") == said.count("looking whether all 41 images") == 1
    last = "checkpoints/step-000000002/model.safetensors"
    found, expected = load_file(resumed / last), load_file(whole / last)
    assert found["head.weight"].shape == (2, 512)
    assert not [name for name in found if not torch.equal(found[name], expected[name])]


def test_a_text_that_is_called_an_image_is_found(tmp_path: Path) -> None:
    for number, image in zip(range(6), draw_images(), strict=False):
        path = tmp_path / "photos" / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.encoded)
    (tmp_path / "photos" / "0" / "a.jpg").write_text("What I wanted to say.")
    data = load_people(tmp_path / "photos")
    assert data.find_unreadable(2) == {"decode_error": [4]}
    (tmp_path / "photos" / "1" / "1.jpg").unlink()
    unreadable = data.find_unreadable(1)
    assert unreadable == {"decode_error": [4], "missing_record": [5]}
    left = load_people(tmp_path / "photos", unreadable={"decode_error": [4]})
    assert left.left_out["decode_error"] == 1
    assert (len(left), left.find_unreadable(1)) == (5, {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batch-size", "1"), "a batch of 1 of the 256 images is too small"),
        (("--name", "quality"), "cannot be named quality"),
        (("--steps", "0"), "steps must be at least 1"),
        (("--pretrained", "absent.pt"), "absent.pt is neither a file nor a recogniser of models.toml (fr_feature, "),
    ],
)
def test_mistakes_are_told_in_one_line(
    labelled_faces: LabelledSample, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...],
    message: str,
) -> None:  # fmt: skip
    start = ["--images", str(labelled_faces.record_file), "--output", str(tmp_path / "run")]
    assert train_recognition.main([*start, "--backbone", "mobilefacenet", *words]) == 1
    assert message in capsys.readouterr().err


def test_recipes_are_the_papers_protocols() -> None:
    """CR-FIQA section IV."""
    for name, backbone, steps, drops in (
        ("s", "iresnet50", 32_000, (20_000, 28_000)),
        ("l", "iresnet100", 180_000, (100_000, 160_000)),
    ):
        given = train_recognition.read_recipe(ROOT / f"recipes/cr_fiqa_{name}.toml")
        config = train_recognition.make_config(given)
        assert (config.backbone, config.steps, config.drops, config.batch) == (backbone, steps, drops, 512)
        assert (config.learning_rate, config.momentum, config.weight_decay) == (0.1, 0.9, 5e-4)
        assert config == train_recognition.make_config({"backbone": backbone, "steps": steps, "drops": drops})
        rates = [step_share(step, drops=drops) for step in (0, drops[0] - 1, drops[0], drops[1], steps - 1)]
        np.testing.assert_allclose(rates, [1, 1, 0.1, 0.01, 0.01])
    assert json.dumps(config.describe())
    assert [step_share(step, drops=(9,), rising=3) for step in range(4)] == [0.25, 0.5, 0.75, 1]
