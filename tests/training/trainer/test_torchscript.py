"""Tensors of TorchScript archives are those that PyTorch reads, and none of the code is run."""

from __future__ import annotations

import io
import warnings
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from training.trainer.weights import WeightsError, read_state_dict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


class Inner(nn.Module):
    """Strided views, half precision, a buffer, and attributes that are no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.turned = nn.Parameter(torch.randn(3, 4).t())
        self.short = nn.Parameter(torch.randn(2).half())
        self.register_buffer("every_other", torch.arange(6)[::2])
        self.sizes = [1, 2]
        self.mask = torch.ones(2)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.turned + self.every_other.sum() + self.sizes[0] + self.mask.sum()


class Outer(nn.Module):
    """Modules within modules, of which two share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Inner(), Inner()
        self.second.turned = self.first.turned
        self.scale = nn.Parameter(torch.tensor(2.5).bfloat16())
        self.named: dict[str, int] = {"k": 1}
        self.layers = nn.ModuleList([nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)])

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x) * self.scale


def traced() -> torch.jit.ScriptModule:
    return torch.jit.trace(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), torch.zeros(1, 2))


@pytest.mark.parametrize("make", [lambda: torch.jit.script(Outer()), traced], ids=["scripted", "traced"])
def test_the_tensors_are_those_that_pytorch_reads(make: Callable[[], torch.jit.ScriptModule], tmp_path: Path) -> None:
    make().save(str(tmp_path / "model.pt"))
    expected = torch.jit.load(tmp_path / "model.pt").state_dict()
    found = read_state_dict(tmp_path / "model.pt")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].stride() == tensor.stride()
        assert torch.equal(found[name], tensor)
    if "first.turned" in found:
        assert found["first.turned"].data_ptr() == found["second.turned"].data_ptr()


def changed(change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A whole archive in which members are replaced."""
    whole, made = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(made, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return made.getvalue()


def replaced(member: str, old: bytes, new: bytes) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        assert not name.endswith(member) or old in content
        return content.replace(old, new) if name.endswith(member) else content

    return change


def doubling() -> bytes:
    """Forty modules, each of which is twice in the next."""
    levels = (
        b"c__torch__\nM\n)\x81}(X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cubq%c" % (level, level, level + 1)
        for level in range(40)
    )
    return b"\x80\x02c__torch__\nM\n)\x81q\x00" + b"".join(levels) + b"."


HOSTILE = {
    "another function": (replaced("data.pkl", b"ctorch._utils\n_rebuild", b"cos\nsystem\nc\n_rebuild"), "damaged"),
    "a pickled call": (lambda n, c: b"cos\nsystem\nS'true'\n\x85R." if n.endswith("data.pkl") else c, "STRING is not"),
    "items beyond the storage": (replaced("data.pkl", b"K\x02K\x02t", b"K\x02K\x09t"), "reaches beyond"),
    "a long shape": (replaced("data.pkl", b"K\x02K\x02t", b"J\xff\xff\xff\x7fK\x02t"), "reaches beyond"),
    "a negative shape": (replaced("data.pkl", b"K\x02K\x02t", b"J\xff\xff\xff\xffK\x02t"), "shape of a tensor"),
    "a short storage": (lambda n, c: c[:-4] if n.endswith("/data/0") else c, "bytes instead of"),
    "a long storage": (lambda n, c: c + b"more" if n.endswith("/data/0") else c, "more than"),
    "big-endian numbers": (lambda n, c: b"big" if n.endswith("byteorder") else c, "order of bytes"),
    "a deep tuple": (
        lambda n, c: b"\x80\x02}(" + b")" + b"\x85" * 200_000 + b"Nu." if n.endswith("data.pkl") else c,
        "no tree of modules",
    ),
    "modules that double": (
        lambda n, c: doubling() if n.endswith("data.pkl") else c,
        "no tree of modules",
    ),
    "a module in itself": (
        lambda n, c: (
            b"\x80\x02c__torch__\nM\nq\x00)\x81q\x01}(X\x01\x00\x00\x00ah\x01ub." if n.endswith("data.pkl") else c
        ),
        "no tree of modules",
    ),
}


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_what_pytorch_does_not_write_is_refused(tmp_path: Path, kind: str) -> None:
    change, said = HOSTILE[kind]
    (tmp_path / "model.pt").write_bytes(changed(change))
    with pytest.raises(WeightsError, match=rf"model\.pt is not a file of weights.*{said}"):
        read_state_dict(tmp_path / "model.pt")


def test_compressed_numbers_are_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "bomb.pt").write_bytes(changed(lambda _, content: content, zipfile.ZIP_DEFLATED))
    with pytest.raises(WeightsError, match=r"bomb\.pt .*is compressed"):
        read_state_dict(tmp_path / "bomb.pt")
