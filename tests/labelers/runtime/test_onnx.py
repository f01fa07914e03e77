"""Opening networks: what is asked for is what runs, and a row's values do not depend on its company."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from labelers.runtime.batch_axis import free_batch
from labelers.runtime.onnx import Colour, Device, InputSpec, NetworkError, ProviderError, open_network

if TYPE_CHECKING:
    from pathlib import Path

FSANET = InputSpec(width=64, height=64, colour=Colour.BGR, mean=(127.5, 127.5, 127.5), std=(128.0, 128.0, 128.0))
SMALL = InputSpec(width=6, height=4, colour=Colour.RGB, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))


def write_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    *,
    batch: int | str = 1,
    output: list[int | str] | None = None,
    constants: dict[str, np.ndarray] | None = None,
    kind: int = TensorProto.FLOAT,
    inputs: int = 1,
) -> Path:
    """A network from `x` [batch, 3, 4, 6] to `y`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(f"x{i or ''}", kind, [batch, 3, 4, 6]) for i in range(inputs)],
        [helper.make_tensor_value_info("y", kind, output or [batch, 72])],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def flatten(path: Path, shape: tuple[int, ...] = (1, -1), batch: int = 1) -> Path:
    """A network that flattens its input by a Reshape with the batch written into the target shape."""
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    return write_model(path, [node], batch=batch, constants={"shape": np.array(shape, np.int64)})


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (7, 4, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize("colour", list(Colour))
def test_pictures_are_normalised_in_the_networks_colour_order(
    tmp_path: Path, noise: np.ndarray, colour: Colour
) -> None:
    spec = dataclasses.replace(SMALL, colour=colour)
    network = open_network(flatten(tmp_path / "f.onnx"), input=spec, batch=4, device=Device.CPU)
    (flat,) = network.run(noise)
    pixels = noise if colour is Colour.RGB else noise[..., ::-1]
    expected = (pixels.astype(np.float32) - np.float32(spec.mean)) / np.float32(spec.std)
    assert flat.dtype == np.float32
    assert flat.shape == (7, 72)
    np.testing.assert_array_equal(flat, expected.transpose(0, 3, 1, 2).reshape(7, 72))


def test_other_sizes_are_resized_bilinearly(tmp_path: Path) -> None:
    images = np.random.default_rng(2).integers(0, 256, (3, 9, 11, 3), dtype=np.uint8)
    network = open_network(flatten(tmp_path / "f.onnx"), input=SMALL, batch=2, device=Device.CPU)
    resized = np.stack([cv2.resize(image, (6, 4), interpolation=cv2.INTER_LINEAR) for image in images])
    np.testing.assert_array_equal(network.run(images)[0], network.run(resized)[0])


@pytest.mark.parametrize("shape", [(1, -1), (1, 72)])
def test_an_exported_batch_is_freed(tmp_path: Path, noise: np.ndarray, shape: tuple[int, ...]) -> None:
    path = flatten(tmp_path / "f.onnx", shape)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        onnxruntime.InferenceSession(path).run(None, {"x": np.zeros((3, 3, 4, 6), np.float32)})
    alone = open_network(path, input=SMALL, batch=1, device=Device.CPU).run(noise)[0]
    together = open_network(path, input=SMALL, batch=3, device=Device.CPU).run(noise)[0]
    np.testing.assert_array_equal(alone, together)


def test_an_exported_batch_above_one_is_freed(tmp_path: Path, noise: np.ndarray) -> None:
    network = open_network(flatten(tmp_path / "f.onnx", (4, -1), batch=4), input=SMALL, batch=2, device=Device.CPU)
    assert network.run(noise)[0].shape == (7, 72)


def test_a_reshape_of_weights_keeps_its_shape(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["bias", "shape"], ["b"]), helper.make_node("Add", ["x", "b"], ["y"])]
    constants = {"bias": np.arange(3, dtype=np.float32), "shape": np.array([1, 3, 1, 1], np.int64)}
    path = write_model(tmp_path / "bias.onnx", nodes, output=[1, 3, 4, 6], constants=constants)
    spec = dataclasses.replace(SMALL, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    black = np.zeros((5, 4, 6, 3), np.uint8)
    result = open_network(path, input=spec, batch=4, device=Device.CPU).run(black)[0]
    np.testing.assert_array_equal(result[:, :, 0, 0], np.tile([0.0, 1.0, 2.0], (5, 1)))


def test_free_batch_leaves_its_argument_alone(tmp_path: Path) -> None:
    model = onnx.load(flatten(tmp_path / "f.onnx"))
    before = model.SerializeToString()
    assert free_batch(model).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert model.SerializeToString() == before


def test_a_network_that_mixes_its_pictures_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    path = write_model(tmp_path / "mix.onnx", nodes, batch="n", output=["n", 3, 4, 6])
    with pytest.raises(NetworkError, match=r"mix\.onnx.*batch of 4.*batch = 1"):
        open_network(path, input=SMALL, batch=4, device=Device.CPU)
    assert open_network(path, input=SMALL, batch=1, device=Device.CPU).outputs == ((3, 4, 6),)


def test_a_network_that_ignores_the_batch_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=1)]
    path = write_model(tmp_path / "one.onnx", nodes, output=[1, 3, 4, 6])
    with pytest.raises(NetworkError, match=r"one\.onnx.*for a batch of 4"):
        open_network(path, input=SMALL, batch=4, device=Device.CPU)


def test_what_ran_before_leaves_no_trace(tmp_path: Path, noise: np.ndarray) -> None:
    """A network whose rows touch each other by less than the tolerance shows what stands in the unused rows."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "little"], ["leak"]),
        helper.make_node("Add", ["x", "leak"], ["y"]),
    ]
    constants = {"axis": np.array([0], np.int64), "little": np.array([1e-4], np.float32)}
    path = write_model(tmp_path / "leak.onnx", nodes, batch="n", output=["n", 3, 4, 6], constants=constants)
    network = open_network(path, input=SMALL, batch=4, device=Device.CPU)
    first = network.run(noise[:1])[0]
    network.run(noise)
    np.testing.assert_array_equal(network.run(noise[:1])[0], first)


def test_no_pictures_give_no_rows(tmp_path: Path, noise: np.ndarray) -> None:
    network = open_network(flatten(tmp_path / "f.onnx"), input=SMALL, batch=4, device=Device.CPU)
    assert network.run(noise[:0])[0].shape == (0, 72)


@pytest.mark.parametrize("bad", [np.zeros((2, 4, 6), np.uint8), np.zeros((2, 4, 6, 3), np.float32)])
def test_wrong_pictures_are_refused(tmp_path: Path, bad: np.ndarray) -> None:
    network = open_network(flatten(tmp_path / "f.onnx"), input=SMALL, batch=4, device=Device.CPU)
    with pytest.raises(ValueError, match="uint8"):
        network.run(bad)


def test_a_wrong_input_is_named(tmp_path: Path) -> None:
    path = flatten(tmp_path / "f.onnx")
    with pytest.raises(NetworkError, match=r"f\.onnx: input x is \[1, 3, 4, 6\], expected \[batch, 3, 5, 6\]"):
        open_network(path, input=dataclasses.replace(SMALL, height=5), batch=1, device=Device.CPU)
    identity = [helper.make_node("Identity", ["x"], ["y"])]
    two = write_model(tmp_path / "two.onnx", identity, output=[1, 3, 4, 6], inputs=2)
    with pytest.raises(NetworkError, match=r"2 inputs \(x, x1\)"):
        open_network(two, input=SMALL, batch=1, device=Device.CPU)
    half = write_model(tmp_path / "half.onnx", identity, output=[1, 3, 4, 6], kind=TensorProto.FLOAT16)
    with pytest.raises(NetworkError, match="FLOAT16"):
        open_network(half, input=SMALL, batch=1, device=Device.CPU)


DENORMAL = """
import sys
from pathlib import Path
import numpy as np
from labelers.runtime.denormals import flush_denormals, flushes_denormals
from labelers.runtime.onnx import Colour, Device, InputSpec, open_network

spec = InputSpec(width=6, height=4, colour=Colour.RGB, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
def largest():
    network = open_network(Path(sys.argv[1]), input=spec, batch=2, device=Device.CPU)
    return network.run(np.full((3, 4, 6, 3), 100, np.uint8))[0].max()

with flush_denormals():
    assert largest() == 0
    assert flushes_denormals()  # though the first session of a process turns it off
assert largest() == 0
assert not flushes_denormals()
"""


def test_networks_take_denormal_numbers_for_zero_in_every_session(tmp_path: Path) -> None:
    constants = {"tiny": np.array([1e-40], np.float32), "huge": np.array([1e30], np.float32)}
    nodes = [helper.make_node("Mul", ["x", "tiny"], ["t"]), helper.make_node("Mul", ["t", "huge"], ["y"])]
    path = write_model(tmp_path / "tiny.onnx", nodes, output=[1, 3, 4, 6], constants=constants)
    subprocess.run([sys.executable, "-c", DENORMAL, str(path)], check=True)


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x07" * 40])
def test_a_file_that_is_no_network_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(NetworkError, match=r"bad\.onnx"):
        open_network(tmp_path / "bad.onnx", input=SMALL, batch=1, device=Device.CPU)


def test_half_a_file_is_named(tmp_path: Path, real_data: Path) -> None:
    whole = (real_data / "models" / "fsanet-1x1-iter-688590.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NetworkError, match=r"half\.onnx"):
        open_network(tmp_path / "half.onnx", input=FSANET, batch=1, device=Device.CPU)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        open_network(tmp_path / "absent.onnx", input=SMALL, batch=1, device=Device.CPU)


@pytest.mark.parametrize("change", [{"width": 0}, {"std": (1.0, 0.0, 1.0)}, {"mean": (1.0, 2.0)}])
def test_an_impossible_input_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"pixels|three means"):
        dataclasses.replace(SMALL, **change)


def test_cuda_is_never_replaced_by_the_processor(tmp_path: Path) -> None:
    path = flatten(tmp_path / "f.onnx")
    if torch.cuda.is_available():
        network = open_network(path, input=SMALL, batch=1, device=Device.CUDA)
        assert network._session.get_providers()[0] == "CUDAExecutionProvider"
    else:
        with pytest.raises(ProviderError, match="python -m pipeline doctor"):
            open_network(path, input=SMALL, batch=1, device=Device.CUDA)


def test_without_a_cuda_build_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match="onnxruntime-gpu"):
        open_network(flatten(tmp_path / "f.onnx"), input=SMALL, batch=1, device=Device.CUDA)


def test_a_real_networks_rows_do_not_depend_on_their_number(real_data: Path) -> None:
    path = real_data / "models" / "fsanet-var-iter-688590.onnx"
    images = np.random.default_rng(3).integers(0, 256, (19, 112, 112, 3), dtype=np.uint8)
    network = open_network(path, input=FSANET, batch=8, device=Device.CPU)
    whole = network.run(images)[0]
    for count in (1, 7, 8, 9):
        np.testing.assert_array_equal(network.run(images[:count])[0], whole[:count])
    alone = open_network(path, input=FSANET, batch=1, device=Device.CPU).run(images)[0]
    np.testing.assert_allclose(alone, whole, atol=1e-3)
