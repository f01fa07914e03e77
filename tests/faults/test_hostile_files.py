"""Files that would run code, or have other files read, are given to every option that takes one: an error, no more."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from data_manifests.verification import VerificationError, read_bin
from labelers.anchors.head import HeadError, load_head
from labelers.detection import DetectorError, FaceDetector
from labelers.runtime.device import Device
from labelers.runtime.onnx import Colour, InputSpec, NetworkError, open_network
from training import export, score
from training.backbones.names import Backbone
from training.clip.backbone import build_clip, find_clip_config, load_pretrained
from training.evaluation.methods.networks import QualityNetworkError, find_network
from training.evaluation.methods.quality_labeler import open_labeler
from training.recognition.model import Recogniser
from training.trainer.checkpoint import STATE, Checkpoint, CheckpointError, CheckpointFolder
from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

ERRORS = (
    WeightsError, HeadError, VerificationError, NetworkError, DetectorError, QualityNetworkError, CheckpointError
)  # fmt: skip


class Trap:
    """Pickles to a call that makes a file."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.mark, "w")


class Scripted(nn.Module):
    """Makes a file when TorchScript opens it."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))
        self.mark = mark

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool, str]:
        return (self.weight, self.training, self.mark)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool, str]) -> None:
        self.weight = torch.from_file(state[2], True, 4)  # makes the file
        self.training = state[1]
        self.mark = state[2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def write_all(folder: Path, mark: str) -> None:
    """One file of every kind that would make the file `mark`."""
    torch.jit.script(Scripted(mark)).save(str(folder / "scripted.pt"))
    torch.save({"weight": Trap(mark)}, folder / "zipped.pth")
    torch.save({"state_dict": {"model.a": torch.ones(1)}, "callbacks": Trap(mark)}, folder / "lightning.ckpt")
    torch.save({"weight": Trap(mark)}, folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "bare.pth").write_bytes(pickle.dumps(Trap(mark)))
    (folder / "bare.bin").write_bytes(pickle.dumps(([Trap(mark)] * 2, [True])))
    np.save(folder / "objects.npy", np.array([Trap(mark)]), allow_pickle=True)


def follow(path: Path, _: Path) -> None:
    """As `EvaluateQuality --methods model:FILE` opens it."""
    open_labeler(find_network(path), Device.CPU)


def pretrained_clip(path: Path, _: Path) -> None:
    tower = find_clip_config("small-resnet")
    load_pretrained(build_clip(tower, seed=0), tower, str(path))


def command(main: Callable[[list[str]], int], made: str, *more: str) -> Callable[[Path, Path], None]:
    """A command of training as a person calls it: its exit code is 1, and its error stands in one line."""

    def run(path: Path, folder: Path) -> None:
        said = main(["--checkpoint", str(path), "--output", str(folder / made), *[m.format(folder) for m in more]])
        raise WeightsError(path.name if said == 1 else f"exit code {said}")

    return run


TAKERS: dict[str, tuple[Callable[[Path, Path], object], set[str]]] = {
    "training.score --checkpoint": (command(score.main, "made.parquet", "--input", "{}/images"), {".pt", ".pth"}),
    "training.export --checkpoint": (command(export.main, "made.onnx"), {".pt", ".pth", ".ckpt"}),
    "TrainQuality --pretrained": (pretrained_clip, {".pt", ".pth"}),
    "TrainRecognition --pretrained": (
        lambda path, _: Recogniser(Backbone.MOBILEFACENET).load_published(path),
        {".pt", ".pth"},
    ),
    "EvaluateQuality --methods model:FILE": (follow, {".pt", ".pth"}),
    "[anchors] head": (lambda path, _: load_head(path, dimension=2), {".pt", ".pth", ".npy"}),
    "EvaluateQuality --benchmarks": (lambda path, _: read_bin(path), {".bin"}),
}


@pytest.mark.parametrize("option", list(TAKERS))
def test_no_option_runs_what_a_file_holds(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark, files, folder = tmp_path / "ran", tmp_path / "files", tmp_path / "work"
    files.mkdir()
    (folder / "images" / "a").mkdir(parents=True)
    cv2.imwrite(str(folder / "images" / "a" / "1.png"), np.zeros((112, 112, 3), np.uint8))
    write_all(files, str(mark))
    take, suffixes = TAKERS[option]
    tried = [path for path in sorted(files.iterdir()) if path.suffix in suffixes]
    assert tried
    for path in tried:
        with pytest.raises(ERRORS, match=path.name):
            take(path, folder)
        assert not mark.exists(), path
        assert not list(folder.glob("made.*"))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert all(any(path.name in line for path in tried) for line in told)
    assert len(told) == (len(tried) if "checkpoint" in option else 0)


def test_the_files_are_real_traps(tmp_path: Path) -> None:
    write_all(tmp_path, str(tmp_path / "ran"))
    for name, open_it in (
        ("scripted.pt", torch.jit.load),
        ("zipped.pth", lambda path: torch.load(path, weights_only=False)),
        ("bare.bin", lambda path: pickle.loads(path.read_bytes())),
        ("objects.npy", lambda path: np.load(path, allow_pickle=True)),
    ):
        open_it(tmp_path / name)
        assert (tmp_path / "ran").exists(), name
        (tmp_path / "ran").unlink()


def test_a_checkpoint_that_holds_code_is_not_taken(tmp_path: Path) -> None:
    folder = CheckpointFolder(root=tmp_path, run="r")
    folder.save(Checkpoint(step=1, weights={"w": torch.ones(2)}, state={"x": Trap(str(tmp_path / "ran"))}))
    assert (tmp_path / "step-000000001" / STATE).is_file()
    with pytest.raises(CheckpointError, match="no checkpoint there can be used"):
        folder.load()
    assert not (tmp_path / "ran").exists()


FACE = InputSpec(width=112, height=112, colour=Colour.RGB, mean=(127.5,) * 3, std=(127.5,) * 3)
NETWORKS: dict[str, Callable[[Path], object]] = {
    "a network of models.toml": lambda path: open_network(path, input=FACE, batch=1, device=Device.CPU),
    "EvaluateQuality --methods model:FILE": lambda path: open_labeler(find_network(path), Device.CPU),
    "training.score --checkpoint": score.open_model,
}


def face_network() -> onnx.ModelProto:
    """The sum of a face's values times a weight."""
    floats = onnx.TensorProto.FLOAT
    given = onnx.helper.make_tensor_value_info("x", floats, ["batch", 3, 112, 112])
    gives = onnx.helper.make_tensor_value_info("y", floats, ["batch", 1])
    weight = onnx.numpy_helper.from_array(np.full((3 * 112 * 112, 1), 1e-4, np.float32), "w")
    nodes = [onnx.helper.make_node("Flatten", ["x"], ["f"]), onnx.helper.make_node("MatMul", ["f", "w"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", [given], [gives], [weight])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


def keep_beside(path: Path, model: onnx.ModelProto) -> None:
    """Write a network that keeps its weights in a file beside it."""
    path.parent.mkdir()
    onnx.save_model(model, path, save_as_external_data=True, location="w.data", size_threshold=0)


def point_outside(path: Path, place: str) -> None:
    """Move the weights out of the folder, and let the network point there."""
    outside = path.parent.parent / "outside.data"
    (path.parent / "w.data").replace(outside)
    (path.parent / "link.data").symlink_to(outside)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = {"above": "../outside.data", "absolute": str(outside), "link": "link.data"}[place]
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("option", list(NETWORKS))
@pytest.mark.parametrize("place", ["above", "absolute", "link"])
def test_no_network_reads_weights_outside_its_folder(option: str, place: str, tmp_path: Path) -> None:
    path = tmp_path / "networks" / "face.onnx"
    keep_beside(path, face_network())
    if option != "training.score --checkpoint":
        NETWORKS[option](path)  # so what follows is refused for where its weights lie
    point_outside(path, place)
    with pytest.raises(ERRORS, match=r"face\.onnx"):
        NETWORKS[option](path)


@pytest.mark.parametrize("place", ["above", "absolute", "link"])
def test_the_face_detector_reads_no_weights_outside_its_folder(place: str, real_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "networks" / "yunet.onnx"
    keep_beside(path, onnx.load(real_data / "models/yunet_n_320_320.onnx"))
    FaceDetector(path)
    point_outside(path, place)
    with pytest.raises(DetectorError, match=r"yunet\.onnx"):
        FaceDetector(path)
