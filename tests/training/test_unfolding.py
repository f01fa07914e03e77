"""A recogniser in ONNX, as published, becomes the weights of a backbone that gives the same and can be trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from data_manifests.recordio.writer import write_ms1mv2
from data_manifests.sample import draw_images
from data_manifests.weights.files import WeightsError as FileError
from data_manifests.weights.files import fetch
from data_manifests.weights.registry import load_registry
from labelers.runtime.onnx import Colour, InputSpec
from tests.two_outputs import write_two_outputs
from training import train_quality, train_recognition
from training.backbones.names import Backbone
from training.backbones.networks import build_backbone, fill_backbone, settle_backbone
from training.backbones.unfolding import unfold
from training.quality.model_file import load_model
from training.recognition.data import load_people
from training.recognition.model import prepare
from training.recognition.model_file import load_recogniser
from training.trainer.loader import read_spread
from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.training.conftest import LabelledSample
    from training.backbones.iresnet import IResNet
    from training.backbones.mobilefacenet import MobileFaceNet

SIDE = 112


def _lived(backbone: Backbone, seed: int) -> IResNet | MobileFaceNet:
    """A backbone whose batch norms are as after a training: none of their numbers is 0 or 1."""
    torch.manual_seed(seed)
    network = build_backbone(backbone)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
        elif isinstance(part, nn.PReLU):
            nn.init.uniform_(part.weight, 0.05, 0.4)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    return network.eval()


def _publish(network: nn.Module, path: Path) -> Path:
    """Write it as PyTorch's exporter writes a network in evaluation mode, which folds batch norms."""
    torch.onnx.export(network, (torch.zeros(1, 3, SIDE, SIDE),), str(path), opset_version=17, dynamo=False)
    return path


def _noise(count: int) -> torch.Tensor:
    coarse = torch.rand(count, 3, 14, 14, generator=torch.Generator().manual_seed(5))
    return functional.interpolate(coarse, SIDE, mode="bilinear") * 2 - 1


@pytest.mark.parametrize("kind", [Backbone.IRESNET18, Backbone.MOBILEFACENET, Backbone.MOBILEFACENET_SMALL])
@torch.no_grad()
def test_a_published_network_is_unfolded(kind: Backbone, tmp_path: Path) -> None:
    source, pixels = _lived(kind, 1), _noise(24)
    target = build_backbone(kind)
    fill_backbone(target, _publish(source, tmp_path / "network.onnx"))
    norms = [name for name, part in target.named_modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    # The exporter folds those behind convolutions: of an iresnet not the first of a block, and never the last of all.
    kept = [name for name in norms if ".bn1" in name or name == "bn2"] + norms[-1:]
    assert set(target.folded) == set(norms) - set(kept)
    wanted, size = source(pixels), source(pixels).abs().max()
    assert (target.eval()(pixels) - wanted).abs().max() < 1e-4 * size

    settle_backbone(target, pixels)
    assert target.folded == ()
    assert (target(pixels) - wanted).abs().max() < 1e-4 * size
    # In training mode a batch norm takes the batch's own statistics: those of these faces are what it was given.
    for name in set(norms) - set(kept):
        target.get_submodule(name).train()
    assert (target(pixels) - wanted).abs().max() < 1e-3 * size


def test_what_the_network_in_the_file_wants_to_see_goes_into_its_first_convolution(tmp_path: Path) -> None:
    source = _lived(Backbone.MOBILEFACENET_SMALL, 2)
    path = _publish(source, tmp_path / "network.onnx")
    spec = InputSpec(width=SIDE, height=SIDE, colour=Colour.BGR, mean=(127.0,) * 3, std=(128.0, 120.0, 64.0))
    target = build_backbone(Backbone.MOBILEFACENET_SMALL)
    target.folded = unfold(target, path, spec)
    levels = (_noise(4) + 1) * 127.5
    scaled = (levels.flip(1) - 127) / torch.tensor(spec.std).reshape(1, 3, 1, 1)
    with torch.no_grad():
        cosine = functional.cosine_similarity(source(scaled), target.eval()(levels / 127.5 - 1))
    assert cosine.min() > 0.9995  # but for the zeros beyond the edge

    with pytest.raises(WeightsError, match=r"do not give the same .* models\.toml with its \[input\]"):
        # A file whose first convolution does something else behind its back.
        unfold(_Inverted(), path)


def test_a_network_that_gives_unit_vectors_and_their_norms_is_unfolded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As AdaFace's: what it divides by its length is what the backbone gives."""
    network = write_two_outputs(tmp_path)
    monkeypatch.setenv("FIQA_MODELS", str(tmp_path))
    target = build_backbone(Backbone.MOBILEFACENET_SMALL)
    fill_backbone(target, "two_outputs")
    with torch.no_grad():
        found, (units, norms) = target.eval()(_noise(4)), network(_noise(4).flip(1))  # it wants BGR
    assert (found - units * norms).abs().max() < 1e-3 * found.abs().max()


class _Inverted(nn.Module):
    """A backbone whose layers fit, and which computes something else."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build_backbone(Backbone.MOBILEFACENET_SMALL)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner(-images)
        return found


def test_another_network_is_refused_by_its_layer(tmp_path: Path) -> None:
    path = _publish(_lived(Backbone.MOBILEFACENET_SMALL, 3), tmp_path / "network.onnx")
    with pytest.raises(WeightsError, match=r"network\.onnx: the layer layers\.0\.layers\.0.*\[128, 3, 3, 3\]"):
        fill_backbone(build_backbone(Backbone.MOBILEFACENET), path)
    with pytest.raises(WeightsError, match=r"network\.onnx: the layer conv1|network\.onnx: the layer layer1"):
        fill_backbone(build_backbone(Backbone.IRESNET18), path)
    shorter = nn.Sequential(_lived(Backbone.MOBILEFACENET_SMALL, 3).layers[0])
    with pytest.raises(WeightsError, match="has no place in the backbone"):
        unfold(shorter, path)
    with pytest.raises(WeightsError, match=r"neither a file nor a recogniser of models\.toml \(.*fr_feature"):
        fill_backbone(build_backbone(Backbone.IRESNET18), tmp_path / "gone.onnx")
    (tmp_path / "torn.onnx").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"torn\.onnx"):
        fill_backbone(build_backbone(Backbone.MOBILEFACENET_SMALL), tmp_path / "torn.onnx")


@torch.no_grad()
def test_a_recogniser_of_models_toml_is_started_from_by_its_name() -> None:
    entry = load_registry().entries["fr_feature"]
    try:
        fetch(entry)
    except FileError as error:
        pytest.skip(str(error))
    backbone = build_backbone(Backbone.MOBILEFACENET_SMALL).eval()
    fill_backbone(backbone, "fr_feature")
    assert len(backbone.folded) == 50


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _publish(_lived(Backbone.MOBILEFACENET_SMALL, 4), tmp_path_factory.mktemp("published") / "network.onnx")


SMALL = ("--batch-size", "32", "--threads", "1", "--log-every", "1", "--learning-rate", "1e-9")
"""Nothing is learned: what a run leaves is what it began with."""


@pytest.mark.slow
def test_a_recogniser_starts_from_a_published_one_and_its_people_from_their_means(
    published: Path, tmp_path: Path
) -> None:
    few = (image for number, image in enumerate(draw_images()) if number % 4 == 0)
    write_ms1mv2(tmp_path / "few", ((image.identity, image.encoded) for image in few)).close()
    images = tmp_path / "few" / "train.rec"
    words = ["--images", str(images), "--output", str(tmp_path / "run"), *SMALL, "--steps", "1"]
    words += ["--backbone", "mobilefacenet_small", "--pretrained", str(published), "--centres", "means"]
    assert train_recognition.main([*words, "--drops", ""]) == 0

    data = load_people(images)
    pixels = prepare(read_spread(data, len(data)))
    source = build_backbone(Backbone.MOBILEFACENET_SMALL).eval()
    fill_backbone(source, published)
    with torch.no_grad():
        wanted, found = source(pixels), load_recogniser(tmp_path / "run" / "model.safetensors").model.backbone(pixels)
    # One step's batch has moved the statistics of batch norms by a tenth.
    assert functional.cosine_similarity(wanted, found).min() > 0.9
    directions = functional.normalize(wanted)
    means = torch.stack([directions[torch.from_numpy(data.labels == label)].mean(0) for label in range(8)])
    centres = load_file(tmp_path / "run" / "head.safetensors")["centres"]
    assert functional.cosine_similarity(means, centres).min() > 0.9999


@pytest.mark.slow
def test_the_image_tower_starts_from_a_published_recogniser(
    published: Path, labelled_faces: LabelledSample, tmp_path: Path
) -> None:
    labels = labelled_faces.write_labels("labels-of-a-tower", rows=64)
    words = ["--labels", str(labels), "--images", str(labelled_faces.record_file), "--output", str(tmp_path), *SMALL]
    words += ["--tower", "mobilefacenet_small", "--pretrained", str(published), "--prompts", "spread"]
    words += ["--epochs-one", "1", "--epochs-two", "0", "--no-confidence", "--checkpoint-every", "1"]
    assert train_quality.main([*words, "--limit-steps", "1"]) == 0
    assert not (tmp_path / "model.safetensors").exists()
    assert train_quality.main(words) == 0
    tower = load_model(tmp_path / "model.safetensors").model
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8))
    source = build_backbone(Backbone.MOBILEFACENET_SMALL).eval()
    fill_backbone(source, published)
    with torch.no_grad():
        wanted, found = source(prepare(pixels)), tower.visual(tower.prepare(pixels))
    assert functional.cosine_similarity(wanted, found).min() > 0.5
    assert f"mobilefacenet_small, started from {published}" in (tmp_path / "README.md").read_text()
