"""Lets a network of larger pictures take aligned faces: the crop and the enlargement become part of its graph."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from labelers.faces import SIDE
from labelers.runtime.batch_axis import BATCH

IMAGE = "image"
"""The tensor that the network's first convolution reads."""


def crop_faces(network: onnx.ModelProto, *, network_side: int, left: int, top: int, side: int) -> onnx.ModelProto:
    """Let a network of pictures [N, 3, S, S] take aligned faces [N, 3, 112, 112] and look at a square of them.

    Beyond the picture its edge goes on. The square is enlarged bilinearly: a point half a pixel from its edge stays
    half a pixel (of the larger picture) from it, as in MediaPipe.

    Args:
        network: whose input is `IMAGE`.
        network_side: S.
        left: column of the picture at which the square begins, in pixels; below 0: beyond the picture.
        top: row, likewise.
        side: of the square, in pixels.
    """
    model = onnx.ModelProto()
    model.CopyFrom(network)
    graph = model.graph
    edges = np.array([0, 0, -top, -left, 0, 0, top + side - SIDE, left + side - SIDE], np.int64)
    sizes = np.array([network_side, network_side], np.int64)
    bilinear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", "axes": [2, 3]}
    nodes = [
        helper.make_node("Pad", ["face", "crop_edges"], ["crop"], mode="edge"),
        helper.make_node("Resize", ["crop", "", "", "crop_sizes"], [IMAGE], **bilinear),
        *graph.node,
    ]
    # ONNX Runtime does not infer this shape, and without it fuses less: face_mesh is a fifth slower.
    graph.value_info.append(graph.input[0])
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("face", TensorProto.FLOAT, [BATCH, 3, SIDE, SIDE]))
    graph.initializer.extend(
        [numpy_helper.from_array(edges, "crop_edges"), numpy_helper.from_array(sizes, "crop_sizes")]
    )
    onnx.checker.check_model(model)
    return model
