"""Which stages have another output when a setting has another value: found by computing fingerprints with both."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from data_manifests.manifest import Centres
from data_manifests.weights.registry import SHIPPED, read_entries
from labelers.rules import LabelSettings
from pipeline.config import settings
from pipeline.config.catalogue import Inputs, build_stages
from pipeline.config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import luigi

    from data_manifests.weights.entry import ModelEntry


def stale_stages(section: type[luigi.Config], name: str) -> list[str] | None:
    """The stages whose fingerprint changes with a setting; None for the choice of the data set."""
    if section is settings.dataset:
        return None
    models = others = _models()
    with_head = {"centres": Centres.HEAD, "head": Path("one.npy")}
    before = Settings(labels=LabelSettings.model_validate({}), **(with_head if name == "head" else {}))
    after = before.model_copy(update={name: "another"} if name in Settings.model_fields else {})
    if section is settings.models and name in models:
        others = models | {name: _other(models[name])}
    elif name == "recipe":
        after = Settings(labels=LabelSettings.model_validate({"recipe": "robust"}))
    elif section is settings.labels:
        after = before.model_copy(update={"labels": before.labels.model_copy(update={name: "another"})})
    elif name == "centres":
        after = before.model_copy(update=with_head)
    old, new = _fingerprints(before, models), _fingerprints(after, others)
    return [stage for stage in old if old[stage] != new[stage]]


def _models() -> dict[str, ModelEntry]:
    """The network of every role."""
    entries = read_entries(SHIPPED)
    return {
        "pose": entries["face_landmarker"],
        "factors": entries["factors_mini"],
        "recognition": entries["fr_feature"],
    }


def _other(entry: ModelEntry) -> ModelEntry:
    """Another network."""
    return entry.model_copy(update={"name": f"another_{entry.name}"})


def _fingerprints(chosen: Settings, models: Mapping[str, ModelEntry]) -> dict[str, str]:
    """The fingerprint of every stage of some data set."""
    hashes = {entry.name: tuple(file.sha256 or "" for file in entry.files) for entry in models.values()}
    inputs = Inputs(
        data="some",
        layout="recordio",
        limit=0,
        settings=chosen,
        models=models,
        hashes=hashes,
        head=str(chosen.head),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pydantic notices the word that stands for another value
        return {name: spec.fingerprint for name, spec in build_stages(inputs).items()}
