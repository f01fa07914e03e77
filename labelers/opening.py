"""Opens the labeler of a network of models.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_manifests.weights.entry import (
    AnglesOutput,
    BinsOutput,
    EmbeddingOutput,
    Kind,
    MeshOutput,
    ModelEntry,
    ProbabilitiesOutput,
)
from data_manifests.weights.files import find
from labelers.runtime.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

    from labelers.labeler import Labeler
    from labelers.runtime.onnx import Network

# Every import of a labeler stands inside a function: who asks for one network loads no other library.


def open_labeler(
    entry: ModelEntry, device: str = "cpu", precision: Precision = Precision.FLOAT32, **settings: str | float
) -> Labeler:
    """Find the verified weights of a network, load it, and make its labeler.

    Args:
        entry: of models.toml.
        device: cpu or cuda.
        precision: in what numbers it computes.
        settings: what else the labeler is made with.

    Raises:
        WeightsError: if the files are not there, or others than the entry says.
        NetworkError, ProviderError: if the network cannot be run so.
    """
    return _OPENERS[entry.kind](entry, find(entry), device, precision, **settings)


def read_models(entry: ModelEntry) -> list[tuple[Path, onnx.ModelProto]]:
    """The ONNX networks of an entry as they run on the processor, with their files; none where MediaPipe runs them.

    Raises:
        WeightsError: if the files are not at hand, or others than the entry says.
    """
    from labelers.pose.face_mesh import read_network  # noqa: PLC0415
    from labelers.runtime.onnx import Device, read_model  # noqa: PLC0415

    paths = find(entry)
    if entry.kind is not Kind.LANDMARKS:
        return [(path, read_model(path)) for path in paths]
    return [(paths[0], read_network(paths[0], device=Device.CPU))] if isinstance(entry.output, MeshOutput) else []


def _networks(entry: ModelEntry, paths: tuple[Path, ...], device: str, precision: Precision) -> list[Network]:
    """The ONNX sessions of an entry."""
    from labelers.runtime.entry_input import input_spec  # noqa: PLC0415
    from labelers.runtime.onnx import Device, open_network  # noqa: PLC0415

    spec = input_spec(entry)
    return [
        open_network(path, input=spec, batch=entry.batch, device=Device(device), precision=precision) for path in paths
    ]


def _open_landmarks(entry: ModelEntry, paths: tuple[Path, ...], device: str, precision: Precision) -> Labeler:
    """MediaPipe's networks: the face mesh alone, or FaceLandmarker, on the processor and in float32 always."""
    if isinstance(entry.output, MeshOutput):
        from labelers.pose.face_mesh import open_face_mesh  # noqa: PLC0415
        from labelers.runtime.entry_input import input_spec  # noqa: PLC0415
        from labelers.runtime.onnx import Device  # noqa: PLC0415

        spec = input_spec(entry)
        return open_face_mesh(paths[0], input=spec, batch=entry.batch, device=Device(device), precision=precision)
    from labelers.pose.labeler import LandmarkerPose  # noqa: PLC0415

    return LandmarkerPose(paths[0])


def _open_pose(entry: ModelEntry, paths: tuple[Path, ...], device: str, precision: Precision) -> Labeler:
    """A pose network, by what it gives."""
    from labelers.pose.labeler import AnglesPose, BinsPose  # noqa: PLC0415

    networks = _networks(entry, paths, device, precision)
    output = entry.output
    if isinstance(output, BinsOutput):
        return BinsPose(networks[0], signs=output.signs, width_deg=output.width_deg, offset_deg=output.offset_deg)
    if isinstance(output, AnglesOutput):
        return AnglesPose(networks, signs=output.signs)
    raise ValueError(f"{entry.name} gives {output.kind}, from which no pose labeler reads angles")


def _open_factors(entry: ModelEntry, paths: tuple[Path, ...], device: str, precision: Precision) -> Labeler:
    """The network of occlusion, expression and lighting."""
    from labelers.factors import FactorsLabeler  # noqa: PLC0415

    if isinstance(entry.output, ProbabilitiesOutput) and entry.output.activation == "none":
        return FactorsLabeler(_networks(entry, paths, device, precision)[0], columns=entry.output.columns)
    raise ValueError(
        f"{entry.name}: a factor network has to give probabilities itself (`activation` = none), so that they are "
        "read the same everywhere: export it with its sigmoid"
    )


def _open_recognition(
    entry: ModelEntry, paths: tuple[Path, ...], device: str, precision: Precision, *, flip: bool = False
) -> Labeler:
    """A recogniser."""
    from labelers.recognition import EmbeddingLabeler  # noqa: PLC0415

    assert isinstance(entry.output, EmbeddingOutput)
    network = _networks(entry, paths, device, precision)[0]
    return EmbeddingLabeler(network, dimension=entry.output.dimension, norm=entry.output.norm, flip=flip)


_OPENERS: dict[Kind, Callable[..., Labeler]] = {
    Kind.LANDMARKS: _open_landmarks,
    Kind.POSE: _open_pose,
    Kind.FACTORS: _open_factors,
    Kind.RECOGNITION: _open_recognition,
}
