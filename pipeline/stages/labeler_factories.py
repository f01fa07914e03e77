"""Opens a labeler in the process that will use it: hashable descriptions travel, models do not."""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from labelers.runtime.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from data_manifests.weights.entry import ModelEntry
    from labelers.labeler import Labeler
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
        from labelers.opening import open_labeler  # noqa: PLC0415 - the process that plans loads no model library

        return open_labeler(self.entry, self.device, self.precision, **dict(self.settings))


def for_stage(stage: PixelStage, settings: Settings, models: Mapping[str, ModelEntry]) -> LabelerFactory:
    """The factory of a stage that reads pixels.

    Args:
        stage: whose labeler is opened.
        settings: the settings of the run.
        models: role -> network.
    """
    chosen = tuple((name, getattr(settings, name)) for name in stage.settings)
    if not stage.role:
        return PlainLabelerFactory(labeler=stage.labeler, settings=chosen)
    return ModelLabelerFactory(
        entry=models[stage.role],
        device=settings.device_of(stage.name),
        precision=settings.precision_of(stage.name),
        settings=chosen,
    )
