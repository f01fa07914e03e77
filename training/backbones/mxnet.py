"""Weights of MXNet (.params), as InsightFace published its first recognisers, by the names of its PyTorch code."""

from __future__ import annotations

import math
import re
import struct
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

_FILE, _ARRAY, _ARRAY_BEFORE = 0x112, 0xF993FAC9, 0xF993FAC8
"""What a file begins with, and an array in it since MXNet 1.0 and before."""
_MOST_AXES = 4
_TYPES = {0: np.float32, 1: np.float64, 2: np.float16, 3: np.uint8, 4: np.int32, 5: np.int8, 6: np.int64}

_ENDS = {"conv0": "conv1", "bn0": "bn1", "relu0": "prelu", "bn1": "bn2", "pre_fc1": "fc", "fc1": "features"}
"""Layers before and behind the blocks by MXNet's names (symbol/fresnet.py), and by those of arcface_torch."""
_INNER = {"relu1": "prelu", "conv1sc": "downsample.0", "sc": "downsample.1"}
"""Those of a block that are called otherwise there."""
_WEIGHTS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_var": "running_var"}
_NAME = re.compile(r"(?:stage(\d)_unit(\d+)_)?(.+)_(weight|bias|gamma|beta|moving_mean|moving_var)")
_HEAD = "fc7_weight"
"""Of the class centres, which a checkpoint of a training holds too."""


def read_mxnet(path: Path) -> dict[str, Tensor]:
    """Read the weights of an LResNet-E-IR of InsightFace's MXNet code by the names of its PyTorch code.

    Args:
        path: PREFIX-0000.params.

    Raises:
        WeightsError: if it is no such file, or not whole.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    try:
        arrays = read_params(path.read_bytes())
    except (struct.error, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is not a whole .params file of MXNet ({error}): fetch it again") from error
    found: dict[str, Tensor] = {}
    for name, array in arrays.items():
        match = _NAME.fullmatch(name)
        if match is None or name == _HEAD:
            continue
        stage, unit, layer, weight = match.groups()
        layer = f"layer{stage}.{int(unit) - 1}.{_INNER.get(layer, layer)}" if stage else _ENDS.get(layer, layer)
        found[f"{layer}.{_WEIGHTS.get(weight, weight)}"] = torch.from_numpy(array.copy())
        if weight == "moving_mean":
            found[f"{layer}.num_batches_tracked"] = torch.tensor(0)
    if (scale := found.get("features.weight")) is not None:
        scale.fill_(1)  # MXNet does not use it (fix_gamma)
    return found


def read_params(content: bytes) -> dict[str, NDArray[np.generic]]:
    """The arrays of a .params file by their names, without `arg:` and `aux:`.

    Raises:
        struct.error, ValueError, KeyError: if it is no such file, or not whole.
    """
    magic, _, count = struct.unpack_from("<3Q", content)
    if magic != _FILE:
        raise ValueError("it begins otherwise")
    place, arrays, names = 24, [], []
    for _ in range(count):
        array, place = _read_array(content, place)
        arrays.append(array)
    (named,) = struct.unpack_from("<Q", content, place)
    place += 8
    for _ in range(named):
        (length,) = struct.unpack_from("<Q", content, place)
        if length > len(content):
            raise ValueError("it ends within a name")
        names.append(content[place + 8 : place + 8 + length].decode().rpartition(":")[2])
        place += 8 + length
    if place != len(content):
        raise ValueError("it ends elsewhere")
    return dict(zip(names, arrays, strict=True))


def _read_array(content: bytes, place: int) -> tuple[NDArray[np.generic], int]:
    """An array, and where it ends."""
    (magic,) = struct.unpack_from("<I", content, place)
    if magic not in (_ARRAY, _ARRAY_BEFORE):
        raise ValueError(f"no array at byte {place}")
    place += 4
    if magic == _ARRAY:
        (storage,) = struct.unpack_from("<i", content, place)
        if storage != 0:
            raise ValueError(f"a sparse array at byte {place}")
        place += 4
    (axes,) = struct.unpack_from("<I", content, place)
    if not 0 < axes <= _MOST_AXES:
        raise ValueError(f"an array of {axes} axes at byte {place}")
    *shape, _, _, kind = struct.unpack_from(f"<{axes}q3i", content, place + 4)  # the device's type and number between
    place += 4 + 8 * axes + 12
    dtype = np.dtype(_TYPES[kind]).newbyteorder("<")
    size = math.prod(shape)
    if min(shape) < 0 or size * dtype.itemsize > len(content) - place:
        raise ValueError(f"an array of shape {shape} at byte {place}, of which there are {len(content)}")
    array = np.frombuffer(content, dtype, size, place)
    return array.reshape(shape), place + size * dtype.itemsize
