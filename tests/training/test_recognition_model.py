"""The backbones are those of the published checkpoints: names and shapes of weights, and what a step computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from training.backbones.names import Backbone
from training.backbones.networks import DIMENSION, build_backbone, name_backbone
from training.recognition.model import Recogniser, prepare
from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

PARAMETERS = {
    Backbone.IRESNET18: 24_025_600,
    Backbone.IRESNET34: 34_139_328,
    Backbone.IRESNET50: 43_590_848,
    Backbone.IRESNET100: 65_156_160,
    Backbone.MOBILEFACENET: 2_059_520,
    Backbone.MOBILEFACENET_SMALL: 1_200_512,
}
"""Of each backbone."""

SHAPES = {
    Backbone.IRESNET50: {
        "conv1.weight": (64, 3, 3, 3),
        "prelu.weight": (64,),
        "layer1.0.downsample.0.weight": (64, 64, 1, 1),
        "layer1.0.downsample.1.running_mean": (64,),
        "layer3.13.conv2.weight": (256, 256, 3, 3),
        "layer4.2.prelu.weight": (512,),
        "bn2.num_batches_tracked": (),
        "fc.weight": (512, 25088),
        "features.weight": (512,),
    },
    Backbone.MOBILEFACENET: {
        "layers.0.layers.0.weight": (128, 3, 3, 3),
        "layers.1.layers.0.weight": (128, 2, 3, 3),
        "layers.2.layers.1.layers.0.weight": (128, 1, 3, 3),
        "layers.3.layers.3.layers.2.layers.1.running_var": (128,),
        "layers.6.layers.0.layers.0.weight": (512, 256, 1, 1),
        "layers.7.layers.1.layers.0.layers.2.weight": (256,),
        "conv_sep.layers.0.weight": (512, 256, 1, 1),
        "features.layers.0.layers.0.weight": (512, 1, 7, 7),
        "features.layers.2.weight": (512, 512),
        "features.layers.3.bias": (512,),
    },
}
"""Some weights of ArcFace's published checkpoints."""


@pytest.mark.parametrize("backbone", Backbone)
def test_weights_are_those_of_the_published_checkpoints(backbone: Backbone) -> None:
    with torch.device("meta"):
        built = build_backbone(backbone)
    state = built.state_dict()
    assert {name: tuple(state[name].shape) for name in SHAPES.get(backbone, {})} == SHAPES.get(backbone, {})
    assert sum(value.numel() for value in built.parameters()) == PARAMETERS[backbone]


@pytest.mark.parametrize("layer", [False, True])
def test_a_published_checkpoint_is_read(tmp_path: Path, layer: bool) -> None:
    """backbone.pt of ArcFace's code, and a backbone with `qs` of CR-FIQA's, saved from several GPUs."""
    torch.manual_seed(1)
    source, model = Recogniser(Backbone.MOBILEFACENET), Recogniser(Backbone.MOBILEFACENET)
    state = {f"module.{n}": v for n, v in source.published().items() if layer or not n.startswith("qs.")}
    torch.save(state, tmp_path / "backbone.pt")
    before = model.qs.weight.clone()
    assert model.load_published(tmp_path / "backbone.pt") is layer
    faces = torch.randint(0, 256, (2, 112, 112, 3), dtype=torch.uint8)
    found, expected = model.eval()(faces), source.eval()(faces)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1]) is layer
    assert torch.equal(model.qs.weight, source.qs.weight if layer else before)
    names = {name.removeprefix("module."): value for name, value in state.items()}
    assert name_backbone(names, tmp_path) is Backbone.MOBILEFACENET
    with pytest.raises(WeightsError, match="does not fit the model"):
        Recogniser(Backbone.IRESNET18).load_published(tmp_path / "backbone.pt")
    with pytest.raises(WeightsError, match=r"backbone\.pt: its weights are those of no backbone"):
        name_backbone({"conv1.weight": torch.zeros(1)}, tmp_path / "backbone.pt")


def test_a_face_is_mirrored_and_brought_to_one() -> None:
    faces = torch.zeros(2, 112, 112, 3, dtype=torch.uint8)
    faces[:, 0, 0] = torch.tensor([255, 128, 0], dtype=torch.uint8)
    found = prepare(faces, torch.tensor([False, True]))
    assert found.shape == (2, 3, 112, 112)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([1.0, 0.5 / 127.5, -1.0]))
    assert torch.equal(found[1, :, 0, 111], found[0, :, 0, 0])
    assert bool((found[1, :, 0, 0] == -1).all())
    with pytest.raises(ValueError, match="align the faces"):
        prepare(torch.zeros(2, 3, 112, 112))


def test_an_embedding_has_the_dimension_of_the_field() -> None:
    embeddings, qualities = Recogniser(Backbone.IRESNET18, dropout=0.4).eval()(
        torch.zeros(2, 112, 112, 3, dtype=torch.uint8)
    )
    assert embeddings.shape == (2, DIMENSION)
    assert qualities.shape == (2,)
