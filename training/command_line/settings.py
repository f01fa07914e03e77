"""Settings of a training by name: each is a field of its classes, a key of a recipe file, and an option of a command.

Loads no PyTorch, so that a plan can read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import Field

from data_manifests.storage.toml_file import check, read_toml
from data_manifests.storage.values import attributes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from pydantic import BaseModel


def list_fields(part: type, names: Mapping[str, str], unset: Collection[str] = ()) -> dict[str, Any]:
    """The settings that a dataclass holds, for pydantic's create_model.

    Args:
        part: the class; every field has a default, and a text in the docstring.
        names: setting -> field.
        unset: settings whose default is decided later.

    Returns:
        Setting -> type and pydantic's field.
    """
    texts, kinds, defaults = attributes(part), get_type_hints(part, include_extras=True), part()
    return {
        name: (
            kinds[field],
            Field(None if name in unset else getattr(defaults, field), description=texts[field].rstrip(".")),
        )
        for name, field in names.items()
    }


def read_settings(model: type[BaseModel], path: Path) -> dict[str, Any]:
    """Read a file of settings.

    Returns:
        Name -> value, of what the file names.

    Raises:
        TomlFileError: names the file, the key, and what is expected.
    """
    found = check(model, read_toml(path), path)
    return {name: getattr(found, name) for name in sorted(found.model_fields_set)}


def to_words(values: Mapping[str, Any]) -> list[str]:
    """Settings as options of a command."""
    words = []
    for name, value in values.items():
        option = name.replace("_", "-")
        if name == "rules":
            words += [f"--rule={rule}={recipe}" for rule, recipe in value.items()]
        elif isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words.append(f"--{option}={','.join(map(str, value)) if isinstance(value, tuple) else value}")
    return words


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def describe_change(old: Mapping[str, Any], new: Mapping[str, Any], content: str, free: Collection[str]) -> str:
    """In what two runs differ that decides the weights, each with both values.

    Args:
        old: what one was made from, the content of its config.json.
        new: likewise.
        content: the dotted name under which it says what it learned from.
        free: settings that decide nothing.
    """
    before, after = flatten(old), flatten(new)
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    told = [n for n in names if n.startswith("config.") or n == content]
    told = [n for n in told if n.removeprefix("config.") not in free]
    return ", ".join(f"{name}: {before.get(name)} there, {after.get(name)} here" for name in told) or "unknown"
