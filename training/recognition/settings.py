"""The settings of a recogniser's training by name: each is a key of a recipe file, and an option of every command.

Loads no PyTorch, so that a plan can read them.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, create_model

from labelers.runtime.device import Device
from training.command_line.settings import list_fields, read_settings
from training.recognition.config import RecognitionConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_RENAMED = {"batch": "batch_size"}
"""Field -> setting. Luigi takes --batch for a beginning of its own --batch-email-…"""

_FIELDS = {_RENAMED.get(field.name, field.name): field.name for field in fields(RecognitionConfig)}
del _FIELDS["device"]  # belongs to a command

_UNSET = ("bf16", "margin_size", "threads")
"""Settings whose default depends on others, or on the machine."""

RecognitionSettings = create_model(
    "RecognitionSettings",
    __config__=ConfigDict(extra="forbid"),
    **list_fields(RecognitionConfig, _FIELDS, unset=_UNSET),
)
"""The settings as a model: name, type, default and text of each."""

SETTINGS = RecognitionSettings.model_fields


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a file of settings, such as recipes/cr_fiqa_s.toml.

    Returns:
        Name -> value, of what the file names.

    Raises:
        TomlFileError: names the file, the key, and what is expected.
    """
    return read_settings(RecognitionSettings, path)


def make_config(values: Mapping[str, Any], device: Device = Device.CPU) -> RecognitionConfig:
    """The training that settings ask for; what they do not name has its default.

    Raises:
        ValueError: if they do not fit together; says why.
    """
    chosen = {field: values[name] for name, field in _FIELDS.items() if values.get(name) is not None}
    chosen.setdefault("bf16", device is Device.CUDA)
    return RecognitionConfig(device=device, **chosen)
