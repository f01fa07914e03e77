"""Recognisers as their authors publish them become ONNX files that give what their own networks give."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from data_manifests.storage.atomic import sha256_of
from training.backbones.iresnet import IResNet
from training.backbones.names import Backbone
from training.backbones.networks import build_backbone, fill_backbone
from training.backbones.published import load_backbone
from training.export import main
from training.trainer.weights import WeightsError, read_state_dict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    State = dict[str, Tensor]

SMALL, LARGE = (2, 2, 2, 2), (3, 13, 30, 3)
SIDE = 112


class IrBlock(nn.Module):
    """A block by AdaFace's names (`BasicBlockIR`), and without its inner batch norm by CurricularFace's."""

    def __init__(self, before: int, after: int, stride: int, inner_norm: bool) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if before != after:
            narrow = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(narrow, nn.BatchNorm2d(after))
        first = [nn.BatchNorm2d(before), nn.Conv2d(before, after, 3, 1, 1, bias=False)]
        between = [nn.BatchNorm2d(after)] if inner_norm else []
        last = [nn.PReLU(after), nn.Conv2d(after, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)]
        self.res_layer = nn.Sequential(*first, *between, *last)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return found


class Ir(nn.Module):
    """The network of AdaFace's net.py and of CurricularFace's model_irse.py, up to the embedding that they divide."""

    def __init__(self, blocks: Sequence[int], *, inner_norm: bool) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        body, before = [], 64
        for count, width in zip(blocks, (64, 128, 256, 512), strict=True):
            for place in range(count):
                body.append(IrBlock(before, width, 1 if place else 2, inner_norm))
                before = width
        self.body = nn.Sequential(*body)
        embed = nn.Linear(512 * 7 * 7, 512)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(0.4), nn.Flatten(), embed, nn.BatchNorm1d(512, affine=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.output_layer(self.body(self.input_layer(x)))
        return found


def live(network: nn.Module, seed: int) -> nn.Module:
    """Batch norms as after a training: none of their numbers is 0 or 1, and some variances are as small as epsilon."""
    torch.manual_seed(seed)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            nn.init.normal_(part.running_mean, 0, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
            part.running_var[:3] = torch.tensor([1e-5, 1e-4, 1e-3])
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.2)
                part.weight.data[:3] *= part.running_var[:3].sqrt()
        elif isinstance(part, nn.PReLU):
            nn.init.uniform_(part.weight, 0.05, 0.4)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    return network.eval()


def magface(network: nn.Module) -> nn.Module:
    """ArcFace's network with the epsilon of MagFace's models/iresnet.py."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.eps = 2e-5
    return network


def head(state: State, prefix: str, **others: Tensor) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()} | others


FC = torch.ones(512, 7)
PUBLISHED: dict[str, tuple[Any, Any, str]] = {
    "ArcFace": (lambda: build_backbone(Backbone.IRESNET18), lambda state: state, "backbone.pth"),
    "ElasticFace by several GPUs": (
        lambda: build_backbone(Backbone.MOBILEFACENET_SMALL),
        lambda state: head(state, "module."),
        "295672backbone.pth",
    ),
    "MagFace": (
        lambda: magface(build_backbone(Backbone.IRESNET18)),
        lambda state: {
            "epoch": 25, "arch": "iresnet18", "optimizer": {"state": {0: {"momentum_buffer": FC}}, "param_groups": []},
            "state_dict": head(state, "features.module.", **{"parallel_fc.weight": FC}),
        },
        "magface_epoch_00025.pth",
    ),
    "MagFace by one process": (
        lambda: magface(build_backbone(Backbone.IRESNET18)),
        lambda state: {"state_dict": head(state, "module.features.", **{"module.fc.weight": FC})},
        "00025.pth",
    ),
    "AdaFace": (
        lambda: Ir(SMALL, inner_norm=True),
        lambda state: {
            "epoch": 26, "global_step": 1, "hyper_parameters": {"arch": "ir_18"},
            "state_dict": head(state, "model.", **{"head.kernel": FC, "head.t": torch.zeros(1)}),
        },
        "adaface_ir18_webface4m.ckpt",
    ),
    "CurricularFace": (lambda: Ir(SMALL, inner_norm=False), lambda state: state, "CurricularFace_Backbone.pth"),
}  # fmt: skip
"""By whom, the network, what its state dict is within, and the file's name."""


PIXELS = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.mark.parametrize("whose", PUBLISHED)
@torch.no_grad()
def test_a_published_checkpoint_is_read(whose: str, tmp_path: Path) -> None:
    build, wrap, name = PUBLISHED[whose]
    network = live(build(), 3)
    torch.save(wrap(network.state_dict()), tmp_path / name)
    found = load_backbone(tmp_path / name)
    assert found is not None
    assert found[0] is (Backbone.MOBILEFACENET_SMALL if whose.startswith("Elastic") else Backbone.IRESNET18)
    wanted = network(PIXELS)
    assert (found[1](PIXELS) - wanted).abs().max() < 1e-4 * wanted.abs().max()


@torch.no_grad()
def test_it_becomes_onnx_that_gives_what_its_authors_network_gives(tmp_path: Path) -> None:
    whose = "AdaFace"
    build, wrap, name = PUBLISHED[whose]
    network = live(build(), 3)
    torch.save(wrap(network.state_dict()), tmp_path / name)
    made = tmp_path / "networks" / "mine.onnx"
    assert main(["--checkpoint", str(tmp_path / name), "--output", str(made)]) == 0

    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    ((given,), (gives,)) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(float)", [3, SIDE, SIDE])
    assert (gives.name, gives.shape[1:]) == ("embedding", [512])
    for count in (1, 3):
        wanted = network(PIXELS[:count]).numpy()
        (found,) = session.run(None, {"images": PIXELS[:count].numpy()})
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    told = {entry.key: entry.value for entry in onnx.load(made, load_external_data=False).metadata_props}
    assert told == {"model_sha256": sha256_of(tmp_path / name), "tower": "iresnet18"}


def test_the_epsilon_of_magface_makes_a_difference() -> None:
    """So the test above would see it."""
    network = live(build_backbone(Backbone.IRESNET18), 3)
    pixels = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        plain, wanted = network(pixels), magface(network)(pixels)
    assert (plain - wanted).abs().max() > 0.01 * wanted.abs().max()


NAMES = {
    "input_layer.0.weight": (64, 3, 3, 3),
    "input_layer.2.weight": (64,),
    "body.0.res_layer.0.running_var": (64,),
    "body.3.shortcut_layer.0.weight": (128, 64, 1, 1),
    "body.3.shortcut_layer.1.bias": (128,),
    "body.48.res_layer.1.weight": (512, 512, 3, 3),
    "output_layer.0.weight": (512,),
    "output_layer.3.weight": (512, 25088),
    "output_layer.3.bias": (512,),
    "output_layer.4.running_mean": (512,),
}
"""Of IR-101 in both repositories."""


@pytest.mark.parametrize("inner_norm", [True, False])
def test_ir_101_is_an_iresnet100(inner_norm: bool, tmp_path: Path) -> None:
    network = Ir(LARGE, inner_norm=inner_norm)
    state = network.state_dict()
    assert {name: tuple(state[name].shape) for name in NAMES} == NAMES
    assert ("body.0.res_layer.5.weight" in state) is inner_norm
    assert not {"body.0.shortcut_layer.0.weight", "output_layer.4.weight"} & state.keys()
    # 49 blocks; AdaFace's published IR-101 counts 65.15 million weights, as the iresnet100 but for one shortcut.
    assert len(network.body) == 49
    torch.save(state, tmp_path / "backbone.pth")
    found = load_backbone(tmp_path / "backbone.pth")
    assert found is not None
    backbone, loaded = found
    assert backbone is Backbone.IRESNET100
    assert isinstance(loaded, IResNet)
    assert torch.equal(
        loaded.get_parameter("layer4.2.conv2.weight"), state[f"body.48.res_layer.{4 if inner_norm else 3}.weight"]
    )


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> tuple[type, type]:
    """Classes by the names of PyTorch Lightning's."""
    module = ModuleType("pytorch_lightning.callbacks")
    made = {}
    for name, base in (("ModelCheckpoint", object), ("AttributeDict", dict)):
        made[name] = type(name, (base,), {"__module__": module.__name__})
        setattr(module, name, made[name])
    monkeypatch.setitem(sys.modules, "pytorch_lightning", ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return made["ModelCheckpoint"], made["AttributeDict"]


def test_what_lightning_notes_beside_the_weights_is_not_loaded(
    lightning: tuple[type, type], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback, attributes = lightning
    noted = {"callbacks": {callback: {"best_model_score": torch.ones(1)}}, "hyper_parameters": attributes(arch="ir_18")}
    torch.save({"state_dict": {"model.a": torch.ones(2)}, **noted}, tmp_path / "lightning.ckpt")
    torch.save({"state_dict": {"model.a": torch.ones(2)}, "other": Foreign}, tmp_path / "foreign.ckpt")
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.delitem(sys.modules, name)
    before = torch.serialization.get_safe_globals()
    assert torch.equal(read_state_dict(tmp_path / "lightning.ckpt")["model.a"], torch.ones(2))
    assert torch.serialization.get_safe_globals() == before
    with pytest.raises(WeightsError, match=r"foreign\.ckpt is not a file of weights"):
        read_state_dict(tmp_path / "foreign.ckpt")


class Foreign:
    """A class that is not Lightning's."""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state | {"body.0.res_layer.6.fc1.weight": torch.ones(4, 64, 1, 1)}, "those of no backbone"),
        (lambda state: state | {"output_layer.3.weight": torch.ones(512, 100352)}, "those of no backbone"),
        (lambda state: {n: v for n, v in state.items() if n != "body.7.res_layer.4.weight"}, "those of no backbone"),
        (lambda state: state | {"input_layer.2.weight": torch.full((64,), torch.nan)}, "no numbers: it is damaged"),
    ],
)
def test_another_network_is_refused(change: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With squeeze and excitation, of larger pictures, cut, damaged."""
    path, made = tmp_path / "other.pth", tmp_path / "made.onnx"
    torch.save(change(Ir(SMALL, inner_norm=True).state_dict()), path)
    assert main(["--checkpoint", str(path), "--output", str(made)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}")
    assert said in error
    assert not made.exists()


def test_a_training_takes_such_a_checkpoint_only_by_way_of_onnx(tmp_path: Path) -> None:
    """AdaFace wants BGR; only an entry of models.toml tells that."""
    torch.save({"state_dict": head(Ir(SMALL, inner_norm=True).state_dict(), "model.")}, tmp_path / "adaface.ckpt")
    with pytest.raises(WeightsError, match=r"adaface\.ckpt does not fit the model"):
        fill_backbone(build_backbone(Backbone.IRESNET18), tmp_path / "adaface.ckpt")
