"""PReLU written otherwise: the same values as ONNX Runtime's own PRelu, one by one and through real networks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from benchmarks.iresnet import write_iresnet50
from data_manifests.weights.files import WeightsMissingError, find
from data_manifests.weights.registry import load_registry
from labelers.runtime import onnx as opening
from labelers.runtime.denormals import flush_denormals
from labelers.runtime.onnx import Colour, Device, InputSpec, Precision, ProviderError, open_model, open_network
from labelers.runtime.prelu import blend_prelu, split_prelu

if TYPE_CHECKING:
    from pathlib import Path

ARCFACE = InputSpec(width=112, height=112, colour=Colour.RGB, mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
SPECIAL = [0.0, -0.0, 1e-40, -1e-40, 1.2e-38, -1.2e-38, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan, -1.0, 1.0]
FLOATS = st.floats(width=32) | st.sampled_from(SPECIAL).map(np.float32)
SLOPES = st.floats(-8, 8, width=32) | st.sampled_from([0.0, -0.0, 1.0, 1e-40, 1e30]).map(np.float32)


def make_model(
    slope: np.ndarray,
    channels: int,
    shape: tuple[int | str, ...] | None = None,
    opset: int = 17,
    *,
    convolve: bool = False,
    where: str = "initializer",
) -> onnx.ModelProto:
    """PRelu of `x`, after a convolution that keeps it, or not; an old model lists its weights as inputs too."""
    shape = shape or ("batch", channels, 2, 3)
    weights = {"slope": slope.astype(np.float32)}
    nodes = [helper.make_node("PRelu", ["kept" if convolve else "x", "slope"], ["y"])]
    if convolve:
        weights["eye"] = np.eye(channels, dtype=np.float32)[:, :, None, None]
        nodes.insert(0, helper.make_node("Conv", ["x", "eye"], ["kept"]))
    if where == "constant":
        nodes.insert(
            0, helper.make_node("Constant", [], ["slope"], value=numpy_helper.from_array(weights.pop("slope")))
        )
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    old = opset < 9
    if old:
        inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, w.shape) for name, w in weights.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3 if old else 8)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with flush_denormals():
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with flush_denormals():
        (y,) = session.run(["y"], {"x": x})
    # The switch reaches numbers that are computed, not those that PRelu hands on; inside a network there are none.
    return np.where(np.abs(y) < np.finfo(np.float32).tiny, np.float32(0), y)


def kinds(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def check_same(model: onnx.ModelProto, x: np.ndarray) -> None:
    """To the bit, with NaN and infinities in place; zeros are positive on both sides here."""
    split = split_prelu(model)
    assert "PRelu" not in kinds(split)
    onnx.checker.check_model(split)
    np.testing.assert_array_equal(run(split, x), run(model, x), strict=True)


@pytest.mark.parametrize("slope", [[-0.5, 0.0, 0.25, 3.0], [0.25]])
def test_blended_it_is_the_same_but_for_rounding(slope: list[float]) -> None:
    model = make_model(np.array(slope, np.float32).reshape(-1, 1, 1), 4)
    x = np.random.default_rng(0).standard_normal((2, 4, 2, 3)).astype(np.float32)
    assert "PRelu" not in kinds(blend_prelu(model))
    np.testing.assert_allclose(run(blend_prelu(model), x), run(model, x), rtol=1e-6)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_values_and_slopes(data: st.DataObject) -> None:
    """With channels that fill the blocks of the fastest kernels, and such that do not."""
    channels = data.draw(st.sampled_from([1, 3, 4, 16, 24, 64]))
    slope = np.array(data.draw(st.lists(SLOPES, min_size=channels, max_size=channels)), np.float32)
    values = data.draw(st.lists(FLOATS, min_size=6, max_size=24))
    x = np.resize(np.array(values, np.float32), (2, channels, 2, 3))
    check_same(make_model(slope.reshape(channels, 1, 1), channels), x)


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 13, 16, 18, 21])
@pytest.mark.parametrize("where", ["initializer", "constant"])
@pytest.mark.parametrize("shape", [(32, 1, 1), (1, 32, 1, 1), (1, 1, 1), (1,), ()])
def test_every_shape_of_slopes_in_old_and_new_models(opset: int, where: str, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(opset)
    slope = random.uniform(-2, 2, shape).astype(np.float32)
    x = (random.standard_normal((3, 32, 2, 3)) * 10.0 ** random.integers(-30, 30, (3, 32, 2, 3))).astype(np.float32)
    model = make_model(slope, 32, opset=opset, convolve=True, where=where)
    before = model.SerializeToString(deterministic=True)
    check_same(model, x)
    assert model.SerializeToString(deterministic=True) == before
    assert ("LeakyRelu" in kinds(split_prelu(model))) is (slope.size == 1)


def test_the_sign_of_a_zero_alone_differs() -> None:
    """PRelu gives -0 for -0, and for what a slope of 0 meets."""
    model = make_model(np.array([0.5, 0.0]).reshape(2, 1, 1), 2)
    x = np.full((1, 2, 2, 3), -1.0, np.float32)
    x[0, 0] = -0.0
    options = {"providers": ["CPUExecutionProvider"]}
    own, split = (
        onnxruntime.InferenceSession(m.SerializeToString(), **options).run(None, {"x": x})[0]
        for m in (model, split_prelu(model))
    )
    assert np.signbit(own).all()
    assert not np.signbit(split).any()
    assert not own.any()
    assert not split.any()


@pytest.mark.parametrize(
    "model",
    [
        make_model(np.full((4, 1, 1), 0.2), 4, shape=("batch", 4)),  # after a Gemm; it would broadcast to rank 4
        make_model(np.full(6, 0.2), 6, shape=("batch", 6)),
        make_model(np.full((4, 1, 1), 0.2), 4, shape=(4, 2, 3)),
        make_model(np.full((1, 1, 3), 0.2), 4),
        make_model(np.full((4, 2, 3), 0.2), 4),
        make_model(np.array([0.2, np.inf, 0.1]).reshape(3, 1, 1), 3),
    ],
)
def test_what_is_not_one_slope_a_channel_of_pictures_stays(model: onnx.ModelProto) -> None:
    assert kinds(split_prelu(model)) == {"PRelu"}


def test_slopes_that_are_computed_stay() -> None:
    model = make_model(np.full((4, 1, 1), 0.2), 4)
    model.graph.node[0].input[1] = "absolute"
    model.graph.node.insert(0, helper.make_node("Abs", ["slope"], ["absolute"]))
    assert split_prelu(model) is model


# --- whole networks ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def iresnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("iresnet") / "iresnet50.onnx"
    write_iresnet50(path)
    return path


def check_network(path: Path, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of all outputs, and that one of both networks has no PRelu left."""
    opened, left = opening._open_session, []

    def watch(serialized: bytes, *rest: object) -> object:
        left.append(count_prelu(serialized))
        return opened(serialized, *rest)

    monkeypatch.setattr(opening, "_open_session", watch)
    split = open_network(path, input=ARCFACE, batch=4, device=Device.CPU).run(pictures)
    monkeypatch.setattr(opening, "split_prelu", lambda model: model)
    own = open_network(path, input=ARCFACE, batch=4, device=Device.CPU).run(pictures)
    assert left[0] == 0
    assert left[1] >= 25
    assert [output.tobytes() for output in split] == [output.tobytes() for output in own]


def count_prelu(serialized: bytes) -> int:
    return Counter(node.op_type for node in onnx.ModelProto.FromString(serialized).graph.node)["PRelu"]


def test_a_recogniser_gives_the_same_bytes(real_faces: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        (path,) = find(load_registry().get("fr_feature"))
    except WeightsMissingError as error:
        pytest.skip(str(error))
    check_network(path, np.stack(real_faces[:16]), monkeypatch)


def test_an_iresnet_gives_the_same_bytes(
    iresnet: Path, real_faces: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_network(iresnet, np.stack(real_faces[:8]), monkeypatch)


@pytest.mark.parametrize(
    ("device", "precision"),
    [(Device.CUDA, Precision.FLOAT32), (Device.CUDA, Precision.FLOAT16), (Device.CPU, Precision.BFLOAT16)],
)
def test_where_prelu_is_fast_it_stays(
    device: Device, precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the session, which may need a GPU."""

    def stop(serialized: bytes, *_: object) -> None:
        raise ProviderError(f"{count_prelu(serialized)} PRelu")

    monkeypatch.setattr(opening, "_open_session", stop)
    model = make_model(np.full((3, 1, 1), 0.2), 3)
    spec = InputSpec(width=3, height=2, colour=Colour.RGB, mean=ARCFACE.mean, std=ARCFACE.std)
    with pytest.raises(ProviderError, match="1 PRelu"):
        open_model(model, path=tmp_path, input=spec, batch=1, device=device, precision=precision)
