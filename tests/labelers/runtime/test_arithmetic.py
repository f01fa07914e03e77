"""The arithmetic of a network against PyTorch's counter and by hand, and the rate of a core against a bare product."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

import data_manifests
from benchmarks.iresnet import iresnet50
from labelers.pose.face_mesh import read_network
from labelers.runtime.arithmetic import core_rate, count_arithmetic, time_network
from labelers.runtime.onnx import Colour, Device, InputSpec, open_model

if TYPE_CHECKING:
    from collections.abc import Callable


def picture(side: int) -> InputSpec:
    return InputSpec(width=side, height=side, colour=Colour.RGB, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))


def make_model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], side: int = 8) -> onnx.ModelProto:
    """A network from `x` [batch, 3, side, side] to `y`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(
    ("network", "side", "millions"),
    [(iresnet50, 112, 6309), (torchvision.models.mobilenet_v3_small, 224, 57), (torchvision.models.resnet18, 64, 149)],
)
def test_counts_as_pytorch_does(network: type[torch.nn.Module], side: int, millions: int, tmp_path: Path) -> None:
    model = network().eval()
    file = tmp_path / "model.onnx"
    torch.onnx.export(model, (torch.zeros(1, 3, side, side),), file, dynamo=True, external_data=False, verbose=False)
    with torch.device("meta"):
        shadow = network().eval()
    with FlopCounterMode(display=False) as counter:
        shadow(torch.empty(1, 3, side, side, device="meta"))
    counted = count_arithmetic(onnx.load(file), input=picture(side)).multiply_adds
    assert 2 * counted == counter.get_total_flops()
    assert round(counted / 1e6) == millions


def test_counts_every_kind_of_node_by_hand() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "wide"], ["a"], pads=[1, 1, 1, 1]),  # [6, 8, 8]: 384 values of 27
        helper.make_node("PRelu", ["a", "slope"], ["b"]),
        helper.make_node("Conv", ["b", "deep"], ["c"], group=6),  # depthwise, [6, 6, 6]: 216 values of 9
        helper.make_node("Conv", ["c", "halves"], ["d"], group=2),  # [4, 6, 6]: 144 values of 3
        helper.make_node("ConvTranspose", ["d", "back"], ["e"], strides=[2, 2]),  # 144 values, each to 5 of 2 x 2
        helper.make_node("Flatten", ["e"], ["f"]),  # [720]
        helper.make_node("Gemm", ["f", "full"], ["g"], transB=1),  # 10 values of 720
        helper.make_node("MatMul", ["g", "last"], ["y"]),  # 3 values of 10
    ]
    weights = {
        "wide": np.ones((6, 3, 3, 3)),
        "slope": np.ones((6, 1, 1)),
        "deep": np.ones((6, 1, 3, 3)),
        "halves": np.ones((4, 3, 1, 1)),
        "back": np.ones((4, 5, 2, 2)),
        "full": np.ones((10, 720)),
        "last": np.ones((10, 3)),
    }
    found = count_arithmetic(make_model(nodes, weights), input=picture(8))
    assert found.multiply_adds == 384 * 27 + 216 * 9 + 144 * 3 + 144 * 20 + 10 * 720 + 3 * 10
    assert (found.depthwise, found.prelu_values) == (216 * 9, 384)
    assert found.bound == found.multiply_adds + 7 * found.depthwise + 16 * found.prelu_values


def test_counts_networks_whose_shapes_are_computed_within(real_data: Path) -> None:
    """FSA-Net reshapes to shapes that it computes."""
    fsanet = onnx.load(real_data / "models" / "fsanet-1x1-iter-688590.onnx")
    assert count_arithmetic(fsanet, input=picture(64)).multiply_adds == 14_770_672
    mesh = read_network(Path(data_manifests.__file__).parent / "weights" / "face_mesh.onnx", device=Device.CPU)
    assert count_arithmetic(mesh, input=picture(112)).multiply_adds == 120_135_424


def fastest_in_turns(*measures: Callable[[], float], like: Callable[[list[float]], bool]) -> list[float]:
    """The highest of each measure, taken in turns until they are alike: a core is slower while its twin works too."""
    best = [0.0] * len(measures)
    for _ in range(20):
        best = [max(value, measure()) for value, measure in zip(best, measures, strict=True)]
        if like(best):
            break
    return best


def test_the_rate_of_a_core_is_that_of_a_bare_product() -> None:
    """By the time in which the core worked on it, so that other work beside does not tell."""
    side = 256
    weights = {"w": np.random.default_rng(0).standard_normal((side, side))}
    graph = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], weights, side=side)
    del graph.graph.input[:]
    graph.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [side, side]))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    left = np.random.default_rng(1).standard_normal((side, side), np.float32)

    def bare_rate() -> float:
        seconds = []
        for _ in range(200):
            started = time.thread_time()
            session.run(None, {"x": left})
            seconds.append(time.thread_time() - started)
        return side**3 / min(seconds)

    def alike(rates: list[float]) -> bool:
        return rates[0] == pytest.approx(rates[1], rel=0.4)

    rates = fastest_in_turns(core_rate, bare_rate, like=alike)
    assert alike(rates), rates


def test_a_picture_takes_as_long_in_a_batch_of_any_size() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
    model = make_model(nodes, {"w": np.ones((64, 3, 3, 3))}, side=64)
    one, eight = (
        open_model(model, path=Path("conv"), input=picture(64), batch=batch, device=Device.CPU) for batch in (1, 8)
    )
    seconds = time_network(one)
    assert 0 < seconds.core <= 1.1 * seconds.wall

    def alike(rates: list[float]) -> bool:
        return rates[0] == pytest.approx(rates[1], rel=0.9)

    rates = fastest_in_turns(lambda: 1 / time_network(one).core, lambda: 1 / time_network(eight).core, like=alike)
    assert alike(rates), rates
