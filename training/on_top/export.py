"""A recogniser with the quality on top of it as one ONNX file: pictures in, quality out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.compose
import onnxruntime
from onnx import helper, numpy_helper

from data_manifests.weights.entry import Kind
from data_manifests.weights.files import find, sha256_of_entry
from data_manifests.weights.registry import load_registry
from labelers.faces import SIDE
from labelers.recognition import read_outputs
from labelers.runtime.batch_axis import free_batch
from labelers.runtime.device import Device
from labelers.runtime.entry_input import input_spec
from labelers.runtime.onnx import open_network, read_model
from labelers.runtime.picture_input import PICTURES, take_pictures
from labelers.runtime.prelu import split_prelu
from training.on_top.scorer import OnTopError
from training.scoring.onnx_file import INPUT, TOLERANCE, ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from data_manifests.weights.entry import ModelEntry
    from training.on_top.scorer import OnTopScorer

OUTPUT = "quality"
_SMALLEST = 1e-12
"""Keeps the length of a zero vector, which has no direction, from dividing."""


def find_recogniser(recogniser: Mapping[str, Any]) -> ModelEntry:
    """The recogniser of models.toml that made the embeddings.

    Args:
        recogniser: as `training.on_top.scorer.recogniser_of` gives it.

    Raises:
        OnTopError: if models.toml has another network under its name now, or mirror images were added.
        RegistryError: if it has none of that name.
        WeightsError: if a file of it is not at hand, or has changed.
    """
    name = recogniser["parameters"]["model"]
    if recogniser["parameters"].get("flip"):
        raise OnTopError(
            f"{name}: its embeddings were made with flip = true, and its network alone does not give them: make them "
            "with flip = false of [models]"
        )
    entry = load_registry().get(name, Kind.RECOGNITION)
    found = entry.version, list(sha256_of_entry(entry))
    if found != (recogniser["parameters"]["entry"], list(recogniser["weights"][name])):
        raise OnTopError(
            f"{name}: the network of this name in models.toml is not the one that made the embeddings: name the "
            "folder of its models.toml in FIQA_MODELS, or make the embeddings again"
        )
    if entry.input is None or (entry.input.width, entry.input.height) != (SIDE, SIDE):
        raise OnTopError(f"{name}: takes faces of another size than {SIDE} x {SIDE}, so no file can be made of it")
    return entry


def encode_on_top(scorer: OnTopScorer, entry: ModelEntry, notes: Mapping[str, str]) -> bytes:
    """The recogniser and the quality as one ONNX model, checked against both.

    Args:
        scorer: the quality.
        entry: its recogniser.
        notes: what the file's metadata tells of it.

    Returns:
        `images` uint8 [N, 112, 112, 3], RGB, to `quality` float32 [N, 1], for any N.

    Raises:
        ExportError: if the model does not give what the recogniser and the scorer give, to 1e-4 of the largest quality.
        WeightsError, NetworkError: if the recogniser cannot be used.
    """
    (path,) = find(entry)
    # As the recogniser runs when it labels.
    whole = take_pictures(split_prelu(free_batch(read_model(path))), input_spec(entry))
    model = onnx.compose.add_prefix(whole, f"{entry.name}/")  # its own names may be any, `images` and `quality` too
    graph = model.graph
    _rename(graph, f"{entry.name}/{PICTURES}", INPUT)
    graph.node.extend(_quality_of([value.name for value in graph.output], scorer))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["batch", 1]))
    _drop_unused(graph)
    graph.name = "on_top"
    helper.set_model_props(model, dict(sorted(notes.items())))
    onnx.checker.check_model(model)
    encoded: bytes = model.SerializeToString(deterministic=True)
    check_on_top(encoded, scorer, entry, path)
    return encoded


def check_on_top(encoded: bytes, scorer: OnTopScorer, entry: ModelEntry, path: Path) -> None:
    """Compare an ONNX model with the formula on the recogniser's own embeddings, of noise.

    Raises:
        ExportError: if a quality differs by more than 1e-4 of the largest.
    """
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    network = open_network(path, input=input_spec(entry), batch=entry.batch, device=Device.CPU)
    vectors, lengths, norms = read_outputs(network.run(images), norm=len(network.outputs) > 1)
    wanted = scorer.score(vectors / lengths[:, None], norms)
    session = onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run([OUTPUT], {INPUT: images})[0][:, 0]
    difference = float(np.abs(found - wanted).max()) / max(1.0, float(np.abs(wanted).max()))
    if not difference <= TOLERANCE:
        raise ExportError(f"the ONNX file of {entry.name} differs from the formula by {difference:.2g} of the largest")


def _rename(graph: onnx.GraphProto, before: str, after: str) -> None:
    """Call the pictures as training.export does."""
    for value in graph.input:
        value.name = after if value.name == before else value.name
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == before:
                node.input[place] = after


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove weights that no node reads, of which ONNX Runtime would complain at every opening."""
    read = {name for node in graph.node for name in node.input}
    weights = [weight for weight in graph.initializer if weight.name in read]
    inputs = [value for value in graph.input if value.name in read]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(weights)
    graph.input.extend(inputs)


def _quality_of(outputs: list[str], scorer: OnTopScorer) -> Iterator[onnx.NodeProto]:
    """The nodes from the recogniser's outputs, by name, to the quality [N, 1]: vectors [N, D], maybe norms [N, 1]."""
    vectors, norms = outputs[0], outputs[1] if len(outputs) > 1 else "on_top_length"
    column = scorer.direction[:, None]
    constants = {
        "ones": np.ones_like(column),
        "direction": column,
        "norm": np.array([scorer.norm]),
        "intercept": np.array([scorer.intercept]),
        "smallest": np.array([_SMALLEST]),
    }
    for name, values in constants.items():
        tensor = numpy_helper.from_array(values.astype(np.float32))
        yield helper.make_node("Constant", [], [f"on_top_{name}"], value=tensor)
    steps = (
        ("Mul", vectors, vectors, "on_top_squares"),
        ("MatMul", "on_top_squares", "on_top_ones", "on_top_square"),
        ("MatMul", vectors, "on_top_direction", "on_top_along"),
    )
    for kind, first, second, result in steps:
        yield helper.make_node(kind, [first, second], [result])
    yield helper.make_node("Sqrt", ["on_top_square"], ["on_top_length"])
    sums = (
        ("Add", "on_top_length", "on_top_smallest", "on_top_divisor"),
        ("Div", "on_top_along", "on_top_divisor", "on_top_by_direction"),
        ("Mul", norms, "on_top_norm", "on_top_by_norm"),
        ("Add", "on_top_by_direction", "on_top_by_norm", "on_top_sum"),
        ("Add", "on_top_sum", "on_top_intercept", OUTPUT),
    )
    for kind, first, second, result in sums:
        yield helper.make_node(kind, [first, second], [result])
