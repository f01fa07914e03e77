"""A module as an ONNX file that holds nothing about the machine it was made on."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING

import onnx
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

INPUT = "images"
OPSET = 18
TOLERANCE = 1e-4
"""How far an output may lie from PyTorch's."""


class Note(StrEnum):
    """What an exported quality model tells of itself in its metadata."""

    SCORE = "score"
    """The `Score` that it gives."""
    TOWER = "tower"
    RUN = "run"
    """The fingerprint of the training."""
    MODEL = "model_sha256"
    """The SHA-256 of the file that was exported."""


class ExportError(RuntimeError):
    """The ONNX file does not give what the network gives."""


def encode_onnx(
    module: nn.Module, example: Tensor, outputs: Sequence[str], name: str, notes: Mapping[str, str] | None = None
) -> bytes:
    """Export a module with one input, `images`, whose first dimension stays free.

    Args:
        module: in evaluation mode, on the CPU.
        example: an input of two rows or more.
        outputs: names of the outputs.
        name: of the graph.
        notes: what the file's metadata tells of it.

    Returns:
        The ONNX model; the same weights and notes give the same bytes.

    Raises:
        ExportError: if the exporter gives nothing.
    """
    for teller in ("onnx_ir", "onnxscript"):  # each step of their optimisers
        logging.getLogger(teller).setLevel(logging.WARNING)
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
    if program is None:
        raise ExportError("PyTorch's exporter gave nothing: check that onnxscript is installed")
    proto = program.model_proto
    _strip(proto, name)
    onnx.helper.set_model_props(proto, dict(sorted((notes or {}).items())))
    onnx.checker.check_model(proto, full_check=True)
    encoded: bytes = proto.SerializeToString(deterministic=True)
    return encoded


def _strip(proto: onnx.ModelProto, name: str) -> None:
    """Remove what the exporter notes about where the code lies: it differs from machine to machine."""
    graph = proto.graph
    holders = [proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for holder in holders:
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
    graph.name = name
