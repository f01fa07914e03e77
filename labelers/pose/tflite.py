"""Reads a TensorFlow Lite file into a plain description: tensors, and the operators between them.

The layout of the tables is that of TensorFlow's schema.fbs. The numbers of the fields are their places in it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from flatbuffers import encode, number_types
from flatbuffers.table import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

IDENTIFIER = b"TFL3"
"""Stands at byte 4 of every file."""

MAX_ENTRIES = 10_000
"""Tensors, operators or buffers of a file; the face mesh has some hundreds. A bound on what a damaged file costs."""

MAX_RANK = 8
"""Dimensions of a tensor, and inputs or outputs of an operator, likewise."""

MAX_ELEMENTS = 1 << 26
"""Values of a tensor, likewise."""


class TfliteError(ValueError):
    """A file is no TensorFlow Lite model, or has something that is not known here."""


class OperatorKind(IntEnum):
    """The operators that are known, by their numbers in the schema."""

    ADD = 0
    CONV_2D = 3
    DEPTHWISE_CONV_2D = 4
    DEQUANTIZE = 6
    LOGISTIC = 14
    MAX_POOL_2D = 17
    RESHAPE = 22
    PAD = 34
    PRELU = 54


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor of the graph.

    Attributes:
        shape: of one picture, with the batch of 1 that the file was made for; channels last.
        values: float32, float16 or int32 of that shape where it is a constant, else None.
    """

    shape: tuple[int, ...]
    values: NDArray[Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a filter moves over a picture.

    Attributes:
        same: padded so that the output has the input's size over the stride, rounded up; else not padded.
        stride: down and right.
        size: of a pooling window, likewise; (0, 0) for a convolution, whose weights tell it.
    """

    same: bool
    stride: tuple[int, int]
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """An operator of the graph.

    Attributes:
        kind: what it does.
        inputs: numbers of tensors.
        outputs: numbers of tensors.
        window: for convolutions and pooling, else None.
    """

    kind: OperatorKind
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    window: Window | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteModel:
    """The one graph of a file.

    Attributes:
        tensors: all of them; operators name them by their place.
        operators: in the order in which they run.
        inputs: numbers of tensors.
        outputs: numbers of tensors.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_tflite(content: bytes) -> TfliteModel:
    """Read a TensorFlow Lite file of float32 or float16 weights.

    Args:
        content: of the whole file.

    Raises:
        TfliteError: if it is none, is damaged, or has an operator, an option or a type that is not known here.
    """
    if content[4:8] != IDENTIFIER:
        raise TfliteError("not a TensorFlow Lite file")
    try:
        return _read_model(bytearray(content))
    except TfliteError:
        raise
    # What reading at a wrong place raises, in flatbuffers, struct and NumPy.
    except (struct.error, ValueError, TypeError, IndexError, OverflowError) as error:
        raise TfliteError(f"the file is damaged: {error}") from error


def _read_model(content: bytearray) -> TfliteModel:
    """Read the model's table; errors of every kind where the file is damaged."""
    model = Table(content, encode.Get(number_types.UOffsetTFlags.packer_type, content, 0))
    graphs = _tables(model, 2)
    if len(graphs) != 1:
        raise TfliteError(f"the file has {len(graphs)} graphs, expected one")
    graph = graphs[0]
    buffers = [_vector(buffer, 0, "u1", limit=len(content)) for buffer in _tables(model, 4)]
    tensors = tuple(_read_tensor(table, buffers) for table in _tables(graph, 0))
    # A code above 127 stands in the second, wider field; the first is the larger one for old files.
    kinds = [max(_byte(code, 0), _int(code, 3)) for code in _tables(model, 1)]
    operators = tuple(_read_operator(table, kinds, len(tensors)) for table in _tables(graph, 3))
    inputs, outputs = (_numbers(graph, slot, len(tensors)) for slot in (1, 2))
    return TfliteModel(tensors=tensors, operators=operators, inputs=inputs, outputs=outputs)


_TYPES = {0: "<f4", 1: "<f2", 2: "<i4"}
"""Number of a tensor's type -> type; others, such as those of quantised weights, are not known."""


def _read_tensor(table: Any, buffers: list[NDArray[Any]]) -> Tensor:
    """A tensor with its values, if it has any."""
    shape = tuple(int(side) for side in _vector(table, 0, "<i4"))
    kind = _byte(table, 1)
    if kind not in _TYPES:
        raise TfliteError(f"a tensor has the type {kind}, which is not known here: only float32, float16 and int32 are")
    if min(shape, default=1) < 1 or math.prod(shape) > MAX_ELEMENTS:
        raise TfliteError(f"a tensor has the shape {list(shape)}: is the file damaged?")
    stored = buffers[_uint(table, 2)]
    if not stored.size:
        return Tensor(shape=shape, values=None)
    return Tensor(shape=shape, values=stored.view(_TYPES[kind]).reshape(shape))


def _read_operator(table: Any, kinds: list[int], tensors: int) -> Operator:
    """An operator with the options that matter."""
    number = kinds[_uint(table, 0)]
    try:
        kind = OperatorKind(number)
    except ValueError as error:
        raise TfliteError(f"operator {number} of TensorFlow Lite's schema is not known here") from error
    options = _options(table)
    _expect_plain(kind, options)
    return Operator(
        kind=kind,
        inputs=_numbers(table, 1, tensors),
        outputs=_numbers(table, 2, tensors),
        window=_read_window(kind, options),
    )


_ACTIVATION = {
    OperatorKind.ADD: 0,
    OperatorKind.CONV_2D: 3,
    OperatorKind.DEPTHWISE_CONV_2D: 4,
    OperatorKind.MAX_POOL_2D: 5,
}
"""The field that names an activation which runs with the operator."""

_DILATION = {OperatorKind.CONV_2D: (4, 5), OperatorKind.DEPTHWISE_CONV_2D: (5, 6)}
"""The fields of the holes in a filter."""


def _expect_plain(kind: OperatorKind, options: Any) -> None:
    """Raise TfliteError for options that change the result and are not known here."""
    if options is None:
        return
    if kind in _ACTIVATION and (activation := _byte(options, _ACTIVATION[kind])):
        raise TfliteError(f"{kind.name} runs with activation {activation} of the schema, which is not known here")
    if any(_int(options, slot, 1) != 1 for slot in _DILATION.get(kind, ())):
        raise TfliteError(f"{kind.name} has a dilation, which is not known here")


def _read_window(kind: OperatorKind, options: Any) -> Window | None:
    """The window of a convolution or pooling."""
    if kind not in (OperatorKind.CONV_2D, OperatorKind.DEPTHWISE_CONV_2D, OperatorKind.MAX_POOL_2D):
        return None
    if options is None:
        raise TfliteError(f"{kind.name} has no options: is the file damaged?")
    padding, right, down = _byte(options, 0), _int(options, 1), _int(options, 2)
    pooling = kind is OperatorKind.MAX_POOL_2D
    size = (_int(options, 4), _int(options, 3)) if pooling else (0, 0)
    if padding not in (0, 1) or min(right, down) < 1 or (pooling and min(size) < 1):
        raise TfliteError(f"{kind.name} has padding {padding}, stride {down} x {right}, size {size[0]} x {size[1]}")
    return Window(same=padding == 0, stride=(down, right), size=size)


# --- fields of a table ------------------------------------------------------------------------------------------------


def _tables(table: Any, slot: int) -> list[Any]:
    """A vector of tables."""
    offset = table.Offset(4 + 2 * slot)
    if not offset:
        return []
    start, count = table.Vector(offset), table.VectorLen(offset)
    if count > MAX_ENTRIES:
        raise TfliteError(f"the file is damaged: {count:,} entries in one list")
    return [Table(table.Bytes, table.Indirect(start + 4 * number)) for number in range(count)]


def _vector(table: Any, slot: int, dtype: str, limit: int = MAX_RANK) -> NDArray[Any]:
    """A vector of numbers, at most `limit` of them."""
    offset = table.Offset(4 + 2 * slot)
    if not offset:
        return np.zeros(0, dtype)
    start, count = table.Vector(offset), table.VectorLen(offset)
    if count > limit:
        raise TfliteError(f"the file is damaged: {count:,} numbers where at most {limit:,} may stand")
    return np.frombuffer(table.Bytes, dtype, count, start)


def _numbers(table: Any, slot: int, tensors: int) -> tuple[int, ...]:
    """Numbers of tensors that exist."""
    numbers = tuple(int(number) for number in _vector(table, slot, "<i4"))
    if any(not 0 <= number < tensors for number in numbers):
        raise TfliteError(f"tensors {list(numbers)} are named, there are {tensors}: is the file damaged?")
    return numbers


def _options(table: Any) -> Any:
    """The table of an operator's options, or None."""
    offset = table.Offset(4 + 2 * 4)
    return Table(table.Bytes, table.Indirect(table.Pos + offset)) if offset else None


def _byte(table: Any, slot: int) -> int:
    """A signed byte; 0 where it is absent."""
    return int(table.GetSlot(4 + 2 * slot, 0, number_types.Int8Flags))


def _int(table: Any, slot: int, default: int = 0) -> int:
    """A signed number of four bytes."""
    return int(table.GetSlot(4 + 2 * slot, default, number_types.Int32Flags))


def _uint(table: Any, slot: int) -> int:
    """An index; 0 where it is absent."""
    return int(table.GetSlot(4 + 2 * slot, 0, number_types.Uint32Flags))
