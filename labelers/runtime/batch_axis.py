"""Makes the batch axis of an ONNX model free, whatever batch it was exported with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BATCH = "batch"
"""The name that dimension 0 of every input and output gets."""


def free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name dimension 0 of the inputs and outputs, and let reshapes keep it, in a copy of the model.

    An exporter that saw one batch writes its size into the model: as dimension 0 of inputs and outputs, and as the
    first entry of the target shapes of Reshape nodes. A zero there means "as in the reshaped tensor", and, unlike -1,
    may stand beside a -1 elsewhere in the shape. Only reshapes of what depends on the input are changed, since a bias
    may well be reshaped to [1, C, 1, 1].

    Args:
        model: a model whose inputs carry the batch in dimension 0.

    Returns:
        The changed copy; equal to the model where its batch is free already.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    exported = {_dimension(value) for value in network_inputs(changed)} - {0}
    for value in (*network_inputs(changed), *changed.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = BATCH
    if exported:
        # Inner shapes were inferred for the exported batch; the runtime infers them again.
        del changed.graph.value_info[:]
        _free_reshapes(changed.graph, exported)
    return changed


def network_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller feeds; old models list their weights among the inputs too."""
    weights = {weight.name for weight in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _dimension(value: onnx.ValueInfoProto) -> int:
    """Dimension 0 of an input, or 0 where it is free or absent."""
    dimensions = value.type.tensor_type.shape.dim
    return int(dimensions[0].dim_value) if dimensions else 0


def _free_reshapes(graph: onnx.GraphProto, exported: set[int]) -> None:
    """Give every Reshape that starts with the exported batch a shape of its own that keeps dimension 0."""
    constants = dict(_constants(graph))
    dependent = _dependent_on_inputs(graph)
    for number, node in enumerate(graph.node):
        if node.op_type != "Reshape" or node.input[0] not in dependent:
            continue
        shape = constants.get(node.input[1])
        if shape is None or shape.size == 0 or int(shape[0]) not in exported or _zero_is_literal(node):
            continue
        free = shape.astype(np.int64)
        free[0] = 0
        name = f"{node.input[1]}_free_batch_{number}"
        graph.initializer.append(numpy_helper.from_array(free, name))
        node.input[1] = name


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """One-dimensional constants by name, from weights and from Constant nodes."""
    for weight in graph.initializer:
        if len(weight.dims) == 1:
            yield weight.name, numpy_helper.to_array(weight)
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value" and len(attribute.t.dims) == 1:
                    yield node.output[0], numpy_helper.to_array(attribute.t)
                elif attribute.name == "value_ints":
                    yield node.output[0], np.asarray(attribute.ints, np.int64)


def _dependent_on_inputs(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that change with the network's inputs; ONNX lists its nodes in topological order."""
    weights = {weight.name for weight in graph.initializer}
    dependent = {value.name for value in graph.input} - weights
    for node in graph.node:
        if dependent.intersection(node.input):
            dependent.update(node.output)
    return dependent


def _zero_is_literal(node: onnx.NodeProto) -> bool:
    """Whether a zero in this Reshape's shape means an empty axis rather than 'keep'."""
    return any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute)
