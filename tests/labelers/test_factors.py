"""The factor labeler on networks whose answer is known by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from data_manifests.tables import FACTORS, Status
from labelers.faces import FaceBatch
from labelers.factors import FactorsLabeler
from labelers.onnx import Colour, Device, InputSpec, Network, NetworkError, open_network

if TYPE_CHECKING:
    from pathlib import Path

LEVELS = InputSpec(width=112, height=112, colour=Colour.RGB, mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))


BRIGHTNESS = InputSpec(width=112, height=112, colour=Colour.RGB, mean=(0.0, 0.0, 0.0), std=(60.0, 60.0, 60.0))


def channel_network(
    path: Path, *, last: tuple[str, ...] = ("Sigmoid",), outputs: int = 3, spec: InputSpec = LEVELS
) -> Network:
    """A network that gives the mean of each of the three channels, passed through the operators named in `last`."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["v0"]),
    ]
    nodes += [helper.make_node(operator, [f"v{row}"], [f"v{row + 1}"]) for row, operator in enumerate(last)]
    result = f"v{len(last)}"
    if outputs == 6:
        nodes.append(helper.make_node("Concat", [result, result], ["twice"], axis=1))
        result = "twice"
    graph = helper.make_graph(
        nodes,
        "channels",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, ["n", outputs])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return open_network(path, input=spec, batch=4, device=Device.CPU)


def coloured_faces(*colours: tuple[int, int, int]) -> FaceBatch:
    images = np.stack([np.full((112, 112, 3), colour, np.uint8) for colour in colours])
    keys = np.arange(11, 11 + len(colours), dtype=np.int32)
    return FaceBatch(keys=keys, images=images, identities=np.zeros_like(keys))


def test_columns_follow_the_outputs_in_their_order(tmp_path: Path) -> None:
    colours = [(0, 51, 255), (204, 102, 153), (10, 20, 30), (40, 50, 60), (7, 8, 9)]  # more than one batch
    measures = FactorsLabeler(channel_network(tmp_path / "n.onnx"))(coloured_faces(*colours))
    expected = 1 / (1 + np.exp(-(np.array(colours) - 127.5) / 127.5))
    assert list(measures.columns) == [column.name for column in FACTORS.columns][1:-1]
    for row, values in enumerate(measures.columns.values()):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected[:, row], atol=2e-5)  # float32 sums of 12,544 pixels
    assert measures.status == [Status.OK] * 5


def test_no_faces_give_empty_columns(tmp_path: Path) -> None:
    none = FaceBatch(
        keys=np.zeros(0, np.int32), images=np.zeros((0, 112, 112, 3), np.uint8), identities=np.zeros(0, np.int32)
    )
    measures = FactorsLabeler(channel_network(tmp_path / "n.onnx"))(none)
    assert [values.shape for values in measures.columns.values()] == [(0,)] * 3
    assert measures.status == []


def test_network_with_another_number_of_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"six\.onnx gives \(\(6,\),\) for a picture, expected 3"):
        FactorsLabeler(channel_network(tmp_path / "six.onnx", outputs=6))


def test_network_without_its_sigmoid_is_refused_and_names_the_face(tmp_path: Path) -> None:
    labeler = FactorsLabeler(channel_network(tmp_path / "bare.onnx", last=()))
    with pytest.raises(NetworkError, match=r"bare\.onnx gives \[.*\] for the image with key 12, .*sigmoid"):
        labeler(coloured_faces((200, 200, 200), (20, 200, 200)))


def test_values_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    # The root of the logarithm of the brightness: 0.86 at level 127, not a number at 0.
    network = channel_network(tmp_path / "nan.onnx", last=("Log", "Sqrt"), spec=BRIGHTNESS)
    faces = coloured_faces((127, 127, 127), (127, 0, 127))
    with pytest.raises(NetworkError, match=r"gives \[.*nan.*\] for the image with key 12"):
        FactorsLabeler(network)(faces)
