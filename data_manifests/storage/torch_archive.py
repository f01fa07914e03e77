"""Reads the tensors of a TorchScript archive, as OpenAI published CLIP, without running the code that it holds.

Such an archive is a zip: `data.pkl` tells the tree of modules and where each tensor lies, `data/0`, `data/1` and so on
hold the numbers, and `code/` the functions, one of which (`__setstate__`) PyTorch runs when it opens the file. Here the
steps of the pickle move plain values alone: a name that it calls is never looked up, and what it would have made is
left out.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from data_manifests.storage.pickled_names import PickleDataError
from data_manifests.storage.pickles import MOST_STEPS, take_step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MOST_BYTES: Final = 64 << 20
"""Neither the tree nor the code of one class is larger; those of OpenAI's RN50 take less than a megabyte."""
_DEEPEST: Final = 100
_MOST_MODULES: Final = 100_000

_STEPS: Final = frozenset({
    "PROTO", "STOP", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID", "BINPUT", "LONG_BINPUT", "BINGET",
    "LONG_BINGET", "MARK", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_DICT", "SETITEM", "SETITEMS", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINFLOAT", "BINUNICODE",
})  # fmt: skip
"""What PyTorch writes, and nothing else."""

_KINDS: Final = {
    "torch.DoubleStorage": ("float64", 8), "torch.FloatStorage": ("float32", 4), "torch.HalfStorage": ("float16", 2),
    "torch.BFloat16Storage": ("bfloat16", 2), "torch.LongStorage": ("int64", 8), "torch.IntStorage": ("int32", 4),
    "torch.ShortStorage": ("int16", 2), "torch.CharStorage": ("int8", 1), "torch.ByteStorage": ("uint8", 1),
    "torch.BoolStorage": ("bool", 1),
}  # fmt: skip
"""Name of a storage's class -> PyTorch's name of its type, and bytes of an item."""

_LISTS: Final = re.compile(r"^  __(?:parameters|buffers)__ = \[(.*)\]$", re.MULTILINE)
_QUOTED: Final = re.compile(r'"([^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Where a tensor lies in an archive.

    Attributes:
        kind: PyTorch's name of its type, such as `float16`.
        storage: which storage holds it; tensors may share one.
        offset: of its first item within the storage, in items.
        shape: items along each axis.
        strides: items from one to the next along each axis.
        storage_bytes: bytes of the whole storage.
    """

    kind: str
    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    storage_bytes: int


@dataclass(frozen=True, slots=True)
class _Name:
    """A name that the pickle would have PyTorch look up."""

    text: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """A storage of so many items, by its key and the name of its class."""

    key: str
    name: str
    items: int


@dataclass(slots=True, eq=False)
class _Object:
    """A module, or anything else that a class makes: its class's name and its attributes."""

    name: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


class TorchArchive:
    """An open TorchScript archive.

    Args:
        path: the file.

    Raises:
        PickleDataError, zipfile.BadZipFile, OSError: if it is damaged, or holds what PyTorch does not write.
    """

    def __init__(self, path: Path) -> None:
        self._file = zipfile.ZipFile(path)
        root = next((name for name in self._file.namelist() if name.endswith("/constants.pkl")), None)
        if root is None:
            raise PickleDataError("no TorchScript archive")
        self._root = root.removesuffix("constants.pkl")
        self._modules = 0
        if self._root + "byteorder" in self._file.namelist() and self._read("byteorder") != b"little":
            raise PickleDataError("numbers in an order of bytes other than little-endian")
        self.tensors: Mapping[str, StoredTensor] = dict(self._walk(_run_steps(self._read("data.pkl")), "", 0))

    def __enter__(self) -> TorchArchive:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def storage_of(self, tensor: StoredTensor) -> bytes:
        """The bytes of the storage that holds a tensor."""
        name = f"data/{tensor.storage}"
        content = self._read(name, most=tensor.storage_bytes)
        if len(content) != tensor.storage_bytes:
            raise PickleDataError(f"{name} has {len(content)} bytes instead of {tensor.storage_bytes}")
        return content

    def _read(self, name: str, most: int = MOST_BYTES) -> bytes:
        """A member of bounded size."""
        try:
            member = self._file.getinfo(self._root + name)
        except KeyError:
            raise PickleDataError(f"{name} is missing") from None
        packed = name.startswith("data") and member.compress_type != zipfile.ZIP_STORED
        if packed or member.file_size > most:
            raise PickleDataError(f"{name} is compressed, or has more than {most} bytes")
        try:
            return self._file.read(member)
        except (RuntimeError, NotImplementedError) as error:  # a password, another compression
            raise PickleDataError(f"{name}: {error}") from None

    def _walk(self, module: Any, prefix: str, depth: int) -> Iterator[tuple[str, StoredTensor]]:
        """The parameters and buffers of a module and those in it, by dotted names."""
        self._modules += 1
        if not isinstance(module, _Object) or depth > _DEEPEST or self._modules > _MOST_MODULES:
            raise PickleDataError("no tree of modules whose attributes are plain")
        kept = self._state_names(module.name)
        for name, value in module.attributes.items():
            if isinstance(value, StoredTensor) and (kept is None or name in kept):
                yield prefix + name, value
            elif isinstance(value, _Object):
                yield from self._walk(value, f"{prefix}{name}.", depth + 1)

    def _state_names(self, class_name: str) -> frozenset[str] | None:
        """Which attributes of a class are parameters or buffers, as its code says; None where it does not say."""
        module, _, name = class_name.rpartition(".")
        member = f"code/{module.replace('.', '/')}.py"
        if self._root + member not in self._file.namelist():
            return None
        text = self._read(member).decode("utf-8", "replace")
        found = re.search(rf"^class {re.escape(name)}\((.*?)(?=^class |\Z)", text, re.MULTILINE | re.DOTALL)
        if found is None:
            return None
        if "\n  def __setstate__(" in found[1]:
            raise PickleDataError(f"{class_name} takes its state by code of its own, which is not run")
        lists = _LISTS.findall(found[1])
        return frozenset(_QUOTED.findall(" ".join(lists))) if len(lists) == 2 else None


def _run_steps(data: bytes) -> Any:
    """Carry out the steps of `data.pkl` on plain values.

    Raises:
        PickleDataError: if a step is none of `_STEPS`, or lacks what it takes.
    """
    stream, machine = io.BytesIO(data), _Machine()
    for _ in range(MOST_STEPS):
        name, argument = take_step(stream, _STEPS)
        if name == "STOP":
            return machine.pop()
        try:
            machine.do(name, argument)
        except (LookupError, TypeError, ValueError, struct.error) as error:
            raise PickleDataError(f"a damaged pickle ({error})") from error
    raise PickleDataError(f"more than {MOST_STEPS} steps are not allowed")


class _Machine:
    """The stack on which a pickle's steps work. Nothing is called, looked up or hashed but texts and small numbers."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def do(self, name: str, argument: bytes) -> None:  # noqa: C901, PLR0912 - one step a case
        """One step."""
        stack = self.stack
        match name:
            case "PROTO":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[int.from_bytes(argument, "little")] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[int.from_bytes(argument, "little")])
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = ("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3").index(name)
                stack.append(tuple([self.pop() for _ in range(count)][::-1]))
            case "TUPLE":
                stack.append(tuple(self.pop_mark()))
            case "APPEND" | "APPENDS":
                items = [self.pop()] if name == "APPEND" else self.pop_mark()
                _expect(stack[-1], list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = [self.pop(), self.pop()][::-1] if name == "SETITEM" else self.pop_mark()
                pairs = zip(items[::2], items[1::2], strict=True)
                _expect(stack[-1], dict).update({key: value for key, value in pairs if isinstance(key, str)})
            case "NEWOBJ":
                self.pop()
                made = self.pop()
                stack.append(_Object(made.text if isinstance(made, _Name) else ""))
            case "BUILD":
                state, built = self.pop(), stack[-1]
                if isinstance(built, _Object) and isinstance(state, dict):
                    built.attributes = state
            case "REDUCE":
                arguments = _expect(self.pop(), tuple)
                made = self.pop()
                stack.append(_call(made.text if isinstance(made, _Name) else "", arguments))
            case "BINPERSID":
                stack.append(_storage(self.pop()))
            case _:
                stack.append(_plain(name, argument))


def _expect(value: Any, kind: type) -> Any:
    """A value of the kind that a step needs."""
    if type(value) is not kind:
        raise TypeError(f"a {kind.__name__} is expected")
    return value


def _plain(name: str, argument: bytes) -> Any:
    """The plain value that a step puts on the stack."""
    if name in ("EMPTY_LIST", "EMPTY_DICT"):
        return [] if name == "EMPTY_LIST" else {}
    if name in ("GLOBAL", "BINUNICODE"):
        text = argument.decode()
        return text if name == "BINUNICODE" else _Name(text.strip().replace("\n", "."))
    if name == "BINFLOAT":
        return struct.unpack(">d", argument)[0]
    if name in ("BININT", "LONG1", "BININT1", "BININT2"):
        return int.from_bytes(argument, "little", signed=name in ("BININT", "LONG1"))
    return {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name]


def _storage(told: Any) -> _Storage:
    """A storage as PyTorch names it: `("storage", class, key, device, items)`."""
    match told:
        case ("storage", _Name(text=name), str() as key, str(), int() as items) if name in _KINDS and items >= 0:
            return _Storage(key, name, items)
    raise PickleDataError("a storage of a kind that holds no plain numbers")


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    """What a call stands for: a tensor, or a value that is only tagged; None for all else."""
    match name, arguments:
        case (
            "torch._utils._rebuild_tensor_v2",
            (_Storage() as storage, int() as offset, tuple() as shape, tuple() as strides, *_),
        ):
            return _tensor(storage, offset, shape, strides)
        case "torch._utils._rebuild_parameter" | "torch.jit._pickle.restore_type_tag", (value, *_):
            return value
    return None


def _tensor(storage: _Storage, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> StoredTensor:
    """A tensor within its storage.

    Raises:
        PickleDataError: if it would reach beyond the storage, or hold more items.
    """
    kind, size = _KINDS[storage.name]
    plain = all(type(number) is int and number >= 0 for number in (offset, *shape, *strides))
    if not plain or len(shape) != len(strides) or len(shape) > 32:
        raise PickleDataError("the shape of a tensor is damaged")
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if (math.prod(shape) and last >= storage.items) or math.prod(shape) > storage.items:
        raise PickleDataError(f"a tensor {list(shape)} reaches beyond its storage of {storage.items} items")
    return StoredTensor(
        kind=kind,
        storage=storage.key,
        offset=offset,
        shape=shape,
        strides=strides,
        storage_bytes=storage.items * size,
    )
