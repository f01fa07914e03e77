"""What people write for a setting, in a file or on a command line: read as its type, or told what is expected."""

from __future__ import annotations

import inspect
import re
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[int, Field(ge=1)]


class UnreadableError(ValueError, ArgumentTypeError):
    """A value is not of its type; says what is expected. argparse shows it as it is."""


_EXPECTED = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a number",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}
"""Kind of pydantic's error -> what is expected, with the bounds that it carries."""


def attributes(model: type) -> dict[str, str]:
    """What a class's docstring says of its attributes."""
    lines = (inspect.getdoc(model) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", lines, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def what_is_expected(detail: ErrorDetails) -> str:
    """What is wrong with a value, in words: what its own check says, or what is expected."""
    kind, given = detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    if kind in {"enum", "literal_error"}:
        return f"one of {given['expected'].replace(' or ', ', ')} is expected".replace("'", "")
    text = _EXPECTED.get(kind) or _EXPECTED.get(kind.split("_")[0])
    return f"{text.format_map(given)} is expected" if text else detail["msg"]


def first_line(error: Exception) -> str:
    """What another library's error says, without the trace that some append; its kind where it says nothing."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


def explain_first(error: ValidationError) -> str:
    """The first thing that is wrong with the values of a model: the field, and what is expected."""
    first = error.errors(include_url=False)[0]
    return "".join(f"{part}: " for part in first["loc"]) + what_is_expected(first)


def kind_of(field: FieldInfo) -> Any:
    """The type of a model's field, with its bounds and checks."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def reader_of(kind: Any) -> Callable[[Any], Any]:
    """A function that reads a value of a type from what was written for it.

    Args:
        kind: as an annotation says it, bounds included.

    Returns:
        Takes a text or a value, as argparse's `type` does; raises UnreadableError.

    >>> reader_of(Positive)("0")
    Traceback (most recent call last):
    data_manifests.storage.values.UnreadableError: at least 1 is expected
    """
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def read(given: Any) -> Any:
        try:
            return adapter.validate_python(given)
        except ValidationError as error:
            raise UnreadableError(what_is_expected(error.errors(include_url=False)[0])) from None

    return read
