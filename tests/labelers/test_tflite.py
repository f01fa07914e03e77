"""TensorFlow Lite files: small ones made here against PyTorch, the real network in both forms, and damaged ones."""

from __future__ import annotations

import contextlib
import zipfile
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its common name
from hypothesis import given, settings
from hypothesis import strategies as st

from labelers.pose.tflite import OperatorKind, TfliteError, read_tflite
from labelers.pose.tflite_to_onnx import to_onnx

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

NOISE = np.random.default_rng(4)
TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int32): 2, np.dtype(np.uint8): 3}


# --- a writer of small files ------------------------------------------------------------------------------------------


def numbers(builder: flatbuffers.Builder, values: Any) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependInt32(int(value))
    return builder.EndVector()


def references(builder: flatbuffers.Builder, values: list[int]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependUOffsetTRelative(value)
    return builder.EndVector()


def table(builder: flatbuffers.Builder, **slots: tuple[str, int]) -> int:
    """A table; slots are named s0, s1 and so on, each with how it is written."""
    builder.StartObject(12)
    for name, (kind, value) in slots.items():
        write = getattr(builder, f"Prepend{kind}Slot")
        write(int(name[1:]), value, 0)
    return builder.EndObject()


def write_file(
    tensors: list[tuple[tuple[int, ...], np.ndarray | None]],
    operators: list[tuple[int, tuple[int, ...], tuple[int, ...], dict[int, tuple[str, int]] | None]],
    *,
    inputs: tuple[int, ...] = (0,),
    outputs: tuple[int, ...] | None = None,
) -> bytes:
    """A file with these tensors, and operators (kind, inputs, outputs, slots of the options)."""
    builder = flatbuffers.Builder(1024)
    buffers = [table(builder)]
    written = []
    for shape, values in tensors:
        place = 0
        if values is not None:
            content = builder.CreateByteVector(np.ascontiguousarray(values).tobytes())
            place = len(buffers)
            buffers.append(table(builder, s0=("UOffsetTRelative", content)))
        kind = 0 if values is None else TYPES[values.dtype]
        sides = numbers(builder, shape)
        written.append(
            table(builder, s0=("UOffsetTRelative", sides), s1=("Int8", kind), s2=("Uint32", place))
        )  # fmt: skip
    kinds = sorted({kind for kind, *_ in operators})
    codes = [table(builder, s0=("Int8", min(kind, 127)), s3=("Int32", kind)) for kind in kinds]
    steps = []
    for kind, sources, targets, options in operators:
        slots = {"s1": ("UOffsetTRelative", numbers(builder, sources))}
        slots["s2"] = ("UOffsetTRelative", numbers(builder, targets))
        if options is not None:
            slots["s4"] = ("UOffsetTRelative", table(builder, **{f"s{n}": slot for n, slot in options.items()}))
        steps.append(table(builder, s0=("Uint32", kinds.index(kind)), **slots))
    last = outputs or operators[-1][2]
    lists = [references(builder, written), numbers(builder, inputs), numbers(builder, last), references(builder, steps)]
    graph = table(builder, **{f"s{n}": ("UOffsetTRelative", place) for n, place in enumerate(lists)})
    parts = {1: references(builder, codes), 2: references(builder, [graph]), 4: references(builder, buffers)}
    builder.Finish(table(builder, **{f"s{n}": ("UOffsetTRelative", p) for n, p in parts.items()}), b"TFL3")
    return bytes(builder.Output())


def window(*, same: bool, stride: tuple[int, int], size: tuple[int, int] | None = None) -> dict[int, tuple[str, int]]:
    options = {0: ("Int8", 0 if same else 1), 1: ("Int32", stride[1]), 2: ("Int32", stride[0])}
    return options | ({3: ("Int32", size[1]), 4: ("Int32", size[0])} if size else {})


def run(model: onnx.ModelProto, pictures: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, {"image": pictures.astype(np.float32)})
    return outputs


def noise(*shape: int) -> np.ndarray:
    return NOISE.standard_normal(shape).astype(np.float32)


def same_padding(picture: torch.Tensor, size: tuple[int, int], stride: tuple[int, int], fill: float) -> torch.Tensor:
    """TensorFlow's SAME by its definition: the output has the input's size over the stride, rounded up."""
    edges: list[int] = []
    for axis in (3, 2):
        side = picture.shape[axis]
        total = max((int(np.ceil(side / stride[axis - 2])) - 1) * stride[axis - 2] + size[axis - 2] - side, 0)
        edges += [total // 2, total - total // 2]
    return F.pad(picture, edges, value=fill)


# --- operators against PyTorch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 3)])
@pytest.mark.parametrize("depthwise", [True, False])
def test_convolutions(same: bool, stride: tuple[int, int], depthwise: bool) -> None:
    weights, bias = noise(*((1, 3, 2, 4) if depthwise else (5, 3, 2, 4))), noise(4 if depthwise else 5)
    picture = torch.from_numpy(noise(2, 4, 9, 8))
    kernel = torch.from_numpy(weights.transpose(*((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))).copy())
    padded = same_padding(picture, (3, 2), stride, 0.0) if same else picture
    expected = F.conv2d(padded, kernel, torch.from_numpy(bias), stride, groups=4 if depthwise else 1).numpy()
    kind = OperatorKind.DEPTHWISE_CONV_2D if depthwise else OperatorKind.CONV_2D
    tensors = [((1, 9, 8, 4), None), (weights.shape, weights), (bias.shape, bias), (nhwc(expected), None)]
    content = write_file(tensors, [(kind, (0, 1, 2), (3,), window(same=same, stride=stride))])
    (given_,) = run(to_onnx(read_tflite(content), prelu_as_convolutions=True), picture.numpy())
    np.testing.assert_allclose(given_, expected, rtol=1e-5, atol=1e-5)


def nhwc(pictures: np.ndarray) -> tuple[int, ...]:
    _, channels, height, width = pictures.shape
    return 1, height, width, channels


@pytest.mark.parametrize("same", [True, False])
def test_pooling(same: bool) -> None:
    picture = torch.from_numpy(noise(2, 3, 7, 9))
    padded = same_padding(picture, (2, 3), (2, 2), -torch.inf) if same else picture
    expected = F.max_pool2d(padded, (2, 3), (2, 2)).numpy()
    options = window(same=same, stride=(2, 2), size=(2, 3))
    content = write_file([((1, 7, 9, 3), None), (nhwc(expected), None)], [(17, (0,), (1,), options)])
    (given_,) = run(to_onnx(read_tflite(content), prelu_as_convolutions=True), picture.numpy())
    np.testing.assert_array_equal(given_, expected)


@pytest.mark.parametrize("as_convolutions", [True, False])
def test_the_rest_in_one_graph(as_convolutions: bool) -> None:
    """float16 slopes widened, PReLU, padding of channels, a sum, a sigmoid and a reshape."""
    slopes = np.array([[[-0.5, 0.0, 0.25, 3.0]]], np.float16)
    pads = np.array([[0, 0], [0, 0], [0, 0], [0, 2]], np.int32)
    tensors: list[tuple[tuple[int, ...], np.ndarray | None]] = [
        ((1, 1, 1, 4), None), ((1, 1, 4), slopes), ((1, 1, 4), None), ((1, 1, 1, 4), None), ((4, 2), pads),
        ((1, 1, 1, 6), None), ((1, 1, 1, 6), None), ((1, 1, 1, 6), None), ((2,), np.array([1, 6], np.int32)),
        ((1, 6), None),
    ]  # fmt: skip
    operators = [(6, (1,), (2,), None), (54, (0, 2), (3,), None), (34, (3, 4), (5,), None), (0, (5, 5), (6,), {}),
                 (14, (6,), (7,), None), (22, (7, 8), (9,), None)]  # fmt: skip
    model = to_onnx(read_tflite(write_file(tensors, operators)), prelu_as_convolutions=as_convolutions)
    pictures = noise(3, 4, 1, 1)
    activated = F.prelu(torch.from_numpy(pictures), torch.from_numpy(slopes.ravel().astype(np.float32)))
    expected = torch.sigmoid(2 * F.pad(activated[:, :, 0, 0], (0, 2))).numpy()
    (given_,) = run(model, pictures)
    np.testing.assert_allclose(given_, expected, rtol=1e-6, atol=1e-6)
    assert ("PRelu" in {node.op_type for node in model.graph.node}) is not as_convolutions


# --- what is not known ------------------------------------------------------------------------------------------------


def small_file(kind: int = 3, options: dict[int, tuple[str, int]] | None = None, **changed: Any) -> bytes:
    """One convolution of 3 x 3 pixels."""
    weights, bias = np.ones((2, 3, 3, 1), np.float32), np.zeros(2, np.float32)
    tensors = [((1, 6, 6, 1), None), (weights.shape, weights), ((2,), bias), ((1, 6, 6, 2), None)]
    tensors[1] = changed.pop("weights", tensors[1])
    tensors[3] = changed.pop("output", tensors[3])
    plain = window(same=True, stride=(1, 1))
    return write_file(tensors, [(kind, (0, 1, 2), (3,), plain | (options or {}))], **changed)


def test_the_small_file_is_sound() -> None:
    (output,) = run(to_onnx(read_tflite(small_file()), prelu_as_convolutions=True), np.ones((5, 1, 6, 6)))
    assert output.shape == (5, 2, 6, 6)
    assert output[0, 0, 0, 0] == 4
    assert output[4, 1, 3, 3] == 9


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a TensorFlow Lite file"),
        (b"PK\3\4" * 20, "not a TensorFlow Lite file"),
        (b"\0\0\0\0TFL3", "0 graphs"),
        (small_file()[:300], "damaged"),
        (small_file(kind=9), r"operator 9 of TensorFlow Lite's schema is not known"),
        (small_file(kind=150), r"operator 150 "),
        (small_file(options={3: ("Int8", 1)}), "CONV_2D runs with activation 1"),
        (small_file(options={5: ("Int32", 2)}), "dilation"),
        (small_file(options={1: ("Int32", 0)}), "stride"),
        (small_file(weights=((2, 3, 3, 1), np.ones((2, 3, 3, 1), np.uint8))), "type 3"),
        (small_file(weights=((2, 3, 3, 2), np.ones((2, 3, 3, 1), np.float32))), "damaged"),
        (small_file(weights=((2, 3, 3, 2), np.ones((2, 3, 3, 2), np.float32))), "operator 0, CONV_2D: weights"),
        (small_file(weights=((2, 3, 3, 1), None)), "no constant"),
        (small_file(output=((1, 3, 6, 2), None)), r"gives \[1, 6, 6, 2\], the file says \[1, 3, 6, 2\]"),
        (small_file(output=((1, 1 << 14, 1 << 14, 2), None)), "shape"),
        (small_file(inputs=(0, 1)), "2 inputs"),
        (small_file(inputs=(3,)), "made by no operator"),
        (small_file(inputs=(9,)), r"tensors \[9\] are named, there are 4"),
        (small_file(outputs=(2,)), "made by no operator"),
    ],
)
def test_what_is_not_known_is_named(content: bytes, said: str) -> None:
    with pytest.raises(TfliteError, match=said):
        to_onnx(read_tflite(content), prelu_as_convolutions=False)


def take_or_explain(content: bytes) -> onnx.ModelProto | None:
    with contextlib.suppress(TfliteError):
        return to_onnx(read_tflite(content), prelu_as_convolutions=True)
    return None


@given(flips=st.lists(st.tuples(st.integers(0, len(small_file()) - 1), st.integers(1, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_flipped_bytes_are_refused_or_harmless(flips: list[tuple[int, int]]) -> None:
    content = bytearray(small_file())
    for place, change in flips:
        content[place] ^= change
    model = take_or_explain(bytes(content))
    if model is not None:
        sides = [side.dim_value or 1 for side in model.graph.input[0].type.tensor_type.shape.dim]
        assert run(model, np.zeros(sides))


def test_every_prefix_of_a_small_file_is_refused_or_harmless() -> None:
    whole = small_file()
    for length in range(len(whole)):
        take_or_explain(whole[:length])


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_behind_the_identifier(content: bytes) -> None:
    take_or_explain(content[:4].ljust(4, b"\0") + b"TFL3" + content[4:])


# --- the real network -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_network(real_data: Path) -> bytes:
    with zipfile.ZipFile(real_data / "models" / "face_landmarker.task") as bundle:
        return bundle.read("face_landmarks_detector.tflite")


def test_the_real_network_in_both_forms(real_network: bytes) -> None:
    model = read_tflite(real_network)
    assert [model.tensors[n].shape for n in model.inputs] == [(1, 256, 256, 3)]
    assert [model.tensors[n].shape for n in model.outputs] == [(1, 1, 1, 1434), (1, 1, 1, 1), (1, 1)]
    assert {operator.kind for operator in model.operators} == set(OperatorKind)
    pictures = NOISE.random((2, 3, 256, 256), np.float32)
    written = [to_onnx(model, prelu_as_convolutions=form) for form in (True, False)]
    assert not {"PRelu"} & {node.op_type for node in written[0].graph.node}
    split, whole = (run(each, pictures) for each in written)
    assert [output.shape for output in whole] == [(2, 1434, 1, 1), (2, 1, 1, 1), (2, 1)]
    for one, other in zip(split, whole, strict=True):
        assert np.ptp(other) > 0
        np.testing.assert_allclose(one, other, atol=1e-5 * max(1.0, np.abs(other).max()))


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_real_network_damaged(real_network: bytes, data: st.DataObject) -> None:
    """The tables, in which a wrong byte can do most, stand behind the weights; the start names them."""
    content = bytearray(real_network)
    for _ in range(data.draw(st.integers(1, 3))):
        from_end = data.draw(st.booleans())
        place = data.draw(st.integers(1, 60_000))
        content[-place if from_end else place] ^= data.draw(st.integers(1, 255))
    take_or_explain(bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 70_000]))]))
