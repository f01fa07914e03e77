"""The last layer of a recogniser, whose weights are its class centres, from the formats in which it is stored."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


_FOREIGN = re.compile(r"GLOBAL ([\w.]+)")
"""How PyTorch names what is no tensor, such as numpy._core.multiarray.scalar, a NumPy number."""

IDENTITIES = "identities"
"""The tensor of a head's file that tells whose centre every row is."""


class HeadError(ValueError):
    """A file does not hold, or not clearly, the weights of a last layer; names the file and what it holds."""


class HeadLayout(StrEnum):
    """Which axis of the stored matrix is which."""

    CLASSES_FIRST = "classes_first"
    """[C, D], as PyTorch's linear layers and InsightFace's heads."""
    DIMENSION_FIRST = "dimension_first"
    """[D, C], as the `kernel` of CR-FIQA's heads."""


def load_head(
    path: Path, *, dimension: int, key: str | None = None, layout: HeadLayout | None = None
) -> NDArray[np.float32]:
    """Read the class centres of a recogniser's head.

    Args:
        path: .npy, .safetensors, or .pt / .pth (only tensors are read; code in the file never runs).
        dimension: D, the number of values of an embedding; tells the axes apart.
        key: name of the tensor; needed where several could be meant.
        layout: needed only where the matrix has as many classes as dimensions.

    Returns:
        float32 [C, D], not normalised; row i is the centre of identity i.

    Raises:
        FileNotFoundError: if there is no such file.
        HeadError: if no matrix fits, or more than one does.
    """
    tensors = _read_tensors(path)
    name = _choose(path, tensors, dimension, key)
    matrix = np.asarray(tensors[name], np.float32)
    if layout is None:
        if matrix.shape[0] == matrix.shape[1]:
            raise HeadError(
                f"{path}: {name!r} is {dimension} x {dimension}, so its axes look alike: set [anchors] head_layout to"
                f" {' or '.join(HeadLayout)}"
            )
        layout = HeadLayout.CLASSES_FIRST if matrix.shape[1] == dimension else HeadLayout.DIMENSION_FIRST
    head = np.ascontiguousarray(matrix if layout is HeadLayout.CLASSES_FIRST else matrix.T)
    if head.shape[1] != dimension:
        raise HeadError(f"{path}: {name!r} is {list(matrix.shape)}, which is not {layout} with {dimension} dimensions")
    if not np.isfinite(head).all():
        raise HeadError(f"{path}: {name!r} holds values that are not finite: the file is damaged")
    return head


def order_rows(head: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
    """Bring the rows of a head into the order of the people of a data set.

    A recogniser numbers its people from 0, so where all people are called by numbers of rows, those are their rows.
    Else the order of the rows is taken for that of the people.

    Args:
        head: [C, D].
        names: of the people 0 to P - 1.

    Returns:
        [C, D]: the row of person 0, 1, …, P - 1, then the other rows in their order.
    """
    numbers = np.array([int(name) if name.isascii() and name.isdecimal() else -1 for name in names], object)
    if not len(numbers) or (numbers < 0).any() or (numbers >= len(head)).any() or len(set(numbers)) < len(numbers):
        return head
    rows = numbers.astype(np.intp)
    return head[np.append(rows, np.setdiff1d(np.arange(len(head)), rows))]


def load_identities(path: Path) -> NDArray[np.int32] | None:
    """Whose centres the rows of a head are.

    Args:
        path: of the head, as for `load_head`.

    Returns:
        int32 [C], the number of every row's person in the data set, from the tensor `identities`; None where the file
        has none: then row i is the centre of identity i.

    Raises:
        FileNotFoundError: if there is no such file.
        HeadError: if they are no whole numbers that ascend, each once.
    """
    found = _read_tensors(path).get(IDENTITIES)
    if found is None:
        return None
    if found.ndim != 1 or found.dtype.kind not in "iu" or not (np.diff(found) > 0).all() or found.min(initial=0) < 0:
        raise HeadError(
            f"{path}: {IDENTITIES!r} must be whole numbers from 0 that ascend, each once, not "
            f"{found.dtype} {list(found.shape)}: write the head anew, sorted by person"
        )
    return found.astype(np.int32)


def _choose(path: Path, tensors: dict[str, NDArray[Any]], dimension: int, key: str | None) -> str:
    """The name of the tensor that is the head."""
    held = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items()) or "nothing"
    fitting = [name for name, t in tensors.items() if t.ndim == 2 and dimension in t.shape]
    if key is not None:
        if key not in tensors:
            raise HeadError(f"{path} has no tensor {key!r}; it holds {held}")
        if key not in fitting:
            raise HeadError(f"{path}: {key!r} has no axis of {dimension} and another of the classes; it holds {held}")
        return key
    if not fitting:
        raise HeadError(f"{path} holds no matrix with an axis of {dimension}: name another file; it holds {held}")
    if len(fitting) > 1:
        raise HeadError(
            f"{path} holds {len(fitting)} matrices with an axis of {dimension}: set [anchors] head_tensor to the one"
            f" that has a row or column a person; it holds {held}"
        )
    return fitting[0]


def _read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a file by name."""
    if not path.is_file():
        raise FileNotFoundError(f"no head of a recogniser at {path}")
    readers = {".npy": _read_npy, ".safetensors": _read_safetensors, ".pt": _read_torch, ".pth": _read_torch}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise HeadError(f"{path}: a head is read from {', '.join(readers)} files, not from {path.suffix!r}")
    return reader(path)


def _read_npy(path: Path) -> dict[str, NDArray[Any]]:
    """The one array of a .npy file, named after the file."""
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged header raises whatever Python's own parser does
        raise HeadError(f"{path} is not a .npy file of numbers: {_shorten(error)}") from error
    if array.dtype.kind != "f":
        raise HeadError(f"{path} holds {array.dtype}, expected floating-point weights")
    return {path.stem: array}


def _read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a .safetensors file."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - see _read_torch

    tensors = {}
    try:
        # By way of PyTorch, since numpy has no bfloat16.
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - the file is no mapping
                tensors[name] = _to_numpy(file.get_tensor(name))
    except (SafetensorError, OSError, ValueError) as error:
        raise HeadError(f"{path} is not a whole .safetensors file: {_shorten(error)}") from error
    return tensors


def _read_torch(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a PyTorch checkpoint; those in nested dictionaries get dotted names."""
    # Here because importing PyTorch takes seconds, and all else in this package does without it.
    import torch  # noqa: PLC0415

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes PyTorch raise nearly anything
        raise HeadError(f"{path} is not a PyTorch file of tensors alone: {_shorten(error)}") from error
    return {name: _to_numpy(tensor.detach()) for name, tensor in _flatten(content, "", torch.Tensor)}


def _to_numpy(tensor: Any) -> NDArray[Any]:
    """Whole numbers as they are, all others as float32."""
    found: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return found


def _shorten(error: Exception) -> str:
    """What PyTorch could not read, in a sentence."""
    if foreign := _FOREIGN.search(str(error)):
        return (
            f"it holds {foreign[1]}, which would run as code; load it where you trust it, and save the matrix alone by "
            "torch.save or numpy.save"
        )
    return str(error).split("\n", 1)[0]


def _flatten(content: Any, prefix: str, kind: type) -> list[tuple[str, Any]]:
    """Tensors with their dotted names; a bare tensor is called `tensor`."""
    if isinstance(content, kind):
        return [(prefix or "tensor", content)]
    if not isinstance(content, dict):
        return []
    return [
        pair
        for name, value in content.items()
        for pair in _flatten(value, f"{prefix}.{name}" if prefix else str(name), kind)
    ]
