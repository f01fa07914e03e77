"""Makes face_mesh.onnx, which this project ships, of the face-mesh network in MediaPipe's bundle.

    python -m benchmarks.convert_face_mesh --bundle face_landmarker.task --output data_manifests/weights/face_mesh.onnx

It knows the operators of that one network, in the way it uses them, and refuses everything else.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from mediapipe.tasks.metadata import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from benchmarks.onnx_crop import IMAGE, crop_faces
from labelers.pose.face_mesh import CROP_LEFT, CROP_SIDE, NETWORK_SIDE
from labelers.runtime.batch_axis import BATCH

if TYPE_CHECKING:
    from numpy.typing import NDArray

NETWORK_FILE = "face_landmarks_detector.tflite"
"""The network's name in the bundle."""

_TYPES = {schema.TensorType.FLOAT32: "<f4", schema.TensorType.FLOAT16: "<f2", schema.TensorType.INT32: "<i4"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="MediaPipe's face_landmarker.task")
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file to write")
    given = parser.parse_args()
    onnx.save(add_crop(to_onnx(read_network(given.bundle))), given.output)


def read_network(bundle: Path) -> bytes:
    """The face-mesh network of a bundle, a TensorFlow Lite file."""
    with zipfile.ZipFile(bundle) as archive:
        return archive.read(NETWORK_FILE)


def to_onnx(content: bytes) -> onnx.ModelProto:
    """A TensorFlow Lite network [1, H, W, 3] in ONNX: channels first, any number of pictures, float32 weights."""
    return _Conversion(schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))).run()


def add_crop(network: onnx.ModelProto) -> onnx.ModelProto:
    """Let a network of pictures [N, 3, 256, 256] take aligned faces [N, 3, 112, 112] and look at a part of them."""
    return crop_faces(network, network_side=NETWORK_SIDE, left=-CROP_LEFT, top=0, side=CROP_SIDE)


class _Conversion:
    """Nodes and weights so far; tensors keep their numbers in the file as their names."""

    def __init__(self, model: Any) -> None:
        (self._graph,) = model.subgraphs
        self._kinds = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
        self._buffers = model.buffers
        self._widened: dict[int, int] = {}  # tensor of float32 -> the constant of float16 that it is made of
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        (self._input,) = self._graph.inputs

    def run(self) -> onnx.ModelProto:
        for operator in self._graph.operators:
            _WRITERS[self._kinds[operator.opcodeIndex]](self, operator)
        outputs = [self._describe(number) for number in self._graph.outputs]
        graph = helper.make_graph(self._nodes, "face_mesh", [self._describe(self._input)], outputs, self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)

    def _convolution(self, operator: Any) -> None:
        source, weights, bias = operator.inputs
        filters = self._constant(weights)
        depthwise = isinstance(operator.builtinOptions, schema.DepthwiseConv2DOptionsT)
        filters = filters.transpose(3, 0, 1, 2) if depthwise else filters.transpose(0, 3, 1, 2)  # [out, in, kh, kw]
        inputs = [self._name(source), self._weight(filters), self._weight(self._constant(bias))]
        self._add("Conv", operator, inputs, group=len(filters) if depthwise else 1, **self._window(operator, filters))

    def _pool(self, operator: Any) -> None:
        options = operator.builtinOptions
        window = np.empty((1, 1, options.filterHeight, options.filterWidth))
        self._add("MaxPool", operator, [self._name(operator.inputs[0])], **self._window(operator, window))

    def _pad(self, operator: Any) -> None:
        source, edges = operator.inputs
        pads = self._constant(edges)[[0, 3, 1, 2]].T.ravel()  # [4, 2], of batch, height, width, channels
        self._add("Pad", operator, [self._name(source), self._weight(pads.astype(np.int64))])

    def _prelu(self, operator: Any) -> None:
        source, slopes = operator.inputs
        self._add("PRelu", operator, [self._name(source), self._weight(self._constant(slopes).reshape(-1, 1, 1))])

    def _sum(self, operator: Any) -> None:
        _expect(operator.builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.NONE, "an activation")
        self._add("Add", operator, [self._name(number) for number in operator.inputs])

    def _sigmoid(self, operator: Any) -> None:
        self._add("Sigmoid", operator, [self._name(operator.inputs[0])])

    def _reshape(self, operator: Any) -> None:
        wanted = list(self._graph.tensors[operator.outputs[0]].shape)
        _expect(wanted == [1, 1], f"a reshape to {wanted}")
        self._add("Reshape", operator, [self._name(operator.inputs[0]), self._weight(np.array([0, 1], np.int64))])

    def _widen(self, operator: Any) -> None:
        self._widened[operator.outputs[0]] = operator.inputs[0]

    def _window(self, operator: Any, filters: NDArray[Any]) -> dict[str, Any]:
        """Size, stride and padding. Where zeros cannot be even, TensorFlow puts one more at the end."""
        options, size = operator.builtinOptions, filters.shape[2:]
        _expect(options.fusedActivationFunction == schema.ActivationFunctionType.NONE, "an activation")
        _expect(getattr(options, "dilationHFactor", 1) == getattr(options, "dilationWFactor", 1) == 1, "a dilation")
        strides = (options.strideH, options.strideW)
        picture = self._graph.tensors[operator.inputs[0]].shape[1:3]
        steps = self._graph.tensors[operator.outputs[0]].shape[1:3]
        zeros = [max((steps[i] - 1) * strides[i] + size[i] - picture[i], 0) for i in (0, 1)]
        _expect(options.padding == schema.Padding.SAME or zeros == [0, 0], "a picture that is too small")
        return {
            "strides": strides,
            "pads": [*(n // 2 for n in zeros), *(n - n // 2 for n in zeros)],
            "kernel_shape": size,
        }

    def _add(self, kind: str, operator: Any, inputs: list[str], **attributes: Any) -> None:
        (output,) = operator.outputs
        self._nodes.append(helper.make_node(kind, inputs, [self._name(output)], **attributes))

    def _name(self, number: int) -> str:
        return IMAGE if number == self._input else f"t{number}"

    def _weight(self, values: NDArray[Any]) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _constant(self, number: int) -> NDArray[Any]:
        """The values of a constant, float16 as float32."""
        tensor = self._graph.tensors[self._widened.get(number, number)]
        values = self._buffers[tensor.buffer].data.view(_TYPES[tensor.type]).reshape(tensor.shape)
        return values.astype(np.float32) if values.dtype == np.float16 else values

    def _describe(self, number: int) -> onnx.ValueInfoProto:
        """An input or output, [batch, C, H, W] or [batch, D]."""
        _, *sides, channels = (int(side) for side in self._graph.tensors[number].shape)
        return helper.make_tensor_value_info(self._name(number), TensorProto.FLOAT, [BATCH, channels, *sides])


def _expect(true: bool, what: str) -> None:
    if not true:
        raise ValueError(f"the network has {what}, which is not known here")


_WRITERS = {
    schema.BuiltinOperator.ADD: _Conversion._sum,
    schema.BuiltinOperator.CONV_2D: _Conversion._convolution,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: _Conversion._convolution,
    schema.BuiltinOperator.DEQUANTIZE: _Conversion._widen,
    schema.BuiltinOperator.LOGISTIC: _Conversion._sigmoid,
    schema.BuiltinOperator.MAX_POOL_2D: _Conversion._pool,
    schema.BuiltinOperator.PAD: _Conversion._pad,
    schema.BuiltinOperator.PRELU: _Conversion._prelu,
    schema.BuiltinOperator.RESHAPE: _Conversion._reshape,
}

if __name__ == "__main__":
    main()
