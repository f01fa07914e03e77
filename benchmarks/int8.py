"""Networks with int8 weights and values, for benchmarks.precision alone: the factory does not offer them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from data_manifests.storage.atomic import sha256_of
from data_manifests.weights.entry import WeightFile
from data_manifests.weights.files import find
from labelers.runtime.batch_axis import free_batch, network_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from data_manifests.weights.entry import ModelEntry

CALIBRATION_FACES = 128
OPSET = 13
"""The first one in which every channel of a weight can have a scale of its own."""


class Faces(CalibrationDataReader):
    """Faces as a network sees them, one batch after the other."""

    def __init__(self, batches: Iterator[dict[str, NDArray[np.float32]]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch; None at the end."""
        return next(self._batches, None)


def quantise(entry: ModelEntry, faces: NDArray[np.uint8], folder: Path) -> ModelEntry:
    """Write an entry's network in int8 (QDQ, weights by channel, least and largest value), and describe it.

    Args:
        entry: a network of pictures of 112 x 112, in one ONNX file.
        faces: uint8 [N, 112, 112, 3], RGB, by which the range of every value is found.
        folder: one of FIQA_MODELS.
    """
    free, ready, path = (folder / f"{entry.name}_{step}.onnx" for step in ("free", "ready", "int8"))
    model = free_batch(onnx.load(find(entry)[0]))
    if model.opset_import[0].version < OPSET:
        model = onnx.version_converter.convert_version(model, OPSET)
    name = network_inputs(model)[0].name
    onnx.save(model, free)
    quant_pre_process(free, ready, skip_symbolic_shape=True)
    reader = Faces({name: batch} for batch in prepare(entry, faces[:CALIBRATION_FACES]))
    quantize_static(
        ready,
        path,
        reader,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    file = WeightFile(name=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))
    return entry.model_copy(update={"name": f"{entry.name}_int8", "files": (file,)})


def prepare(entry: ModelEntry, faces: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
    """Batches of faces as the network sees them."""
    assert entry.input is not None
    mean, std = np.array(entry.input.mean, np.float32), np.array(entry.input.std, np.float32)
    for start in range(0, len(faces), entry.batch):
        batch = faces[start : start + entry.batch]
        turned = batch[..., ::-1] if entry.input.colour == "bgr" else batch
        yield np.ascontiguousarray(((turned - mean) / std).transpose(0, 3, 1, 2), np.float32)
