"""Recognition embeddings of real faces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from data_manifests.recordio.record_file import RecordFile
from data_manifests.tables.stages import Status
from data_manifests.weights.files import WeightsMissingError, find
from data_manifests.weights.registry import load_registry
from labelers.faces import FaceBatch, decode_batch
from labelers.recognition import EmbeddingLabeler
from labelers.runtime.onnx import Colour, Device, InputSpec, Network, NetworkError, open_network

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = InputSpec(width=112, height=112, colour=Colour.RGB, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def open_fr_feature(batch: int) -> Network:
    entry = load_registry().get("fr_feature")
    try:
        (path,) = find(entry)
    except WeightsMissingError as error:
        pytest.skip(str(error))
    assert entry.input is not None
    given = entry.input
    spec = InputSpec(
        width=given.width, height=given.height, colour=Colour(given.colour), mean=given.mean, std=given.std
    )
    return open_network(path, input=spec, batch=batch, device=Device.CPU)


@pytest.fixture(scope="module")
def people(real_data: Path) -> FaceBatch:
    """Forty people, three images of each."""
    with RecordFile(real_data / "data" / "lfw112_natural" / "train.rec") as file:
        several = [(person, keys) for person, keys in file.identities.items() if len(keys) >= 3][:40]
        keys = [key for _, own in several for key in own[:3]]
        encoded = [file.read(key)[1] for key in keys]
    identities = np.repeat(np.array([person for person, _ in several], np.int32), 3)
    return decode_batch(np.array(keys, np.int32), identities, encoded)[0]


def constant_network(path: Path, bias: np.ndarray) -> Network:
    """A network that gives `bias` plus the mean of the picture's first channel."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["m", "one"], ["c"]),
        helper.make_node("Mul", ["c", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", bias.size])],
        [numpy_helper.from_array(bias[None], "bias"), numpy_helper.from_array(np.array([1], np.int64), "one")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return open_network(path, input=PLAIN, batch=2, device=Device.CPU)


def flat_faces(*levels: int) -> FaceBatch:
    images = np.stack([np.full((112, 112, 3), level, np.uint8) for level in levels])
    keys = np.arange(1, len(levels) + 1, dtype=np.int32)
    return FaceBatch(keys=keys, images=images, identities=keys)


def test_people_look_like_themselves(people: FaceBatch) -> None:
    measures = EmbeddingLabeler(open_fr_feature(32))(people)
    embedding, norm = measures.columns["embedding"], measures.columns["norm"]
    assert embedding.dtype == np.float16
    assert embedding.shape == (120, 512)
    assert norm.dtype == np.float32
    assert (norm > 1).all()
    assert set(measures.status) == {Status.OK}
    units = embedding.astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1.0, atol=1e-3)
    similarity = units @ units.T
    same = people.identities[:, None] == people.identities[None]
    genuine, impostor = similarity[same & ~np.eye(120, dtype=bool)], similarity[~same]
    # data/README.md: the threshold for FMR 1e-3 is 0.342, and FNMR is 0.0026 there.
    assert np.median(genuine) > 0.5
    assert np.quantile(impostor, 0.999) < np.quantile(genuine, 0.02)


def test_batches_of_one_and_many_agree(people: FaceBatch) -> None:
    few = FaceBatch(keys=people.keys[:11], images=people.images[:11], identities=people.identities[:11])
    many, one = (EmbeddingLabeler(open_fr_feature(batch))(few).columns for batch in (8, 1))
    np.testing.assert_allclose(one["norm"], many["norm"], rtol=1e-4)
    np.testing.assert_allclose(one["embedding"].astype(float), many["embedding"].astype(float), atol=2e-4)


def test_the_mirror_image_is_added_before_the_length_is_taken(people: FaceBatch) -> None:
    few = FaceBatch(keys=people.keys[:9], images=people.images[:9], identities=people.identities[:9])
    mirrored = FaceBatch(keys=few.keys, images=few.images[:, :, ::-1], identities=few.identities)
    network = open_fr_feature(8)
    plain, turned, both = (
        EmbeddingLabeler(network, flip=flip)(faces).columns
        for faces, flip in ((few, False), (mirrored, False), (few, True))
    )
    vectors = [columns["embedding"].astype(np.float64) * columns["norm"][:, None] for columns in (plain, turned)]
    np.testing.assert_allclose(both["norm"], np.linalg.norm(sum(vectors), axis=1), rtol=1e-3)
    units = sum(vectors) / np.linalg.norm(sum(vectors), axis=1, keepdims=True)
    np.testing.assert_allclose(both["embedding"].astype(np.float64), units, atol=1e-3)
    assert np.abs(plain["embedding"].astype(float) - turned["embedding"].astype(float)).max() > 1e-2


def test_unit_length_and_norm_by_hand(tmp_path: Path) -> None:
    labeler = EmbeddingLabeler(constant_network(tmp_path / "n.onnx", np.array([3.0, -4.0], np.float32)))
    measures = labeler(flat_faces(2, 10, 1))
    np.testing.assert_allclose(measures.columns["norm"], [10.0, 50.0, 5.0], rtol=1e-6)
    np.testing.assert_allclose(measures.columns["embedding"], np.tile([0.6, -0.8], (3, 1)), atol=1e-3)


def test_a_vector_without_direction_is_no_embedding(tmp_path: Path) -> None:
    labeler = EmbeddingLabeler(constant_network(tmp_path / "n.onnx", np.array([3.0, -4.0], np.float32)))
    measures = labeler(flat_faces(0, 10))
    assert measures.status == [Status.NO_FACE, Status.OK]
    assert np.isnan(measures.columns["embedding"][0]).all()
    assert np.isnan(measures.columns["norm"][0])
    assert np.isfinite(measures.columns["embedding"][1]).all()


def two_outputs(path: Path, order: tuple[int, int] = (0, 1)) -> Network:
    """The unit vector (0.6, -0.8) and 5 times the mean of the picture's first channel; 0 / 0 where that is 0."""
    nodes = [
        helper.make_node("Slice", ["x", "first", "second", "channel"], ["red"]),
        helper.make_node("ReduceMean", ["red"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["m", "bias"], ["v"]),
        helper.make_node("ReduceL2", ["v"], ["n"], axes=[1], keepdims=1),
        helper.make_node("Div", ["v", "n"], ["u"]),
    ]
    outputs = [
        helper.make_tensor_value_info("u", TensorProto.FLOAT, ["n", 2]),
        helper.make_tensor_value_info("n", TensorProto.FLOAT, ["n", 1]),
    ]
    weights = {"bias": np.array([[3, -4]], np.float32), "first": np.array([0]), "second": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [outputs[place] for place in order],
        [numpy_helper.from_array(array, name) for name, array in (weights | {"channel": np.array([1])}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return open_network(path, input=PLAIN, batch=2, device=Device.CPU)


def test_the_norm_that_a_network_gives(tmp_path: Path) -> None:
    labeler = EmbeddingLabeler(two_outputs(tmp_path / "n.onnx"), dimension=2, norm=True)
    measures = labeler(flat_faces(2, 0, 10))
    np.testing.assert_allclose(measures.columns["norm"], [10.0, np.nan, 50.0], rtol=1e-6)
    np.testing.assert_allclose(measures.columns["embedding"][[0, 2]], np.tile([0.6, -0.8], (2, 1)), atol=1e-3)
    assert np.isnan(measures.columns["embedding"][1]).all()
    assert measures.status == [Status.OK, Status.NO_FACE, Status.OK]


def test_mirror_images_are_added_at_the_length_that_the_network_says(tmp_path: Path) -> None:
    labeler = EmbeddingLabeler(two_outputs(tmp_path / "n.onnx"), dimension=2, norm=True, flip=True)
    measures = labeler(flat_faces(2, 0, 10))
    np.testing.assert_allclose(measures.columns["norm"], [20.0, np.nan, 100.0], rtol=1e-6)
    np.testing.assert_allclose(measures.columns["embedding"][[0, 2]], np.tile([0.6, -0.8], (2, 1)), atol=1e-3)
    assert measures.status == [Status.OK, Status.NO_FACE, Status.OK]


def test_outputs_that_the_entry_does_not_say_are_refused(tmp_path: Path) -> None:
    one = constant_network(tmp_path / "one.onnx", np.array([3.0, -4.0], np.float32))
    two = two_outputs(tmp_path / "two.onnx")
    with pytest.raises(NetworkError, match=r"two\.onnx .*expected one vector; .* \{ \.\.\., norm = true \}"):
        EmbeddingLabeler(two)
    with pytest.raises(NetworkError, match=r"one\.onnx .*expected one vector of 2 values and its length: is it"):
        EmbeddingLabeler(one, dimension=2, norm=True)
    with pytest.raises(NetworkError, match=r"two\.onnx .*expected one vector of 512 values and its length: is it"):
        EmbeddingLabeler(two, dimension=512, norm=True)
    with pytest.raises(NetworkError, match=r"one\.onnx .*expected one vector of 3 values"):
        EmbeddingLabeler(one, dimension=3)
    turned = two_outputs(tmp_path / "turned.onnx", (1, 0))
    with pytest.raises(NetworkError, match=r"turned\.onnx gives \(\(1,\), \(2,\)\)"):
        EmbeddingLabeler(turned, dimension=2, norm=True)


def test_an_overflow_names_the_face(tmp_path: Path) -> None:
    labeler = EmbeddingLabeler(constant_network(tmp_path / "n.onnx", np.array([2e36, 1.0], np.float32)))
    with pytest.raises(NetworkError, match=r"n\.onnx.*key 2"):
        labeler(flat_faces(10, 255))


def test_a_network_with_another_output_is_refused(real_data: Path) -> None:
    yunet = InputSpec(width=320, height=320, colour=Colour.BGR, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    path = real_data / "models" / "yunet_n_320_320.onnx"
    with pytest.raises(NetworkError, match="one vector"):
        EmbeddingLabeler(open_network(path, input=yunet, batch=1, device=Device.CPU))
