r"""Makes dlib_resnet.onnx, which this project ships, of the face recogniser that dlib's author published.

    python -m benchmarks.convert_dlib_resnet --weights dlib_face_recognition_resnet_model_v1.dat \
        --output data_manifests/weights/dlib_resnet.onnx

It knows dlib's file form as far as this one network uses it, and refuses everything else.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.onnx_crop import IMAGE, crop_faces
from labelers.runtime.batch_axis import BATCH

if TYPE_CHECKING:
    from numpy.typing import NDArray

NETWORK_SIDE = 150
"""Pixels of the picture that the network was trained on."""

CROP_LEFT, CROP_TOP, CROP_SIDE = 8, 22, 96
"""The square of an aligned face that it sees; it ends 6 pixels below the picture, whose edge goes on there."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="dlib_face_recognition_resnet_model_v1.dat")
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file to write")
    given = parser.parse_args()
    onnx.save(add_crop(to_onnx(given.weights.read_bytes())), given.output)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer as dlib wrote it.

    Attributes:
        kind: dlib's name of it.
        numbers: its settings, in the order of the file.
        weights: float32, flat; empty where it has none.
    """

    kind: str
    numbers: list[int] = field(default_factory=list)
    weights: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


def read_layers(content: bytes) -> list[Layer]:
    """The layers of a network, from the picture on."""
    file = _File(content)
    _expect(file.integer() == 1 and file.text() == "loss_metric_2", "another loss")
    file.reals(2)
    while (version := file.integer()) in (1, 2):  # one for every layer, tag and skip, from the outside in
        pass
    _expect(version == 3 and file.text() == "input_rgb_image_sized", "another input")
    file.reals(3)  # the mean colour, which stands in the registry's entry
    _expect(file.integers(2) == [NETWORK_SIDE] * 2, "another size of picture")
    layers = []
    while not file.ended:
        layers.append(file.layer())
        if len(layers) == 1:
            _expect(file.integer() == 1, "several pictures made of each")
    _expect([layer.kind for layer in layers[-1:]] == ["fc_2"], "another last layer")
    return layers


class _File:
    """dlib's primitives: numbers as a byte of length and sign before their bytes, tensors as bare float32."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    @property
    def ended(self) -> bool:
        return self._at == len(self._content)

    def integer(self) -> int:
        (head,) = self._take(1)
        value = int.from_bytes(self._take(head & 0x0F), "little")
        return -value if head & 0x80 else value

    def integers(self, count: int) -> list[int]:
        return [self.integer() for _ in range(count)]

    def reals(self, count: int) -> None:
        """Pass over so many numbers of mantissa and exponent."""
        self.integers(2 * count)

    def text(self) -> str:
        return self._take(self.integer()).decode()

    def tensor(self) -> NDArray[np.float32]:
        _expect(self.integer() == 2, "another form of tensor")
        return np.frombuffer(self._take(4 * int(np.prod(self.integers(4)))), "<f4")

    def layer(self) -> Layer:
        """A layer's settings and weights; what only its training needs is passed over."""
        kind, numbers, weights = self.text(), [], np.zeros(0, np.float32)
        if kind == "con_4":
            weights, numbers = self.tensor(), self.integers(7)
            self.integers(2 * 5)  # how the tensor divides into filters and biases
            self.reals(4)
        elif kind == "affine_":
            weights = self.tensor()
            self.integers(2 * 5 + 1)
        elif kind in ("max_pool_2", "avg_pool_2"):
            numbers = self.integers(6)
        elif kind == "fc_2":
            numbers, weights = self.integers(2), self.tensor()
            self.integers(2 * 5 + 1)
            self.reals(4)
        else:
            _expect(kind in ("relu_", "add_prev_"), f"a layer {kind!r}")
        self._take(3)  # flags
        _expect(not any(self.tensor().size for _ in range(3)), "gradients")
        return Layer(kind=kind, numbers=numbers, weights=weights)

    def _take(self, length: int) -> bytes:
        _expect(0 <= length <= len(self._content) - self._at, "an end too early")
        self._at += length
        return self._content[self._at - length : self._at]


def to_onnx(content: bytes) -> onnx.ModelProto:
    """A network of pictures [N, 3, 150, 150] in ONNX, its weights of convolutions in 8 bits, one scale a filter."""
    return _Conversion().run(read_layers(content))


def add_crop(network: onnx.ModelProto) -> onnx.ModelProto:
    """Let a network of pictures [N, 3, 150, 150] take aligned faces [N, 3, 112, 112] and look at a part of them."""
    return crop_faces(network, network_side=NETWORK_SIDE, left=CROP_LEFT, top=CROP_TOP, side=CROP_SIDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    """What a layer gives: [N, channels, side, side]."""

    name: str
    channels: int
    side: int


class _Conversion:
    """Nodes and weights so far, and the tensors that the next layers read."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._now = _Tensor(name=IMAGE, channels=3, side=NETWORK_SIDE)
        self._block = self._other = self._now  # where the residual block began; what its end is added to

    def run(self, layers: list[Layer]) -> onnx.ModelProto:
        picture, left = self._now, iter(layers)
        for layer in left:
            if layer.kind == "con_4":
                self._convolution(layer, next(left))
            elif layer.kind == "relu_":
                self._add("Relu")
            elif layer.kind == "max_pool_2":
                self._pool("MaxPool", layer)
                self._block = self._other = self._now
            elif layer.kind == "add_prev_":
                self._sum(next(left))
            elif layer.kind == "fc_2":
                self._project(layer)
            elif any(layer.numbers[:2]):  # avg_pool_2 on the way past a block
                self._other, self._now = self._now, self._block
                self._pool("AveragePool", layer)
            else:
                self._add("GlobalAveragePool", side=1)
        values = [
            helper.make_tensor_value_info(picture.name, TensorProto.FLOAT, [BATCH, 3, NETWORK_SIDE, NETWORK_SIDE]),
            helper.make_tensor_value_info(self._now.name, TensorProto.FLOAT, [BATCH, self._now.channels]),
        ]
        graph = helper.make_graph(self._nodes, "dlib_resnet", values[:1], values[1:], self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)

    def _convolution(self, layer: Layer, affine: Layer) -> None:
        """A convolution with the scale and shift after it, which become part of it."""
        filters, height, width, *window = layer.numbers
        _expect(affine.kind == "affine_", f"{affine.kind} after a convolution")
        scale, shift = affine.weights.reshape(2, filters)
        kernel = layer.weights[:-filters].reshape(filters, self._now.channels, height, width)
        name = self._in_8_bits(kernel * scale[:, None, None, None])
        bias = self._constant(layer.weights[-filters:] * scale + shift)
        attributes, side = self._window([height, width, *window])
        self._add("Conv", name, bias, channels=filters, side=side, **attributes)

    def _pool(self, kind: str, layer: Layer) -> None:
        attributes, side = self._window(layer.numbers)
        self._add(kind, side=side, **attributes)

    def _sum(self, relu: Layer) -> None:
        """The end of a block. Where one tensor is smaller, dlib adds zeros at its end."""
        _expect(relu.kind == "relu_", f"{relu.kind} after a sum")
        both = (self._now, self._other)
        channels, side = max(each.channels for each in both), max(each.side for each in both)
        names = []
        for each in both:
            more = channels - each.channels, side - each.side
            if any(more):
                self._now = each
                pads = np.array([0, 0, 0, 0, 0, more[0], more[1], more[1]], np.int64)
                self._add("Pad", self._constant(pads), channels=channels, side=side)
                names.append(self._now.name)
            else:
                names.append(each.name)
        self._now = _Tensor(name=names[0], channels=channels, side=side)
        self._add("Add", names[1])
        self._add("Relu")
        self._block = self._other = self._now

    def _project(self, layer: Layer) -> None:
        outputs, inputs = layer.numbers
        self._add("Flatten")
        self._add("MatMul", self._constant(layer.weights.reshape(inputs, outputs)), channels=outputs)

    def _window(self, numbers: list[int]) -> tuple[dict[str, Any], int]:
        """Size, stride and padding of a square window, and the side of what it gives."""
        height, width, *strides, down, right = numbers
        _expect(height == width and strides[0] == strides[1] and down == right, "a window that is not square")
        side = (self._now.side + 2 * down - height) // strides[0] + 1
        return {"kernel_shape": [height, width], "strides": strides, "pads": [down, right] * 2}, side

    def _in_8_bits(self, kernel: NDArray[np.float32]) -> str:
        """A kernel [filters, C, H, W] as int8 and a scale for every filter; ONNX Runtime multiplies them on opening."""
        scale = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True) / 127
        levels = self._constant(np.rint(kernel / scale).astype(np.int8))
        names = [f"{levels}_float", f"{levels}_scaled"]
        self._nodes.append(helper.make_node("Cast", [levels], names[:1], to=TensorProto.FLOAT))
        self._nodes.append(helper.make_node("Mul", [names[0], self._constant(scale)], names[1:]))
        return names[1]

    def _add(
        self, kind: str, *more: str, channels: int | None = None, side: int | None = None, **attributes: Any
    ) -> None:
        """A node that reads the present tensor; it keeps channels and side unless others are given."""
        name = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, [self._now.name, *more], [name], **attributes))
        self._now = _Tensor(
            name=name,
            channels=self._now.channels if channels is None else channels,
            side=self._now.side if side is None else side,
        )

    def _constant(self, values: NDArray[Any]) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def _expect(true: bool, what: str) -> None:
    if not true:
        raise ValueError(f"the file has {what}, which is not known here")


if __name__ == "__main__":
    main()
