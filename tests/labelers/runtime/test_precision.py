"""Other precisions: what is asked for is what runs, near float32, or an error that names the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from data_manifests.sample import draw_images
from data_manifests.weights.files import WeightsMissingError, find
from data_manifests.weights.registry import load_registry
from labelers.faces import FaceBatch, decode
from labelers.opening import open_labeler
from labelers.runtime import precision as module
from labelers.runtime.batch_axis import free_batch
from labelers.runtime.onnx import Colour, Device, InputSpec, NetworkError, ProviderError, _cuda_provider, open_network
from labelers.runtime.precision import Precision, check_precision, check_processor, to_float16
from tests.two_outputs import write_two_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from labelers.labeler import Measures

SMALL = InputSpec(width=6, height=4, colour=Colour.RGB, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
FLAGS = "flags\t\t: fpu avx512f avx512_vnni {}\n"


@pytest.fixture(scope="module")
def faces() -> FaceBatch:
    """The embedded sample's first hundred faces."""
    images = np.stack([decode(image.encoded) for image, _ in zip(draw_images(), range(100), strict=False)])
    keys = np.arange(1, len(images) + 1, dtype=np.int32)
    return FaceBatch(keys=keys, identities=keys, images=images)


@pytest.fixture
def bfloat16() -> None:
    """Skips where the processor cannot do it."""
    try:
        check_processor(Precision.BFLOAT16)
    except ProviderError as error:
        pytest.skip(str(error))


def measure(name: str, faces: FaceBatch, precision: Precision) -> Measures:
    entry = load_registry().get(name)
    try:
        find(entry)
    except WeightsMissingError as error:
        pytest.skip(str(error))
    return open_labeler(entry, "cpu", precision)(faces)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def write_network(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray] | None = None) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", None, None, None])],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("of.nobody", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("precision", "device", "remedy"),
    [
        ("bfloat16", "cuda", "precision = float32 or tf32 or float16, or [execution] device = cpu"),
        ("tf32", "cpu", "precision = float32 or bfloat16, or [execution] device = cuda"),
        ("float16", "cpu", "precision = float32 or bfloat16, or [execution] device = cuda"),
    ],
)
def test_a_precision_for_another_device_is_refused(precision: str, device: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{precision} is for device") as error:
        check_precision(Precision(precision), device)
    assert str(error.value).endswith(f"set [models] {remedy}")
    path = write_network(tmp_path / "same.onnx", [helper.make_node("Relu", ["x"], ["y"])])
    with pytest.raises(ValueError, match=rf"{precision} is for device"):
        open_network(path, input=SMALL, batch=2, device=Device(device), precision=Precision(precision))


@pytest.mark.parametrize(
    ("precision", "device"),
    [("float32", "cpu"), ("float32", "cuda"), ("bfloat16", "cpu"), ("tf32", "cuda"), ("float16", "cuda")],
)
def test_a_precision_fits_its_device(precision: str, device: str) -> None:
    check_precision(Precision(precision), device)


@pytest.mark.parametrize(("flags", "can"), [("", False), ("avx512_bf16", True), ("amx_bf16 amx_int8", True)])
def test_the_processor_is_asked(flags: str, can: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("model name\t: some\n" + FLAGS.format(flags))
    monkeypatch.setattr(module, "PROCESSOR", tmp_path / "cpuinfo")
    check_processor(Precision.FLOAT32)
    if can:
        check_processor(Precision.BFLOAT16)
        return
    path = write_network(tmp_path / "same.onnx", [helper.make_node("Relu", ["x"], ["y"])])
    with pytest.raises(ProviderError, match=r"AVX512_BF16 or AMX.*set \[models\] precision = float32"):
        open_network(path, input=SMALL, batch=2, device=Device.CPU, precision=Precision.BFLOAT16)


def test_a_system_that_does_not_tell_is_no_such_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROCESSOR", tmp_path / "absent")
    with pytest.raises(ProviderError, match="names neither amx_bf16 nor avx512_bf16"):
        check_processor(Precision.BFLOAT16)


def test_embeddings_in_bfloat16_lie_near(faces: FaceBatch, bfloat16: None) -> None:
    whole, half = (measure("fr_feature", faces, p).columns for p in (Precision.FLOAT32, Precision.BFLOAT16))
    cosine = cosines(whole["embedding"], half["embedding"])
    assert cosine.min() > 0.99
    assert np.median(cosine) > 0.999
    assert np.median(cosine) < 0.999999, "this is float32"
    np.testing.assert_allclose(half["norm"], whole["norm"], rtol=0.1)


def test_factors_in_bfloat16_lie_near(faces: FaceBatch, bfloat16: None) -> None:
    whole, half = (measure("factors_mini", faces, p).columns for p in (Precision.FLOAT32, Precision.BFLOAT16))
    for name, values in whole.items():
        np.testing.assert_allclose(half[name], values, atol=0.05)
        assert (half[name] != values).any(), "this is float32"


def test_angles_in_bfloat16_lie_near(faces: FaceBatch, bfloat16: None) -> None:
    whole, half = (measure("fr_pose", faces, p).columns for p in (Precision.FLOAT32, Precision.BFLOAT16))
    for name, degrees in whole.items():
        difference = np.abs(half[name] - degrees)
        assert 0 < np.median(difference) < 0.3
        assert np.quantile(difference, 0.95) < 4


def test_rows_in_bfloat16_do_not_depend_on_their_number(faces: FaceBatch, bfloat16: None) -> None:
    whole = measure("fr_feature", faces, Precision.BFLOAT16).columns["embedding"]
    part = FaceBatch(keys=faces.keys[:7], identities=faces.identities[:7], images=faces.images[:7])
    np.testing.assert_array_equal(measure("fr_feature", part, Precision.BFLOAT16).columns["embedding"], whole[:7])


def test_a_network_that_mixes_its_pictures_is_refused_in_bfloat16(tmp_path: Path, bfloat16: None) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    path = write_network(tmp_path / "mix.onnx", nodes)
    with pytest.raises(NetworkError, match=r"mix\.onnx.*batch of 4.*batch = 1"):
        open_network(path, input=SMALL, batch=4, device=Device.CPU, precision=Precision.BFLOAT16)


def test_an_operator_that_openvino_does_not_know_is_named(tmp_path: Path, bfloat16: None) -> None:
    path = write_network(tmp_path / "odd.onnx", [helper.make_node("Fancy", ["x"], ["y"], domain="of.nobody")])
    with pytest.raises(NetworkError, match=r"odd\.onnx in bfloat16 (?s:.*)Fancy(?s:.*)precision = float32"):
        open_network(path, input=SMALL, batch=1, device=Device.CPU, precision=Precision.BFLOAT16)


def test_float16_keeps_inputs_and_outputs(faces: FaceBatch) -> None:
    """The graph for CUDA, run on the processor."""
    entry = load_registry().get("factors_mini")
    whole = free_batch(onnx.load(find(entry)[0]))
    half = to_float16(whole)
    assert {t.data_type for t in half.graph.initializer} & {TensorProto.FLOAT, TensorProto.FLOAT16} == {
        TensorProto.FLOAT16
    }
    batch = np.ascontiguousarray((faces.images[:64].transpose(0, 3, 1, 2) - np.float32(127.5)) / np.float32(127.5))
    found = []
    for model in (whole, half):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found.append(session.run(None, {session.get_inputs()[0].name: batch})[0])
    assert found[1].dtype == np.float32
    np.testing.assert_allclose(found[1], found[0], atol=5e-3)


@pytest.mark.parametrize(("precision", "word"), [("float32", "0"), ("tf32", "1"), ("float16", "0")])
def test_tensor_float_is_on_where_it_is_asked_for(precision: str, word: str) -> None:
    assert _cuda_provider(Precision(precision))[0][1]["use_tf32"] == word


@pytest.mark.parametrize("precision", ["tf32", "float16"])
def test_on_cuda_embeddings_lie_near(precision: str, faces: FaceBatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    entry = load_registry().get("fr_feature")
    whole, other = (open_labeler(entry, "cuda", Precision(p))(faces).columns for p in ("float32", precision))
    cosine = cosines(whole["embedding"], other["embedding"])
    assert 0.999 < np.median(cosine) < 0.99999999


def test_float16_keeps_both_outputs_of_a_recogniser_that_gives_its_norm(tmp_path: Path) -> None:
    network = write_two_outputs(tmp_path)
    model = to_float16(free_batch(onnx.load(tmp_path / "two_outputs.onnx", load_external_data=False)))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = torch.rand(3, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        units, norms = (output.numpy() for output in network(pixels))
    found = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
    assert [output.dtype for output in found] == [np.float32, np.float32]
    assert (cosines(found[0], units) > 0.999).all()
    np.testing.assert_allclose(found[1], norms, rtol=0.01)
