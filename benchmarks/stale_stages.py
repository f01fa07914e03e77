"""Which stages have another output when a setting has another value: found by computing fingerprints with both."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_manifests.manifest import Anchor, Centres
from data_manifests.recipes import Recipe
from data_manifests.weights.registry import SHIPPED, read_entries
from pipeline.config import settings as sections
from pipeline.config.catalogue import Inputs, build_stages
from pipeline.config.settings import BlurSource, LabelSettings, MissingPose, Normalise, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import luigi

    from data_manifests.weights.entry import Entry


def stale_stages(section: type[luigi.Config], name: str) -> list[str] | None:
    """The stages whose fingerprint changes with a setting; None for the choice of the data set."""
    if section is sections.dataset:
        return None
    before, models = _settings_with({}), _models()
    after, others = before, models
    if section is sections.models and name in models:
        others = {role: _other(entry) if role == name else entry for role, entry in models.items()}
    elif section is sections.labels:
        after = _settings_with({"labels": before.labels.model_copy(update={name: "another"})})
    elif name == "head":
        before, after = (
            _settings_with({"centres": Centres.HEAD, "head": Path(file)}) for file in ("one.npy", "two.npy")
        )
    elif name == "centres":
        after = _settings_with({"centres": Centres.HEAD, "head": Path("one.npy")})
    elif name in Settings.model_fields:
        after = _settings_with({name: "another"})
    old, new = _fingerprints(before, models), _fingerprints(after, others)
    return [stage for stage in old if old[stage] != new[stage]]


def _settings_with(update: Mapping[str, Any]) -> Settings:
    """The settings of the recipe `paper` with some changed, unchecked."""
    labels = LabelSettings(
        recipe=Recipe.PAPER, blur_source=BlurSource.CPBD, blur_hazy=0.35, blur_clear=0.7, yaw_frontal=10,
        yaw_profile=25, worse_probability=0.5, missing_pose=MissingPose.NULL, anchor=Anchor.CERTAINTY_RATIO,
        normalise=Normalise.MINMAX,
    )  # fmt: skip
    settings = Settings(
        recognition_model="", pose_model="", factors_model="", edges="matlab", blocks="reference",
        centres=Centres.MEAN, head=None, labels=labels, device="cpu",
    )  # fmt: skip
    return settings.model_copy(update=update)


def _models() -> dict[str, Entry]:
    """The network of every role."""
    entries = read_entries(SHIPPED)
    return {
        "pose": entries["face_landmarker"],
        "factors": entries["factors_mini"],
        "recognition": entries["fr_feature"],
    }


def _other(entry: Entry) -> Entry:
    """Another network."""
    return entry.model_copy(update={"name": f"another_{entry.name}"})


def _fingerprints(settings: Settings, models: Mapping[str, Entry]) -> dict[str, str]:
    """The fingerprint of every stage of some data set."""
    hashes = {entry.name: tuple(file.sha256 or "" for file in entry.files) for entry in models.values()}
    inputs = Inputs(
        data="some",
        layout="recordio",
        limit=0,
        settings=settings,
        models=models,
        hashes=hashes,
        head=str(settings.head),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pydantic notices the word that stands for another value
        return {name: spec.fingerprint for name, spec in build_stages(inputs).items()}
