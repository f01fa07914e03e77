"""Opens a labeler in the process that will use it: hashable descriptions travel, models do not."""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
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
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import onnx

    from labelers.labeler import Labeler
    from labelers.runtime.onnx import Network
    from pipeline.config.pixel_stages import PixelStage
    from pipeline.config.settings import Settings
    from pipeline.stages.measure import LabelerFactory

# Every import of a labeler stands inside a function: the process that plans loads no model library.


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainLabelerFactory:
    """Opens a labeler that needs no weights.

    Attributes:
        labeler: `module:class`.
        settings: name and value of what the labeler is made with.
    """

    labeler: str
    settings: tuple[tuple[str, str | float], ...] = ()

    def open(self) -> Labeler:
        """Import the labeler and make it."""
        labeler: Labeler = resolve_name(self.labeler)(**dict(self.settings))
        return labeler


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLabelerFactory:
    """Opens the labeler of a network of models.toml.

    Attributes:
        entry: the network.
        device: cpu or cuda.
        precision: in what numbers it computes.
        settings: name and value of what else the labeler is made with.
    """

    entry: ModelEntry
    device: str
    precision: Precision = Precision.FLOAT32
    settings: tuple[tuple[str, str | float], ...] = ()

    def open(self) -> Labeler:
        """Find the verified weights and load the network."""
        factory = _FACTORIES[self.entry.kind]
        return factory(self.entry, find(self.entry), self.device, self.precision, **dict(self.settings))


def for_stage(stage: PixelStage, settings: Settings, models: Mapping[str, ModelEntry]) -> LabelerFactory:
    """The factory of a stage that reads pixels.

    Args:
        stage: whose labeler is opened.
        settings: the settings of the run.
        models: role -> network.
    """
    chosen = {name: getattr(settings, name) for name in stage.settings}
    if stage.role:
        device, precision = settings.device_of(stage.name), settings.precision_of(stage.name)
        return for_model(models[stage.role], device, precision, **chosen)
    return PlainLabelerFactory(labeler=stage.labeler, settings=tuple(chosen.items()))


def for_model(
    entry: ModelEntry, device: str, precision: Precision = Precision.FLOAT32, **settings: str | float
) -> LabelerFactory:
    """The factory of a network; `settings` are what else its labeler is made with."""
    return ModelLabelerFactory(entry=entry, device=device, precision=precision, settings=tuple(settings.items()))


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


_FACTORIES: dict[Kind, Callable[..., Labeler]] = {
    Kind.LANDMARKS: _open_landmarks,
    Kind.POSE: _open_pose,
    Kind.FACTORS: _open_factors,
    Kind.RECOGNITION: _open_recognition,
}
