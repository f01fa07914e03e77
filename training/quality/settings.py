"""The settings of a quality training by name: each is a key of a recipe file, and an option of every command.

Loads no PyTorch, so that a plan can read them.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, create_model

from data_manifests.recipes import Recipe
from labelers.runtime.device import Device
from training.command_line.settings import flatten, list_fields, read_settings
from training.quality.config import FREE, ModelConfig, Rules, Terms, TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ELSEWHERE = ("model", "rules", "terms", "merged_hidden", "device")
"""Fields that are no setting: what holds others, what nobody changes, and what belongs to a command."""

_BY_MACHINE = ("bf16", "threads")
"""Settings whose default depends on where the training runs."""

_RENAMED = {"batch": "batch_size"}
"""Field -> setting. Luigi takes --batch for a beginning of its own --batch-email-…"""

_FIELDS = {
    part: {_RENAMED.get(field.name, field.name): field.name for field in fields(part) if field.name not in _ELSEWHERE}
    for part in (ModelConfig, Terms, TrainingConfig)
}
"""Setting -> field, of each of the classes that hold them."""

_RULES = tuple(rule.name for rule in fields(Rules))


def _list_settings() -> dict[str, Any]:
    """Name -> type and field of a pydantic model, from the classes that hold the settings and from their texts."""
    rules = f"single rules of the other recipe: {', '.join(_RULES)}"
    found: dict[str, Any] = {
        "recipe": (
            Recipe,
            Field(Recipe.PAPER, description="whose rules: paper (the printed equations) or released (the code)"),
        ),
        "rules": (dict[Literal[_RULES], Recipe], Field({}, description=rules)),  # type: ignore[valid-type]  # made of names
    }
    for part, names in _FIELDS.items():
        found |= list_fields(part, names, unset=_BY_MACHINE)
    return found


QualitySettings = create_model("QualitySettings", __config__=ConfigDict(extra="forbid"), **_list_settings())
"""The settings as a model: name, type, default and text of each."""

SETTINGS = QualitySettings.model_fields


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a file of settings, such as recipes/clib_paper.toml.

    Returns:
        Name -> value, of what the file names.

    Raises:
        TomlFileError: names the file, the key, and what is expected.
    """
    return read_settings(QualitySettings, path)


def make_config(values: Mapping[str, Any], device: Device = Device.CPU) -> TrainingConfig:
    """The training that settings ask for; what they do not name has its default.

    Raises:
        ValueError: if they do not fit together; says why.
    """
    chosen = {name: setting.default for name, setting in SETTINGS.items()} | dict(values)
    rules = replace(Rules.of(chosen["recipe"]), **dict(chosen["rules"]))
    model, terms, own = (
        {field: chosen[name] for name, field in names.items() if chosen[name] is not None} for names in _FIELDS.values()
    )
    own.setdefault("bf16", device is Device.CUDA)
    return TrainingConfig(model=ModelConfig(**model), rules=rules, terms=Terms(**terms), device=device, **own)


def find_changes(values: Mapping[str, Any], but: Mapping[str, Any]) -> dict[str, Any]:
    """What settings change of the weights beside some of them; equal trainings have equal changes.

    Args:
        values: the settings.
        but: those of them whose changes are known.

    Returns:
        Name in a run's config.json -> value; empty where nothing else is changed.
    """
    asked, known = (flatten(make_config(given).describe()) for given in (values, but))
    found = {n: value for n, value in asked.items() if n not in FREE and (n not in known or known[n] != value)}
    if values.get("bf16") is not None:  # its default depends on the device, which decides no run
        found["bf16"] = values["bf16"]
    return found
