"""Published recognisers of several authors as the weights of ArcFace's networks in PyTorch.

AdaFace and CurricularFace have those networks under other names, without some layers: in the first block the shortcut
is the input itself, the last batch norm has no weights, and CurricularFace has none between two convolutions. Here such
a layer is there and changes nothing. MagFace and MXNet add 2e-5 to variances, where ArcFace's PyTorch code adds
1e-5; the difference goes into the variances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from training.backbones.mxnet import read_mxnet
from training.backbones.networks import build_backbone, name_backbone
from training.trainer.weights import WeightsError, load_strictly, read_state_dict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from training.backbones.iresnet import IResNet
    from training.backbones.mobilefacenet import MobileFaceNet
    from training.backbones.names import Backbone

SUFFIXES = (".pt", ".pth", ".ckpt", ".params")
"""Of the files that they are published as; the last of them by MXNet."""

_EPS, _EPS_BEFORE = 1e-5, 2e-5
"""What a batch norm of ArcFace's PyTorch code adds to a variance, and one of MXNet's and MagFace's."""

_MAGFACE, _ADAFACE = ("features.module.", "features."), "model."
"""Where the network lies in a checkpoint that holds the head too: MagFace's, trained by several GPUs or by one, and
AdaFace's."""
_FIRST = ("conv1.weight", "input_layer.0.weight", "layers.0.layers.0.weight")
"""The first weight of an iresnet by ArcFace's names and by AdaFace's, and of a MobileFaceNet."""

_ENDS = {
    "input_layer.0": "conv1", "input_layer.1": "bn1", "input_layer.2": "prelu",
    "output_layer.0": "bn2", "output_layer.3": "fc", "output_layer.4": "features",
}  # fmt: skip
"""AdaFace's and CurricularFace's names before and behind the blocks, and ArcFace's."""
_BLOCK = ("bn1", "conv1", "bn2", "prelu", "conv2", "bn3")
"""The layers of a block in the order of AdaFace; CurricularFace has no `bn2`."""


def load_backbone(path: Path) -> tuple[Backbone, IResNet | MobileFaceNet] | None:
    """Read a published recogniser; nothing in the file is run.

    Args:
        path: a state dict of ArcFace's, ElasticFace's or CurricularFace's code, a checkpoint of AdaFace's or MagFace's,
            which may hold the training's state beside it, or a .params file of ArcFace's MXNet code.

    Returns:
        Which backbone, and the backbone in evaluation mode, on the CPU; None where the file holds something else.

    Raises:
        WeightsError: if it cannot be read, or if it is of a network that is not known; names the file.
    """
    if path.suffix not in SUFFIXES:
        return None
    if path.suffix == ".params":
        state = _move_epsilon(read_mxnet(path))
    elif not (state := _take_network(read_state_dict(path))):
        return None
    if "input_layer.0.weight" in state:
        state = _rename(state)
    backbone = name_backbone(state, path)
    network = build_backbone(backbone)
    load_strictly(network, state, path)
    if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
        raise WeightsError(f"{path}: holds weights that are no numbers: it is damaged, fetch it again")
    return backbone, network.eval()


def _take_network(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of a checkpoint; empty where there is none."""
    if any(first in state for first in _FIRST):
        return dict(state)
    for prefix in (*_MAGFACE, _ADAFACE):
        if any(prefix + first in state for first in _FIRST):
            part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            return part if prefix == _ADAFACE else _move_epsilon(part)
    return {}


def _move_epsilon(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Variances to which 1e-5 is added, of those to which 2e-5 was."""
    more = _EPS_BEFORE - _EPS
    return {name: value.float() + more if name.endswith("running_var") else value for name, value in state.items()}


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """AdaFace's and CurricularFace's weights by ArcFace's names, with what they lack; unknown names stay."""
    layers = dict(_ENDS)
    parts = _BLOCK if "body.0.res_layer.5.weight" in state else tuple(part for part in _BLOCK if part != "bn2")
    found: dict[str, Tensor] = {}
    stage, place, block = 0, 0, 0
    while (width := state.get(f"body.{block}.res_layer.1.weight")) is not None:
        begins = block == 0 or f"body.{block}.shortcut_layer.0.weight" in state
        stage, place = (stage + 1, 0) if begins else (stage, place + 1)
        own = f"layer{stage}.{place}"
        layers |= {f"body.{block}.res_layer.{number}": f"{own}.{part}" for number, part in enumerate(parts)}
        layers |= {f"body.{block}.shortcut_layer.{number}": f"{own}.downsample.{number}" for number in (0, 1)}
        if "bn2" not in parts:
            found |= _pass_on(f"{own}.bn2", len(width))
        block += 1
    width = state["input_layer.0.weight"]
    found["layer1.0.downsample.0.weight"] = torch.eye(len(width))[:, :, None, None]
    found |= _pass_on("layer1.0.downsample.1", len(width))
    for name, value in state.items():
        layer, _, weight = name.rpartition(".")
        found[f"{layers.get(layer, layer)}.{weight}"] = value
    if (mean := found.get("features.running_mean")) is not None:
        found |= {"features.weight": torch.ones(len(mean)), "features.bias": torch.zeros(len(mean))}
    return found


def _pass_on(name: str, width: int) -> dict[str, Tensor]:
    """The weights of a batch norm that changes nothing."""
    return {
        f"{name}.weight": torch.ones(width),
        f"{name}.bias": torch.zeros(width),
        f"{name}.running_mean": torch.zeros(width),
        f"{name}.running_var": torch.full((width,), 1 - _EPS),
        f"{name}.num_batches_tracked": torch.tensor(0),
    }
