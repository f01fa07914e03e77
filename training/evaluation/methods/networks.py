"""Finds the files of a network that gives a quality, without loading it: what is planned with has to stay quick."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "model.safetensors"
"""The result of a training, in its folder (training.trainer.run_folder)."""
SCORER = "quality.onnx"
"""What gives the quality where the result is a recogniser, likewise."""
CHECKPOINTS = "checkpoints"
"""What lies in the folder of a training that has begun."""
WEIGHTS = (".safetensors", ".pt", ".pth")

EXPORTED_INPUT = "images"
"""The input of a network that training.export wrote: uint8 [N, 112, 112, 3], RGB."""
EXPORTED_OUTPUT = "quality"
"""Its output that is the score."""


FACE = (3, 112, 112)
"""The shape of a face that a foreign network takes."""


class NetworkKind(StrEnum):
    """How a network is opened."""

    TRAINED = "trained"
    """A model of this project, in PyTorch."""
    EXPORTED = "exported"
    """A model of this project that training.export wrote as ONNX."""
    FOREIGN = "foreign"
    """Another network in ONNX, which takes faces as CR-FIQA's do."""


class QualityNetworkError(ValueError):
    """There is no network, or none that gives a quality; names the file and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityNetwork:
    """A network that gives a quality.

    Attributes:
        kind: how it is opened.
        files: the network, then files that hold more of its weights.
    """

    kind: NetworkKind
    files: tuple[Path, ...]


def find_network(path: Path) -> QualityNetwork:
    """Find the files of a network.

    Args:
        path: the folder of a finished training, a file of weights as training.score takes it, or an ONNX file.

    Raises:
        QualityNetworkError: if there is none, or if an ONNX file neither is one of training.export nor takes floats.
    """
    if path.is_dir() and (path / MODEL).is_file() and (path / SCORER).is_file():
        return _describe_onnx(path / SCORER)
    if path.is_dir():
        return QualityNetwork(kind=NetworkKind.TRAINED, files=(_find_result(path),))
    if not path.is_file():
        raise QualityNetworkError(f"{path}: no such file or folder: name the folder of a training, or a file")
    if path.suffix == ".onnx":
        return _describe_onnx(path)
    if path.suffix not in WEIGHTS:
        raise QualityNetworkError(
            f"{path}: is no kind of network that is known: give a training's folder, or a file that ends in .onnx, "
            f"{', '.join(WEIGHTS)}"
        )
    return QualityNetwork(kind=NetworkKind.TRAINED, files=(path,))


def _find_result(folder: Path) -> Path:
    """The result of a training."""
    if (folder / MODEL).is_file():
        return folder / MODEL
    if (folder / CHECKPOINTS).is_dir():
        raise QualityNetworkError(
            f"{folder}: this training is not finished, there is no {MODEL} yet: start it again with the same words, "
            "and it goes on"
        )
    raise QualityNetworkError(f"{folder}: holds no {MODEL}: name the folder of a finished training, or a file")


def _describe_onnx(path: Path) -> QualityNetwork:
    """What an ONNX file takes, and where its weights lie."""
    import onnx  # noqa: PLC0415 - only an evaluation of such a file needs it
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise QualityNetworkError(f"{path} is no ONNX network ({error}): is it whole?") from None
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or not graph.output:
        raise QualityNetworkError(f"{path} has {len(inputs)} inputs: a network of one input, a face, is needed")
    kinds = {int(onnx.TensorProto.UINT8): NetworkKind.EXPORTED, int(onnx.TensorProto.FLOAT): NetworkKind.FOREIGN}
    found = int(inputs[0].type.tensor_type.elem_type)
    if found not in kinds:
        name = onnx.TensorProto.DataType.Name(found)
        raise QualityNetworkError(
            f"{path} takes {name}: a network of float32 [N, 3, 112, 112], or one of training.export, is needed"
        )
    outputs = [output.name for output in graph.output]
    if kinds[found] is NetworkKind.FOREIGN:
        _check_shape(path, [dimension.dim_value for dimension in inputs[0].type.tensor_type.shape.dim])
    elif inputs[0].name != EXPORTED_INPUT or EXPORTED_OUTPUT not in outputs:
        raise QualityNetworkError(
            f"{path} takes bytes but training.export did not write it: export the model again, or export your own with "
            "an input of float32"
        )
    return QualityNetwork(kind=kinds[found], files=(path, *_find_external(path, graph)))


def _check_shape(path: Path, found: list[int]) -> None:
    """A foreign network takes aligned faces; a dimension of 0 is free."""
    if len(found) != 4 or any(size not in (0, wanted) for size, wanted in zip(found[1:], FACE, strict=True)):
        raise QualityNetworkError(
            f"{path} takes float32 {found}: one that takes [N, {', '.join(map(str, FACE))}] is needed; where yours "
            "takes another size, score the images yourself and give a table"
        )


def _find_external(path: Path, graph: Any) -> list[Path]:
    """The files beside an ONNX file that hold its weights, sorted."""
    names = set[str]()
    for weight in graph.initializer:
        names |= {entry.value for entry in weight.external_data if entry.key == "location"}
    files = [path.parent / name for name in sorted(names)]
    for file in files:
        if not file.resolve().is_relative_to(path.parent.resolve()):
            raise QualityNetworkError(f"{path} keeps weights in {file}, outside its own folder: save it as one file")
        if not file.is_file():
            raise QualityNetworkError(f"{path} keeps weights in {file.name}, which is not beside it: put it there")
    return files
