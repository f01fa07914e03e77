"""What depends on what: the stages of a data set under given settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_manifests.manifest import Centres
from labelers.versions import VERSIONS
from pipeline.fingerprint import StageSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from data_manifests.network import Entry
    from pipeline.settings import Settings

PER_IMAGE = ("blur", "pose", "factors", "embeddings")
"""Stages that read pixels."""


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
    models: Mapping[str, Entry]
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
    blur = _measure("blur", inputs, index, edges=settings.edges, blocks=settings.blocks)
    pose = _network("pose", inputs, index, inputs.models["pose"])
    factors = _network("factors", inputs, index, inputs.models["factors"])
    embeddings = _network("embeddings", inputs, index, inputs.models["recognition"])
    centres = _centres(inputs, index, embeddings)
    anchors = _derived("anchors", inputs, index, embeddings, centres, centres=settings.centres.value)
    anchor_range = _derived("anchor_range", inputs, anchors)
    measures = (index, blur, pose, factors, embeddings, anchors, anchor_range)
    labels = _derived("labels", inputs, *measures, **settings.labels.model_dump(mode="json"))
    stages = (index, blur, pose, factors, embeddings, centres, anchors, anchor_range, labels)
    return {spec.name: spec for spec in stages}


def _measure(stage: str, inputs: Inputs, index: StageSpec, **parameters: str) -> StageSpec:
    """A stage that reads pixels and needs no weights."""
    version = VERSIONS[stage].number
    return StageSpec(name=stage, version=version, data=inputs.data, parameters=parameters, upstream=(index,))


def _network(stage: str, inputs: Inputs, index: StageSpec, entry: Entry) -> StageSpec:
    """A stage that reads pixels through a network."""
    return StageSpec(
        name=stage,
        version=VERSIONS[stage].number,
        data=inputs.data,
        # The batch stays the same on every machine because results depend on it in the last digits.
        parameters={"model": entry.name, "entry": entry.version, "batch": entry.batch},
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
        parameters={"centres": "head"},
        weights={"head": (inputs.head,)},
        upstream=(index, embeddings),
    )


def _derived(stage: str, inputs: Inputs, *upstream: StageSpec, **parameters: str | float) -> StageSpec:
    """A stage made from tables alone."""
    version = VERSIONS[stage].number
    return StageSpec(name=stage, version=version, data=inputs.data, parameters=parameters, upstream=upstream)
