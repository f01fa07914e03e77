"""TOML files that people write by hand: read, checked against a model, and explained where they are wrong."""

from __future__ import annotations

import difflib
import tomllib
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)


class TomlFileError(ValueError):
    """A TOML file is missing or wrong; names the file, the field and the remedy."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        TomlFileError: if it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TomlFileError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    except RecursionError as error:
        raise TomlFileError(f"{path} is not valid TOML: it nests too deep; correct it there") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TomlFileError(f"{path} is not valid TOML: {error}; correct it there") from error


def check(model: type[Model], values: Mapping[str, Any], path: Path, table: str = "") -> Model:
    """Check the values of a TOML file, or of one of its tables.

    Args:
        model: what the values must be.
        values: as read.
        path: the file, for the message.
        table: the table's name, for the message.

    Raises:
        TomlFileError: naming every field that is wrong, what is wrong with it, and what would be right.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        known = sorted(_field_names(model.model_json_schema()))
        lines = [_explain(detail, known, table) for detail in error.errors(include_url=False)]
    raise TomlFileError(f"{path} is wrong: {'; '.join(lines)}")


def suggest(name: str, known: Iterable[str]) -> str:
    """A question that names the nearest known name, or nothing.

    >>> suggest("lwf", ["lfw", "ijbc"])
    ' (did you mean lfw?)'
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def _explain(detail: ErrorDetails, known: list[str], table: str) -> str:
    """One problem in words: the field, what is wrong, what to do."""
    where = _place(detail["loc"], table)
    match detail["type"]:
        case "missing":
            return f"field {where} is missing: add it"
        case "extra_forbidden":
            name = str(detail["loc"][-1])
            return f"there is no field {where}{suggest(name, known)}: correct or remove it"
        case "value_error":
            text = detail["msg"].removeprefix("Value error, ")
            return f"{where}: {text}" if detail["loc"] or table else text
        case _:
            text = detail["msg"][:1].lower() + detail["msg"][1:]
            return f"field {where}: {text}, not {_short(detail['input'])}"


def _place(location: tuple[int | str, ...], table: str) -> str:
    """A field's place as one would write it: `files[0].sha256`."""
    text = table
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return f"`{text.lstrip('.')}`"


def _short(value: object) -> str:
    """A value in a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _field_names(schema: Mapping[str, Any]) -> set[str]:
    """Every field name that a model and the models in it know."""
    parts = [schema, *schema.get("$defs", {}).values()]
    return {name for part in parts for name in part.get("properties", {})}
