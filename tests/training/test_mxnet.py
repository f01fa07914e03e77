"""Weights that MXNet wrote: its own bytes, a whole network, and damaged files."""

from __future__ import annotations

import contextlib
import re
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.test_published import PIXELS, live, magface
from training.backbones.mxnet import read_params
from training.backbones.names import Backbone
from training.backbones.networks import build_backbone
from training.backbones.published import load_backbone
from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

WRITTEN = bytes.fromhex(
    "120100000000000000000000000000000200000000000000c9fa93f9000000000200000002000000000000000300000000000000"
    "010000000000000000000000000000000000803f0000004000004040000080400000a040c9fa93f9000000000100000003000000"
    "0000000001000000000000000000000000000040000000400000004002000000000000000c000000000000006172673a615f7765"
    "6967687411000000000000006175783a625f6d6f76696e675f6d65616e"
)
"""By mx.nd.save of MXNet 1.9.1: `arg:a_weight` 0 to 5 as [2, 3], `aux:b_moving_mean` three times 2."""


def write_params(arrays: Mapping[str, NDArray[np.float32]], magic: int = 0xF993FAC9) -> bytes:
    """As MXNet writes arrays, since 1.0 or (0xF993FAC8) before."""
    parts = [struct.pack("<3Q", 0x112, 0, len(arrays))]
    for array in arrays.values():
        storage = [0] if magic == 0xF993FAC9 else []
        axes = array.ndim
        parts.append(struct.pack(f"<I{len(storage)}iI{axes}q3i", magic, *storage, axes, *array.shape, 1, 0, 0))
        parts.append(array.tobytes())
    names = [name.encode() for name in arrays]
    parts += [struct.pack("<Q", len(names)), *(struct.pack("<Q", len(name)) + name for name in names)]
    return b"".join(parts)


def test_the_bytes_of_mxnet_are_read() -> None:
    found = read_params(WRITTEN)
    assert list(found) == ["a_weight", "b_moving_mean"]
    np.testing.assert_array_equal(found["a_weight"], np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(found["b_moving_mean"], np.full(3, 2, np.float32))
    assert write_params({f"{kind}:{name}": found[name] for kind, name in zip(("arg", "aux"), found, strict=True)}) == (
        WRITTEN
    )
    before = read_params(write_params(found, 0xF993FAC8))
    assert all(np.array_equal(before[name], found[name]) for name in found)


FROM_MXNET = {
    r"^conv1\.": "conv0.", r"^bn1\.": "bn0.", r"^prelu\.": "relu0.", r"^bn2\.": "bn1.", r"^fc\.": "pre_fc1.",
    r"^features\.": "fc1.", r"^(layer.*)\.prelu\.": r"\1.relu1.", r"downsample\.0": "conv1sc", r"downsample\.1": "sc",
}  # fmt: skip


def name_by_mxnet(name: str) -> str:
    """Where MXNet's code of InsightFace keeps a weight of its PyTorch code."""
    for ours, theirs in FROM_MXNET.items():
        if re.search(ours, name):
            name = re.sub(ours, theirs, name)
            break
    name = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"stage{m[1]}_unit{int(m[2]) + 1}_", name)
    layer, weight = name.rsplit(".", 1)
    if "running" in weight:
        return f"aux:{layer}_moving_{weight.removeprefix('running_')}"
    norm = re.search(r"(bn\d|_sc|^fc1)$", layer)
    return f"arg:{layer}_{ {'weight': 'gamma', 'bias': 'beta'}[weight] if norm or 'relu' in layer else weight }"


@torch.no_grad()
def test_a_network_of_mxnet_gives_the_same(tmp_path: Path) -> None:
    network = magface(live(build_backbone(Backbone.IRESNET18), 4))  # MXNet's epsilon is MagFace's
    network.get_parameter("features.weight").fill_(1)
    arrays = {name_by_mxnet(name): value.numpy() for name, value in network.state_dict().items() if value.ndim}
    some = {"arg:conv0_weight", "arg:relu0_gamma", "arg:stage4_unit2_conv1_weight", "arg:stage1_unit1_conv1sc_weight"}
    assert some | {"aux:stage3_unit1_sc_moving_var", "arg:pre_fc1_bias", "aux:fc1_moving_mean"} <= arrays.keys()
    arrays["arg:fc1_gamma"] = np.full(512, 3, np.float32)  # which MXNet does not use
    arrays["arg:fc7_weight"] = np.ones((5, 512), np.float32)
    path = tmp_path / "model-0000.params"
    path.write_bytes(write_params(arrays))
    found = load_backbone(path)
    assert found is not None
    assert found[0] is Backbone.IRESNET18
    wanted = network(PIXELS)
    assert (found[1](PIXELS) - wanted).abs().max() < 1e-4 * wanted.abs().max()

    path.write_bytes(write_params(arrays)[:-3])
    with pytest.raises(WeightsError, match=r"model-0000\.params is not a whole \.params file of MXNet"):
        load_backbone(path)
    path.write_bytes(WRITTEN)
    with pytest.raises(WeightsError, match=r"model-0000\.params: its weights are those of no backbone"):
        load_backbone(path)


@given(
    cut=st.integers(0, len(WRITTEN)),
    flips=st.lists(st.tuples(st.integers(0, len(WRITTEN) - 1), st.integers(0, 255)), max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_are_refused_or_read_whole(cut: int, flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(WRITTEN)
    for place, value in flips:
        damaged[place] = value
    with contextlib.suppress(ValueError, KeyError, struct.error):
        assert len(read_params(bytes(damaged))) <= 2
    if cut < len(WRITTEN):
        with pytest.raises((ValueError, KeyError, struct.error)):
            read_params(WRITTEN[:cut])
