"""Writes a TensorFlow Lite graph as an ONNX model that takes any number of pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from labelers.pose.tflite import MAX_ELEMENTS, Operator, OperatorKind, TfliteError, Window
from labelers.runtime.batch_axis import BATCH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from labelers.pose.tflite import TfliteModel

OPSET = 18
IR_VERSION = 9
INPUT = "image"
"""Name of the input."""


def to_onnx(model: TfliteModel, *, prelu_as_convolutions: bool) -> onnx.ModelProto:
    """Write a model as ONNX, channels first.

    Args:
        model: with one input, pictures [1, H, W, C].
        prelu_as_convolutions: write PReLU with slope a, per channel, as (1 - a) relu(x) + a x, its two products as
            convolutions of 1 x 1. ONNX Runtime's processor kernels know these, and not PRelu, in the blocked layout in
            which they are fastest, and need not leave it. On a GPU, PRelu itself is one pass.

    Returns:
        A model with the input `image`, float32 [batch, C, H, W], and the outputs in their order, [batch, C, H, W] or
        [batch, D].

    Raises:
        TfliteError: if an operator has inputs or shapes that do not fit, or is used in a way that is not known here.
    """
    return _Writer(model, prelu_as_convolutions=prelu_as_convolutions).write()


class _Writer:
    """One conversion: nodes and weights so far."""

    def __init__(self, model: TfliteModel, *, prelu_as_convolutions: bool) -> None:
        self._model = model
        self._prelu_as_convolutions = prelu_as_convolutions
        self._constants = {n: tensor.values for n, tensor in enumerate(model.tensors) if tensor.values is not None}
        self._names: dict[int, str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._elements = 0

    def write(self) -> onnx.ModelProto:
        """Write all operators in their order."""
        (number, *more) = self._model.inputs or (-1,)
        if more or number < 0 or len(self._shape(number)) != 4:
            raise TfliteError(f"the graph has {len(self._model.inputs)} inputs, expected one of pictures [1, H, W, C]")
        self._names[number] = INPUT
        for place, operator in enumerate(self._model.operators):
            try:
                self._write_operator(operator)
            except TfliteError as error:
                raise TfliteError(f"operator {place}, {operator.kind.name}: {error}") from error
        outputs = [self._value(self._name(output), output) for output in self._model.outputs]
        graph = helper.make_graph(self._nodes, "tflite", [self._value(INPUT, number)], outputs, self._weights)
        written = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        try:
            onnx.checker.check_model(written)
        except onnx.checker.ValidationError as error:
            raise TfliteError(f"the operators make no graph: {error}") from error
        return written

    def _write_operator(self, operator: Operator) -> None:
        """Write one operator."""
        inputs, expected = len(operator.inputs), _INPUTS[operator.kind]
        if inputs not in expected or len(operator.outputs) != 1:
            raise TfliteError(f"{inputs} inputs and {len(operator.outputs)} outputs, expected {expected} and 1")
        _WRITERS[operator.kind](self, operator)

    def _convolution(self, operator: Operator) -> None:
        """A convolution; a depthwise one has its channels last, in one filter."""
        source, weights, bias = operator.inputs
        height, width, channels = self._picture(source)
        values = self._constant(weights, rank=4)
        depthwise = operator.kind is OperatorKind.DEPTHWISE_CONV_2D
        values = values.transpose(3, 0, 1, 2) if depthwise else values.transpose(0, 3, 1, 2)  # [out, in, kh, kw]
        filters, depth, *size = values.shape
        window = self._window(operator)
        wanted = [1, *_moved(window, (height, width), (size[0], size[1])), filters]
        if depth != (1 if depthwise else channels) or filters % channels * depthwise:
            raise TfliteError(f"weights {list(values.shape)} do not fit {channels} channels")
        self._expect(operator, wanted)
        self._add(
            "Conv",
            [self._name(source), self._weight(values), self._weight(self._constant(bias, rank=1))],
            operator,
            strides=window.stride,
            pads=_padding(window, (height, width), (size[0], size[1])),
            group=channels if depthwise else 1,
            kernel_shape=size,
        )

    def _pool(self, operator: Operator) -> None:
        """The largest value under a window."""
        height, width, channels = self._picture(operator.inputs[0])
        window = self._window(operator)
        self._expect(operator, [1, *_moved(window, (height, width), window.size), channels])
        self._add(
            "MaxPool",
            [self._name(operator.inputs[0])],
            operator,
            strides=window.stride,
            pads=_padding(window, (height, width), window.size),
            kernel_shape=window.size,
        )

    def _pad(self, operator: Operator) -> None:
        """Zeros around pictures or channels."""
        source, edges = operator.inputs
        self._picture(source)
        pads = self._constant(edges, rank=2, dtype=np.int32)  # [4, 2], of batch, height, width, channels
        if pads.shape != (4, 2) or pads.min() < 0 or pads[0].any():
            raise TfliteError(f"padding {pads.tolist()} is not known here")
        self._expect(operator, [int(a + b) for a, b in zip(self._shape(source), pads.sum(axis=1), strict=True)])
        channels_first = pads[[0, 3, 1, 2]].T.ravel().astype(np.int64)
        self._add("Pad", [self._name(source), self._weight(channels_first)], operator)

    def _prelu(self, operator: Operator) -> None:
        """Keep what is positive and multiply the rest with a slope, one a channel."""
        channels = self._picture(operator.inputs[0])[2]
        source, slopes = self._name(operator.inputs[0]), self._constant(operator.inputs[1])
        if slopes.size != channels:
            raise TfliteError(f"slopes {list(slopes.shape)} are not one for each of {channels} channels")
        self._expect(operator, self._shape(operator.inputs[0]))
        slopes = slopes.reshape(channels, 1, 1)
        if not self._prelu_as_convolutions:
            self._add("PRelu", [source, self._weight(slopes)], operator)
            return
        name = f"t{operator.outputs[0]}"
        self._nodes.append(helper.make_node("Relu", [source], [f"{name}_relu"]))
        parts = ((f"{name}_relu", 1 - slopes, f"{name}_positive"), (source, slopes, f"{name}_all"))
        for tensor, factors, product in parts:
            inputs = [tensor, self._weight(factors[:, None])]
            self._nodes.append(helper.make_node("Conv", inputs, [product], group=channels, kernel_shape=(1, 1)))
        self._add("Add", [product for _, _, product in parts], operator)

    def _sum(self, operator: Operator) -> None:
        """The sum of two tensors of one shape."""
        first, second = operator.inputs
        if self._shape(first) != self._shape(second):
            raise TfliteError(f"{list(self._shape(first))} and {list(self._shape(second))} are not of one shape")
        self._expect(operator, self._shape(first))
        self._add("Add", [self._name(first), self._name(second)], operator)

    def _sigmoid(self, operator: Operator) -> None:
        """1 / (1 + exp(-x))."""
        self._expect(operator, self._shape(operator.inputs[0]))
        self._add("Sigmoid", [self._name(operator.inputs[0])], operator)

    def _reshape(self, operator: Operator) -> None:
        """One picture's values in another shape, where the order of the channels cannot matter."""
        source, target = self._shape(operator.inputs[0]), self._shape(operator.outputs[0])
        if source[1:-1] != (1,) * (len(source) - 2) or len(target) != 2 or target[0] != 1 or source[-1] != target[1]:
            raise TfliteError(f"{list(source)} to {list(target)} is not known here")
        shape = np.array([0, target[1]], np.int64)  # a 0 keeps the batch
        self._add("Reshape", [self._name(operator.inputs[0]), self._weight(shape)], operator)

    def _widen(self, operator: Operator) -> None:
        """Weights of float16 as float32, now instead of at every run."""
        values = self._constants.get(operator.inputs[0])
        if values is None or values.dtype != np.float16:
            raise TfliteError("only float16 weights are known here")
        self._constants[operator.outputs[0]] = values.astype(np.float32)

    def _add(self, kind: str, inputs: list[str], operator: Operator, **attributes: Any) -> None:
        """Add the node that makes an operator's output."""
        name = self._names[operator.outputs[0]] = f"t{operator.outputs[0]}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))

    def _name(self, number: int) -> str:
        """The name of a tensor that depends on the input."""
        if number not in self._names:
            raise TfliteError(f"tensor {number} is made by no operator before")
        return self._names[number]

    def _weight(self, values: NDArray[Any]) -> str:
        """The name of new weights."""
        name = f"w{len(self._weights)}"
        self._elements += values.size
        if self._elements > MAX_ELEMENTS:
            raise TfliteError(f"more than {MAX_ELEMENTS:,} weights: is the file damaged?")
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _constant(self, number: int, rank: int | None = None, dtype: type = np.float32) -> NDArray[Any]:
        """The values of a constant."""
        values = self._constants.get(number)
        if values is None or values.dtype != dtype or (rank is not None and values.ndim != rank):
            raise TfliteError(f"tensor {number} is no constant of {np.dtype(dtype)} of the expected rank")
        return values

    def _shape(self, number: int) -> tuple[int, ...]:
        return self._model.tensors[number].shape

    def _picture(self, number: int) -> tuple[int, int, int]:
        """Height, width and channels of a tensor of pictures."""
        shape = self._shape(number)
        if len(shape) != 4 or shape[0] != 1:
            raise TfliteError(f"{list(shape)} is no picture [1, H, W, C]")
        return shape[1], shape[2], shape[3]

    def _window(self, operator: Operator) -> Window:
        if operator.window is None:
            raise TfliteError("it has no window")
        return operator.window

    def _expect(self, operator: Operator, shape: tuple[int, ...] | list[int]) -> None:
        """Raise TfliteError unless the file says the same shape of the output as its operator gives."""
        said = self._shape(operator.outputs[0])
        if said != tuple(shape) or math.prod(shape) > MAX_ELEMENTS:
            raise TfliteError(f"gives {list(shape)}, the file says {list(said)}")

    def _value(self, name: str, number: int) -> onnx.ValueInfoProto:
        """The description of an input or output, channels first."""
        _, *sides = self._shape(number)
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *sides[-1:], *sides[:-1]])


_WRITERS = {
    OperatorKind.ADD: _Writer._sum,
    OperatorKind.CONV_2D: _Writer._convolution,
    OperatorKind.DEPTHWISE_CONV_2D: _Writer._convolution,
    OperatorKind.DEQUANTIZE: _Writer._widen,
    OperatorKind.LOGISTIC: _Writer._sigmoid,
    OperatorKind.MAX_POOL_2D: _Writer._pool,
    OperatorKind.RESHAPE: _Writer._reshape,
    OperatorKind.PAD: _Writer._pad,
    OperatorKind.PRELU: _Writer._prelu,
}

_INPUTS = {
    OperatorKind.ADD: (2,),
    OperatorKind.CONV_2D: (3,),
    OperatorKind.DEPTHWISE_CONV_2D: (3,),
    OperatorKind.DEQUANTIZE: (1,),
    OperatorKind.LOGISTIC: (1,),
    OperatorKind.MAX_POOL_2D: (1,),
    OperatorKind.RESHAPE: (1, 2),
    OperatorKind.PAD: (2,),
    OperatorKind.PRELU: (2,),
}
"""How many inputs an operator may have; the second one of a reshape says what its output's shape says too."""


def _moved(window: Window, picture: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of what a window of that size gives on a picture."""
    free = (0, 0) if window.same else (size[0] - 1, size[1] - 1)
    height, width = (-(-(picture[axis] - free[axis]) // window.stride[axis]) for axis in (0, 1))
    return height, width


def _padding(window: Window, picture: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Zeros at the top, left, bottom and right: where they cannot be even, TensorFlow puts one more at the end."""
    if not window.same:
        return 0, 0, 0, 0
    steps = _moved(window, picture, size)
    total = [max((steps[axis] - 1) * window.stride[axis] + size[axis] - picture[axis], 0) for axis in (0, 1)]
    return total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2
