"""What a step takes: put on the device while the step before it is computed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor


class Tensors(Protocol):
    """A few tensors that travel together."""

    def change(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with every tensor changed."""


Targets = TypeVar("Targets", bound=Tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch(Generic[Targets]):
    """What one forward and backward pass takes.

    Attributes:
        images: uint8 [n, 112, 112, 3].
        flipped: bool [n].
        targets: what is to be learned of the n images.
        counts: for every term, how many images of the whole batch have its label.
        last: whether it is the last of this process in the batch: then the processes add up their gradients.
    """

    images: Tensor
    flipped: Tensor
    targets: Targets
    counts: Sequence[int]
    last: bool

    def change(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with every tensor changed."""
        targets = self.targets.change(change)
        return replace(self, images=change(self.images), flipped=change(self.flipped), targets=targets)


def send_ahead(micros: Iterable[MicroBatch[Targets]], device: torch.device) -> Iterator[MicroBatch[Targets]]:
    """Send micro-batches to the device, each before the one in front of it is asked for.

    A GPU copies in a stream of its own, from page-locked memory, while it computes in another; neither it nor the
    processor waits.

    Args:
        micros: on the CPU; one more is taken than is given.
        device: where they are needed.
    """
    side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    waiting: deque[_Sent[Targets]] = deque()
    for micro in micros:
        waiting.append(_send(micro, device, side))
        if len(waiting) > 1:
            yield _receive(waiting.popleft(), device)
    while waiting:
        yield _receive(waiting.popleft(), device)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent(Generic[Targets]):
    """A micro-batch on its way, and what tells a GPU that it is there."""

    micro: MicroBatch[Targets]
    arrived: torch.cuda.Event | None


def _send(micro: MicroBatch[Targets], device: torch.device, side: torch.cuda.Stream | None) -> _Sent[Targets]:
    """Begin to copy."""
    if side is None:
        return _Sent(micro=micro.change(lambda tensor: tensor.to(device)), arrived=None)
    with torch.cuda.stream(side):
        sent = micro.change(lambda tensor: _lock(tensor).to(device, non_blocking=True))
        return _Sent(micro=sent, arrived=side.record_event())


def _lock(tensor: Tensor) -> Tensor:
    """In page-locked memory, where the loader has put the images already."""
    return tensor if tensor.is_pinned() else tensor.pin_memory()


def _receive(sent: _Sent[Targets], device: torch.device) -> MicroBatch[Targets]:
    """Let the stream that computes wait for the copy, and keep the memory until it has computed."""
    if sent.arrived is None:
        return sent.micro
    computing = torch.cuda.current_stream(device)
    computing.wait_event(sent.arrived)

    def keep(tensor: Tensor) -> Tensor:
        tensor.record_stream(computing)
        return tensor

    return sent.micro.change(keep)
