"""The arithmetic of a network, and how fast one core does arithmetic: what bounds the network's speed."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from labelers.runtime.batch_axis import free_batch, network_inputs
from labelers.runtime.onnx import Colour, Device, InputSpec, open_model

if TYPE_CHECKING:
    from labelers.runtime.onnx import Network

_DEPTHWISE = 8
"""A multiply-add of a depthwise convolution, which reuses no value, may take as long as so many of a product."""

_PRELU = 2 * _DEPTHWISE
"""A value of a PReLU may take as long as so many: it runs as two depthwise convolutions (labelers/runtime/prelu.py)."""

_SECONDS = 0.2
"""For which a network is repeated; the fastest run counts."""

_PRODUCT_SIDE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """What one picture costs a network.

    Attributes:
        multiply_adds: of all convolutions and matrix products.
        depthwise: those of them that belong to depthwise convolutions.
        prelu_values: values that go through a PReLU.
    """

    multiply_adds: int
    depthwise: int
    prelu_values: int

    @property
    def bound(self) -> int:
        """Multiply-adds of a plain matrix product that takes as long as the network has to."""
        return self.multiply_adds + (_DEPTHWISE - 1) * self.depthwise + _PRELU * self.prelu_values


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """What something took.

    Attributes:
        wall: by the clock.
        core: in which the core worked on it; much less means that the core did other work too.
    """

    wall: float
    core: float


def count_arithmetic(model: onnx.ModelProto, *, input: InputSpec) -> Arithmetic:  # noqa: A002 - the word of labelers/runtime/onnx.py
    """Count what one picture costs a network, by the shapes that one picture has in it.

    Convolutions, Gemm and MatMul of the main graph count; what stands within branches and loops does not. The iresnet50
    of ArcFace has 6.3e9 multiply-adds.

    Args:
        model: the network.
        input: its picture.
    """
    shapes = _find_shapes(model, input)
    total = depthwise = values = 0
    for node in model.graph.node:
        count = _multiply_adds(node, shapes)
        total += count
        if node.op_type == "Conv" and shapes[node.input[1]][:2] == (shapes[node.input[0]][1], 1):
            depthwise += count
        if node.op_type == "PRelu":
            values += math.prod(shapes[node.output[0]])
    return Arithmetic(multiply_adds=total, depthwise=depthwise, prelu_values=values)


def _multiply_adds(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """Multiply-adds of one node; 0 for what is neither a convolution nor a product."""
    if node.op_type == "Conv":
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":
        return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if turned else 1]
    return 0


def _find_shapes(model: onnx.ModelProto, spec: InputSpec) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the main graph for one picture.

    The network is run once: inference from the graph alone stops where a shape is computed, as FSA-Net's are.
    """
    changed = free_batch(model)
    made = [name for node in changed.graph.node for name in node.output if name]
    del changed.graph.output[:]
    changed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(changed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (picture,) = network_inputs(changed)
    zeros = np.zeros((1, 3, spec.height, spec.width), np.float32)
    shapes = {weight.name: tuple(weight.dims) for weight in changed.graph.initializer} | {picture.name: zeros.shape}
    outputs = session.run(made, {picture.name: zeros})
    return shapes | {name: np.shape(value) for name, value in zip(made, outputs, strict=True)}


def core_rate() -> float:
    """Multiply-adds a second of float32 matrix products on one core in ONNX Runtime: what its networks can reach.

    The products are convolutions of 1 x 1, in a network that is run as all others are. Time in which the core did other
    work does not count.
    """
    model, spec = _product_network()
    network = open_model(model, path=Path("matrix product"), input=spec, batch=1, device=Device.CPU)
    return count_arithmetic(model, input=spec).multiply_adds / time_network(network).core


def time_network(network: Network) -> Seconds:
    """Seconds of one picture: the fastest of some runs of a full batch."""
    random = np.random.default_rng(0)
    shape = (network.batch, network.input.height, network.input.width, 3)
    pictures = random.integers(0, 256, shape, dtype=np.uint8)
    runs: list[tuple[float, float]] = []
    ends = time.perf_counter() + _SECONDS
    while not runs or time.perf_counter() < ends:
        wall, core = time.perf_counter(), time.thread_time()
        network.run(pictures)
        runs.append((time.perf_counter() - wall, time.thread_time() - core))
    walls, cores = zip(*runs, strict=True)
    return Seconds(wall=min(walls) / network.batch, core=min(cores) / network.batch)


def _product_network() -> tuple[onnx.ModelProto, InputSpec]:
    """Two products of 256 x 256 x 256, as convolutions."""
    side, height = _PRODUCT_SIDE, round(math.sqrt(_PRODUCT_SIDE))
    random = np.random.default_rng(0)
    inputs = (3, side, side)
    weights = [
        numpy_helper.from_array(
            (random.standard_normal((side, channels, 1, 1)) / math.sqrt(channels)).astype(np.float32), f"weight{i}"
        )
        for i, channels in enumerate(inputs)
    ]
    nodes = [helper.make_node("Conv", [f"value{i}", f"weight{i}"], [f"value{i + 1}"]) for i in range(len(inputs))]
    nodes.append(helper.make_node("GlobalAveragePool", [f"value{len(inputs)}"], ["mean"]))
    picture = helper.make_tensor_value_info("value0", TensorProto.FLOAT, ["batch", 3, height, height])
    mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch", side, 1, 1])
    graph = helper.make_graph(nodes, "product", [picture], [mean], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    levels = (127.5, 127.5, 127.5)
    return model, InputSpec(width=height, height=height, colour=Colour.RGB, mean=levels, std=levels)
