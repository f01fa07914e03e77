"""JSON files of the workspace: written whole, and read back as what they must be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from data_manifests.storage.atomic import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class DamagedFileError(ValueError):
    """A JSON file of the workspace is not what it should be; names it."""


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: if it is none, or nests deeper than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it nests too deep") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that `write_json` wrote.

    Raises:
        OSError: if there is none.
        DamagedFileError: if it is cut, zeroed, or something else.
    """
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise DamagedFileError(f"{path} is damaged ({error}): remove it") from error
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path} is damaged (it holds a {type(content).__name__}): remove it")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
