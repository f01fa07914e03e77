"""Lets an ONNX network take pictures as they are decoded: what it wants to see is made of them within its graph.

So a picture travels to a GPU in a quarter of the bytes, and is normalised there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from labelers.runtime.batch_axis import BATCH, network_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

PICTURES = "fiqa_pictures"
"""The new input's name."""


class Colour(StrEnum):
    """The order of a network's three colour channels."""

    RGB = "rgb"
    BGR = "bgr"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """What a network wants to see.

    Attributes:
        width: in pixels.
        height: in pixels.
        colour: order of the channels.
        mean: subtracted, in levels of 0 to 255, one value a channel in the order of `colour`.
        std: divided by, likewise.
    """

    width: int
    height: int
    colour: Colour
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a network's input must have pixels, not {self.width} x {self.height}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"three means and three positive deviations are needed, not {self.mean} and {self.std}")


def take_pictures(model: onnx.ModelProto, spec: InputSpec) -> onnx.ModelProto:
    """Put before the only input of a network, float32 [batch, 3, H, W], what makes it of pictures.

    Args:
        model: the network; it is left as it is.
        spec: size, colour order, mean and deviation.

    Returns:
        A network that takes uint8 [batch, H, W, 3], RGB, and gives what the other gives for
        (picture - mean) / std in the network's colour order.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    (old,) = network_inputs(changed)
    nodes = [*_prepare(spec, old.name), *graph.node]
    inputs = [
        helper.make_tensor_value_info(PICTURES, TensorProto.UINT8, [BATCH, spec.height, spec.width, 3]),
        *(value for value in graph.input if value.name != old.name),
    ]
    # ONNX Runtime does not infer every shape from the front, and fuses less without them.
    graph.value_info.append(old)
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    return changed


def _prepare(spec: InputSpec, name: str) -> Iterator[onnx.NodeProto]:
    """The nodes from the pictures to the tensor that the network reads under that name."""
    yield helper.make_node("Transpose", [PICTURES], ["fiqa_planes"], perm=[0, 3, 1, 2])
    planes = "fiqa_planes"
    if spec.colour is Colour.BGR:
        yield _constant("fiqa_order", np.array([2, 1, 0], np.int64))
        yield helper.make_node("Gather", [planes, "fiqa_order"], ["fiqa_reversed"], axis=1)
        planes = "fiqa_reversed"
    yield helper.make_node("Cast", [planes], ["fiqa_levels"], to=TensorProto.FLOAT)
    yield _constant("fiqa_mean", np.array(spec.mean, np.float32)[:, None, None])
    yield _constant("fiqa_std", np.array(spec.std, np.float32)[:, None, None])
    yield helper.make_node("Sub", ["fiqa_levels", "fiqa_mean"], ["fiqa_centred"])
    yield helper.make_node("Div", ["fiqa_centred", "fiqa_std"], [name])


def _constant(name: str, values: np.ndarray) -> onnx.NodeProto:
    """A constant of the graph; old networks may not have initializers that are no inputs."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))
