"""Published recognisers in ONNX as weights to start from: batch norms that were folded into convolutions, unfolded.

An export in evaluation mode multiplies a batch norm into the convolution before it and leaves it out. Here a backbone's
layers take their weights from the file's nodes in the order of computation. A batch norm that the file lacks does
nothing at first (`unfold`), and then gets the mean and the deviation that some faces have there, with weights that undo
both (`settle_norms`): what the network gives stays the same, and it can be trained as any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from labelers.faces import SIDE
from labelers.runtime.onnx import Colour, Device, InputSpec, NetworkError, ProviderError, open_model, read_model
from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

LEVEL = 127.5
"""What a backbone sees is (x - LEVEL) / LEVEL, RGB (CR-FIQA section IV)."""

PUBLISHED_INPUT = InputSpec(width=SIDE, height=SIDE, colour=Colour.RGB, mean=(LEVEL,) * 3, std=(LEVEL,) * 3)
"""What InsightFace's recognisers in ONNX want to see."""

LEAST_COSINE = 0.999
"""Between an embedding of the file and of the backbone. Where the file's input has another zero than the backbone's,
they differ a little: convolutions see zeros beyond the picture's edge."""

_CHECKED = 4
_Norm = nn.BatchNorm1d | nn.BatchNorm2d
_KINDS = {
    "Conv": (nn.Conv2d, nn.Linear),
    "Gemm": (nn.Linear,),
    "MatMul": (nn.Linear,),
    "BatchNormalization": (nn.BatchNorm1d, nn.BatchNorm2d),
    "PRelu": (nn.PReLU,),
}
"""Nodes with weights, and the layers that they may stand for."""
_PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Those into which an export folds the batch norm behind them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """A node with weights.

    Attributes:
        kind: its operation.
        source: the tensor that it reads.
        target: the tensor that it gives.
        weights: its constants in order; of a linear layer [out, in].
    """

    kind: str
    source: str
    target: str
    weights: tuple[Tensor, ...]

    def __str__(self) -> str:
        return f"{self.kind} {list(self.weights[0].shape)} (gives {self.target!r})"


@torch.no_grad()
def unfold(backbone: nn.Module, path: Path, spec: InputSpec = PUBLISHED_INPUT) -> tuple[str, ...]:
    """Fill a backbone from a recogniser in ONNX, and check that both give the same.

    Args:
        backbone: float32 [N, 3, 112, 112] to embeddings [N, D], on the CPU.
        path: the file; a convolution in it may stand for the backbone's linear layer.
        spec: what the file's network wants to see; the first convolution takes up what differs from the backbone's.

    Returns:
        Names of the batch norms that the file lacks, for `settle_norms`.

    Raises:
        WeightsError: if the file is of another network, or the two do not give the same; names the layer.
    """
    try:
        model = read_model(path)
    except (NetworkError, FileNotFoundError) as error:
        raise WeightsError(str(error)) from error
    nodes = _read_nodes(model, path)
    nodes[0] = _see_levels(nodes[0], spec)
    folded: list[str] = []
    last: _Node | None = None
    bias: Tensor | None = None  # of the convolution just taken, which has none of its own
    for name, layer in _list_layers(backbone):
        follows = last is not None and last.kind in _PRODUCTS
        if isinstance(layer, _Norm) and follows and not _is_norm_of(nodes, last):
            layer.weight.fill_(1)
            layer.bias.copy_(torch.zeros_like(layer.bias) if bias is None else bias)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.zero_()
            layer.running_var.fill_(1 - layer.eps)
            folded.append(name)
            last, bias = None, None
            continue
        last = nodes.pop(0) if nodes else None
        bias = _take(layer, last, bias, f"{path}: the layer {name} of the backbone")
    if nodes:
        raise WeightsError(f"{path}: {nodes[0]} has no place in the backbone: is the file of another one?")
    _compare(backbone, model, path, spec)
    return tuple(folded)


@torch.no_grad()
def settle_norms(backbone: nn.Module, folded: tuple[str, ...], pixels: Tensor) -> None:
    """Give batch norms that were unfolded the statistics that they have over some faces; outputs stay as they are.

    Args:
        backbone: filled by `unfold`.
        folded: what that returned.
        pixels: what the backbone sees of the faces, float32 [N, 3, 112, 112].
    """
    if not folded:
        return

    def settle(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        maps = inputs[0].double()
        axes = [axis for axis in range(maps.ndim) if axis != 1]
        variance, mean = torch.var_mean(maps, axes, correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)

    hooks = [backbone.get_submodule(name).register_forward_pre_hook(settle) for name in folded]
    try:
        _evaluate(backbone, pixels)
    finally:
        for hook in hooks:
            hook.remove()


def _evaluate(backbone: nn.Module, pixels: Tensor) -> Tensor:
    """What a backbone gives in evaluation mode; its mode stays."""
    training = backbone.training
    try:
        given: Tensor = backbone.eval()(pixels)
    finally:
        backbone.train(training)
    return given


def _read_nodes(model: onnx.ModelProto, path: Path) -> list[_Node]:
    """The nodes with weights, in the order of computation."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in constants:  # of weights that are alike an exporter keeps one
            constants[node.output[0]] = constants[node.input[0]]
    nodes = []
    for node in model.graph.node:
        if node.op_type not in _KINDS:
            continue
        weights = [_to_tensor(constants[name]) for name in node.input[1:] if name in constants]
        if not weights:
            raise WeightsError(f"{path}: {node.op_type} that gives {node.output[0]!r} computes its weights")
        if node.op_type in ("Gemm", "MatMul") and not any(a.name == "transB" and a.i for a in node.attribute):
            weights[0] = weights[0].T
        nodes.append(_Node(kind=node.op_type, source=node.input[0], target=node.output[0], weights=tuple(weights)))
    if not nodes or nodes[0].kind != "Conv":
        raise WeightsError(f"{path}: does not begin with a convolution of constant weights, as a recogniser does")
    return nodes


def _to_tensor(constant: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(constant).astype(np.float32))


def _see_levels(first: _Node, spec: InputSpec) -> _Node:
    """The first convolution for pixels as a backbone sees them, instead of those that the file's network wants."""
    weight = first.weights[0]
    mean, std = (torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1) for values in (spec.mean, spec.std))
    shift = (weight * ((LEVEL - mean) / std)).sum((1, 2, 3))
    scaled = weight * (LEVEL / std)
    if spec.colour is Colour.BGR:
        scaled = scaled.flip(1)
    bias = first.weights[1] if len(first.weights) > 1 else 0.0
    return replace(first, weights=(scaled, bias + shift))


def _list_layers(backbone: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers with weights, in the order of computation."""
    found: list[tuple[str, nn.Module]] = []
    kinds = tuple(kind for kinds in _KINDS.values() for kind in kinds)
    layers = [(name, part) for name, part in backbone.named_modules() if isinstance(part, kinds)]
    hooks = [
        layer.register_forward_pre_hook(lambda _, __, item=(name, layer): found.append(item)) for name, layer in layers
    ]
    _evaluate(backbone, torch.zeros(1, 3, SIDE, SIDE))
    for hook in hooks:
        hook.remove()
    return found


def _is_norm_of(nodes: list[_Node], last: _Node | None) -> bool:
    """Whether the next node is the batch norm of the convolution before it."""
    return bool(nodes) and last is not None and nodes[0].kind == "BatchNormalization" and nodes[0].source == last.target


def _take(layer: nn.Module, node: _Node | None, bias: Tensor | None, where: str) -> Tensor | None:
    """Fill a layer from a node; returns a bias for which it has no place."""
    if node is None or not isinstance(layer, _KINDS[node.kind]):
        found = "no more layers with weights" if node is None else str(node)
        raise WeightsError(
            f"{where} is a {type(layer).__name__}, where the file has {found}: is it of another backbone?"
        )
    names = ("weight", "bias", "running_mean", "running_var") if isinstance(layer, _Norm) else ("weight", "bias")
    for name, value in zip(names, node.weights, strict=False):
        own = getattr(layer, name, None)
        if own is None:
            return value
        if own.numel() != value.numel():
            raise WeightsError(
                f"{where} has a {name} of {list(own.shape)}, where the file has {node}: is it of another?"
            )
        own.copy_(value.reshape(own.shape))
    if isinstance(layer, _Norm) and layer.running_mean is not None and bias is not None:
        layer.running_mean.sub_(bias)
    return None


def _compare(backbone: nn.Module, model: onnx.ModelProto, path: Path, spec: InputSpec) -> None:
    """Refuse a backbone that does not give what the file gives, of pictures of noise."""
    noise = np.random.default_rng(0)
    coarse = noise.integers(0, 256, (_CHECKED, SIDE // 8, SIDE // 8, 3), np.uint8)
    pictures = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
    try:
        network = open_model(model, path=path, input=spec, batch=_CHECKED, device=Device.CPU)
    except (NetworkError, ProviderError) as error:
        raise WeightsError(str(error)) from error
    wanted = torch.from_numpy(network.run(pictures)[0].reshape(_CHECKED, -1))
    given = _evaluate(backbone, (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - LEVEL) / LEVEL)
    if wanted.shape != given.shape:
        raise WeightsError(f"{path}: gives embeddings of {wanted.shape[1]} values, and the backbone {given.shape[1]}")
    cosine = functional.cosine_similarity(wanted, given).min().item()
    if not cosine >= LEAST_COSINE:
        raise WeightsError(
            f"{path}: its layers fit the backbone, but the two do not give the same (cosine {cosine:.4f}): it wants"
            " other pixels or is wired otherwise; name it in models.toml with its [input], and start from that name"
        )
