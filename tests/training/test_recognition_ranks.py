"""A head whose classes are shared out among processes learns what one that holds them all learns."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training.recognition.config import Margin
from training.recognition.head import ClassHead
from training.trainer.ranks import Ranks

ROOT = Path(__file__).resolve().parents[2]

_STEP = """
import sys
import torch
from safetensors.torch import save_file
from training.recognition.config import Margin
from training.recognition.head import ClassHead, gather_rows
from training.trainer.ranks import join_ranks

CHOSEN = (0, 1, 3, 4, 6, 8, 9, 10)
torch.set_num_threads(1)
made = torch.Generator().manual_seed(5)
vectors = 3 * torch.randn(7, 16, generator=made, dtype=torch.float64)
labels = torch.tensor([0, 3, 3, 9, 10, 4, 6])
with join_ranks("cpu") as ranks:
    head = ClassHead(
        classes=11, dimension=16, margin=Margin(sys.argv[2]), size=0.4, scale=16.0, ranks=ranks, seed=3
    )
    head = head.double()
    first, end = ([0, 7], [0, 3, 7])[ranks.world_size - 1][ranks.rank:ranks.rank + 2]
    own = vectors[first:end].clone().requires_grad_()
    chosen = [c - head.first for c in CHOSEN if head.first <= c < head.first + len(head.weight)]
    sample = torch.tensor(chosen) if sys.argv[3] == "sampled" else None
    found = head(gather_rows(own, first, 7, ranks), labels, sample)
    found.loss.mean().backward()
    if sample is not None:
        head.weight.grad = torch.zeros_like(head.weight).index_copy(0, sample, head.sampled.weight.grad)
    tensors = {
        "loss": found.loss.detach(), "ccs": found.ccs, "nnccs": found.nnccs, "own": own.grad,
        "weight": head.weight.detach(), "gradient": head.weight.grad,
    }
    save_file(tensors, f"{sys.argv[1]}-{ranks.world_size}-{ranks.rank}.safetensors")
"""


@pytest.mark.parametrize("classes", ["all", "sampled"])
@pytest.mark.parametrize("margin", ["arcface", "cosface"])
def test_two_processes_compute_what_one_does(tmp_path: Path, margin: str, classes: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for ranks in (1, 2):
        for rank in range(ranks):
            environment = {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            words = [sys.executable, "-c", _STEP, str(tmp_path / "step"), margin, classes]
            started.append(subprocess.Popen(words, cwd=ROOT, env={**os.environ, **environment}))
    assert [process.wait(120) for process in started] == [0, 0, 0]
    plain, one, two = (load_file(tmp_path / f"step-{name}.safetensors") for name in ("1-0", "2-0", "2-1"))
    for name in ("loss", "ccs", "nnccs"):
        torch.testing.assert_close(one[name], plain[name], rtol=0, atol=1e-6)
        assert torch.equal(one[name], two[name])
    for name in ("own", "weight", "gradient"):
        torch.testing.assert_close(torch.cat([one[name], two[name]]), plain[name], rtol=0, atol=1e-6)
    assert len(one["weight"]) == 5
    assert plain["gradient"].abs().max() > 1e-2


@pytest.mark.parametrize("ranks", [2, 3])
def test_first_weights_are_the_same_however_they_are_shared_out(monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    monkeypatch.setattr("training.recognition.head._BLOCK", 4)

    def weights(rank: int, count: int) -> torch.Tensor:
        place = Ranks(rank=rank, world_size=count, device=torch.device("cpu"))
        head = ClassHead(classes=11, dimension=8, margin=Margin.ARCFACE, size=0.5, scale=64.0, ranks=place, seed=7)
        return head.weight.detach()

    whole = weights(0, 1)
    assert torch.equal(torch.cat([weights(rank, ranks) for rank in range(ranks)]), whole)
    assert len(whole.unique(dim=0)) == 11
