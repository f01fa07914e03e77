"""The processes of one training: how many there are, what they agree on, and what they tell each other.

torchrun starts them and says in the environment who is who; a training started without it is one process.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

_PATIENCE = timedelta(minutes=30)
"""How long a process waits for another: as long as the slowest single thing, the writing of a checkpoint, may take."""


class DeviceError(RuntimeError):
    """The device that was asked for is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those of the training.

    Attributes:
        rank: its number, from 0; 0 writes.
        world_size: how many there are.
        device: where it computes.
        control: the group by which processes agree on plain values, on the processor; None for one process.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device
    control: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all wait for each other."""
        if self.world_size == 1:
            return flag
        message = torch.tensor([int(flag)])
        dist.all_reduce(message, dist.ReduceOp.MAX, group=self.control)
        return bool(message.item())

    def gather(self, value: Any) -> list[Any]:
        """The plain value of every process, by rank, in every process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes of a tensor on the processor."""
        total = values.clone()
        if self.world_size > 1:
            dist.all_reduce(total, group=self.control)
        return total

    def collect(self, own: Tensor) -> list[Tensor]:
        """The tensors of all processes on the processor, by rank, in process 0; nothing in the others."""
        mine = own.detach().cpu().contiguous()
        shapes = self.gather(tuple(mine.shape))
        if not self.is_main:
            dist.send(mine, 0, group=self.control)
            return []
        found = [mine]
        for rank, shape in enumerate(shapes[1:], start=1):
            found.append(torch.empty(shape, dtype=mine.dtype))
            dist.recv(found[-1], rank, group=self.control)
        return found

    def wait(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            dist.barrier(group=self.control)

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors on the device by those of process 0."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)


@contextlib.contextmanager
def join_ranks(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, or be one process without it.

    Args:
        device: cpu or cuda; with several processes every one gets the GPU of its number on its machine.

    Raises:
        DeviceError: if there is no such GPU.
    """
    environment = os.environ
    world_size = int(environment.get("WORLD_SIZE", "1"))
    place = _find_device(device, int(environment.get("LOCAL_RANK", "0")))
    if world_size == 1:
        yield Ranks(device=place)
        return
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        control = dist.new_group(backend="gloo", timeout=_PATIENCE)
        yield Ranks(rank=dist.get_rank(), world_size=world_size, device=place, control=control)
    finally:
        dist.destroy_process_group()


def _find_device(device: str, number: int) -> torch.device:
    """The device by its name; never another one in its place."""
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError("no GPU can be used here: ask for the device cpu, or install a driver that fits PyTorch")
    if number >= torch.cuda.device_count():
        raise DeviceError(f"process {number} has no GPU of its own, there are {torch.cuda.device_count()}")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
