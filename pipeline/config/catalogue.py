"""What depends on what: the stages of a data set under given settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_manifests.manifest import Centres
from data_manifests.weights.entry import MatrixOutput
from labelers.runtime.precision import Precision
from labelers.versions import VERSIONS
from pipeline.config.pixel_stages import CARRIED, PIXEL_STAGES
from pipeline.storage.fingerprint import StageSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from data_manifests.weights.entry import ModelEntry
    from pipeline.config.pixel_stages import PixelStage
    from pipeline.config.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a data set's stages are made from.

    Attributes:
        data: digest of the data set's identity.
        layout: how the data set is read, where that decides which image has which key.
        limit: label the first images only; 0 for all.
        settings: the settings of the run.
        models: role (pose, factors, recognition) -> entry of models.toml.
        hashes: model -> SHA-256 of its files.
        head: SHA-256 of the file of the class centres; empty for centres = mean.
    """

    data: str
    layout: str
    limit: int
    settings: Settings
    models: Mapping[str, ModelEntry]
    hashes: Mapping[str, tuple[str, ...]]
    head: str = ""


def build_stages(inputs: Inputs) -> dict[str, StageSpec]:
    """Every stage by its name, upstream first."""
    settings = inputs.settings
    index = StageSpec(
        name="index",
        version=VERSIONS["index"].number,
        data=inputs.data,
        parameters={"layout": inputs.layout, "limit": inputs.limit},
    )
    stages = {"index": index} | {stage.name: _pixel_stage(stage, inputs, index) for stage in PIXEL_STAGES}
    embeddings = stages["embeddings"]
    centres = _centres(inputs, index, embeddings)
    anchors = _derived("anchors", inputs, index, embeddings, centres, centres=settings.centres.value)
    anchor_range = _derived("anchor_range", inputs, anchors)
    stages |= {spec.name: spec for spec in (centres, anchors, anchor_range)}
    read = (index, *(stages[name] for name in CARRIED), anchor_range)
    return stages | {"labels": _derived("labels", inputs, *read, **settings.labels.model_dump(mode="json"))}


def _pixel_stage(stage: PixelStage, inputs: Inputs, index: StageSpec) -> StageSpec:
    """A stage that reads pixels, by a labeler with its settings or through a network."""
    chosen = {name: value for name in stage.settings if (value := getattr(inputs.settings, name))}
    if not stage.role:
        return _derived(stage.name, inputs, index, **chosen)
    entry = inputs.models[stage.role]
    # The batch stays the same on every machine because results depend on it in the last digits.
    parameters: dict[str, str | int] = {"model": entry.name, "entry": entry.version, "batch": entry.batch}
    precision = inputs.settings.precision_of(stage.name)
    if precision is not Precision.FLOAT32 and not isinstance(entry.output, MatrixOutput):
        parameters["precision"] = precision  # MediaPipe's FaceLandmarker knows none
    parameters |= chosen
    return StageSpec(
        name=stage.name,
        version=VERSIONS[stage.name].number,
        data=inputs.data,
        parameters=parameters,
        weights={entry.name: inputs.hashes[entry.name]},
        upstream=(index,),
    )


def _centres(inputs: Inputs, index: StageSpec, embeddings: StageSpec) -> StageSpec:
    """Class centres: means of the embeddings, or a file."""
    if inputs.settings.centres is Centres.MEAN:
        return _derived("centres", inputs, index, embeddings, centres="mean")
    return StageSpec(
        name="centres",
        version=VERSIONS["centres"].number,
        data=inputs.data,
        parameters={"centres": "head", **_head_choice(inputs.settings)},
        weights={"head": (inputs.head,)},
        upstream=(index, embeddings),
    )


def _head_choice(settings: Settings) -> dict[str, str]:
    """Which matrix of the file is the head, where that is said."""
    choice = {"tensor": settings.head_tensor, "layout": settings.head_layout}
    return {name: str(value) for name, value in choice.items() if value}


def _derived(stage: str, inputs: Inputs, *upstream: StageSpec, **parameters: str | float) -> StageSpec:
    """A stage that is made without weights."""
    version = VERSIONS[stage].number
    return StageSpec(name=stage, version=version, data=inputs.data, parameters=parameters, upstream=upstream)
