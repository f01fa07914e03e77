"""Recogniser, head and their optimiser: one step of learning, and what a checkpoint has to hold of them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.backbones.networks import DIMENSION, settle_backbone
from training.recognition.config import Centres
from training.recognition.head import ClassHead, gather_rows
from training.recognition.model import Recogniser, prepare
from training.recognition.objective import regression_loss, regression_target, unit
from training.trainer.compilation import compile_network
from training.trainer.loader import Loader, read_spread
from training.trainer.schedule import step_share
from training.trainer.weights import load_strictly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from training.recognition.config import RecognitionConfig
    from training.recognition.data import PeopleImages
    from training.trainer.checkpoint import Checkpoint
    from training.trainer.feeding import MicroBatch
    from training.trainer.ranks import Ranks

RECOGNITION, REGRESSION, ERROR = "recognition", "regression", "error"
"""Terms: the loss of the softmax, that of the regression layer, and the fraction of images that are nearer to another
person's centre than to their own."""

_MODEL, _HEAD = "model.", "head.weight"
_MOMENTUM = "momentum_buffer"
_MEAN_OF, _MEAN_BATCH = 32, 64
"""Images of a person whose mean a centre begins at, at most; and how many are embedded at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Whom images show.

    Attributes:
        labels: int64 [M], of the images of all processes that are computed at the same time.
        first: where those of this process begin.
        sample: the classes of this process that the softmax is over, from `sample_classes`; None: all.
    """

    labels: Tensor
    first: int
    sample: Tensor | None = None

    def change(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with every tensor changed."""
        return replace(self, labels=change(self.labels), sample=None if self.sample is None else change(self.sample))


class RecognitionLearner:
    """Recogniser, head and SGD.

    Args:
        config: all settings.
        classes: C, how many people there are.
        ranks: the processes.
        start: a checkpoint to go on from; None to begin.
        data: what it is to learn from: how much that is decides whether it is compiled, and its faces settle batch
            norms that a published file lacks.

    Attributes:
        model: backbone and regression layer, on the device.
        head: the centres of this process's classes.
    """

    terms = (RECOGNITION, REGRESSION, ERROR)

    def __init__(
        self, config: RecognitionConfig, classes: int, ranks: Ranks, start: Checkpoint | None,
        data: PeopleImages | None = None,
    ) -> None:  # fmt: skip
        self._config, self._ranks = config, ranks
        torch.manual_seed(config.seed)
        assert config.margin_size is not None
        self.model = Recogniser(config.backbone, config.dropout)
        self.head = ClassHead(
            classes=classes, dimension=DIMENSION, margin=config.margin, size=config.margin_size, scale=config.scale,
            ranks=ranks, seed=config.seed,
        )  # fmt: skip
        if start is not None:
            self._load(start.weights, f"the checkpoint of step {start.step}")
        elif config.pretrained:
            self.model.load_published(config.pretrained)
            if data is not None and self.model.backbone.folded:
                settle_backbone(self.model.backbone, prepare(read_spread(data)))
        self.model.to(ranks.device)
        self.head.to(ranks.device)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if start is None and data is not None and config.centres is Centres.MEANS:
            self.head.start_at(self._mean_directions(data))
        images = 0 if data is None else config.count_images(len(data))
        compile_network(self.model, config.compiled, device=ranks.device.type, images=images)
        self._parallel = _join(self.model, ranks)
        self._optimiser = torch.optim.SGD(
            [parameter for _, parameter in self._parameters()],
            lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay,
        )  # fmt: skip
        if config.sample_rate < 1:
            # Rows join one by one, so their momentum is there from the beginning: 0 makes the same first step as none.
            self._optimiser.state[self.head.weight][_MOMENTUM] = torch.zeros_like(self.head.weight)
        if start is not None:
            self._load_momentum(start.state["momentum"])

    @torch.no_grad()
    def _mean_directions(self, data: PeopleImages) -> Tensor:
        """The sums of the embeddings' directions of this process's people [C, D], of at most so many images each."""
        head, device = self.head, self._ranks.device
        _, starts = np.unique(data.labels[order := np.argsort(data.labels, kind="stable")], return_index=True)
        places = np.arange(len(order)) - starts[data.labels[order]]
        rows = np.sort(order[places < _MEAN_OF])
        rows = rows[(data.labels[rows] >= head.first) & (data.labels[rows] < head.first + len(head.weight))]
        sums = torch.zeros_like(head.weight)
        self.model.eval()
        with Loader(data, threads=self._config.threads) as loader:
            for batch in loader.batches(np.array_split(rows, -(-len(rows) // _MEAN_BATCH))):
                embeddings = unit(self.model.backbone(prepare(batch.images.to(device))))
                sums.index_add_(0, torch.from_numpy(data.labels[batch.rows] - head.first).to(device), embeddings)
        self.model.train()
        return sums

    def begin_epoch(self, history: Sequence[Sequence[float]]) -> None:
        """Nothing depends on the epochs before."""

    def rate(self, step: int, steps: int) -> float:  # noqa: ARG002 - this training is measured in steps
        """The share of the highest learning rate at a step, from 0."""
        return step_share(step, drops=self._config.drops, rising=self._config.warm_up)

    def forward_backward(self, micro: MicroBatch[Targets]) -> Tensor:
        """Add a micro-batch to the gradient (CR-FIQA Eq. 6).

        Args:
            micro: what is learned from, on the device; `counts` holds the images of the whole batch.

        Returns:
            The micro-batch's share of every term's mean, float64 [T], on the device.
        """
        config, first, labels = self._config, micro.targets.first, micro.targets.labels
        own = slice(first, first + len(micro.images))
        with self._hold_gradients() if not micro.last else contextlib.nullcontext():
            with torch.autocast(self._ranks.device.type, torch.bfloat16, enabled=config.bf16):
                embeddings, qualities = self._parallel(micro.images, micro.flipped)
            every = gather_rows(embeddings.float(), first, len(labels), self._ranks)
            found = self.head(every, labels, micro.targets.sample)
            wanted = regression_target(found.ccs[own], found.nnccs[own], config.target)
            regression = regression_loss(qualities.float(), wanted, config.threshold)
            # Every process has the softmax of all, and its own part of the regression.
            loss = (found.loss.sum() + config.balance * regression.sum()) / micro.counts[0]
            loss.backward()
        errors = found.ccs[own] <= found.nnccs[own]
        terms = (found.loss.detach()[own], regression.detach(), errors)
        return torch.stack([term.double().sum() for term in terms]) / micro.counts[0]

    def optimizer_step(self, rate: float) -> None:
        """Move the weights, at this share of the highest learning rate.

        Of classes that were not sampled neither centre nor momentum moves, nor does weight decay pull at the centre, as
        in ArcFace's code (`sample_rate`): SGD sees the sampled rows alone. Weight decay would else shrink a centre, and
        old momentum carry it on, in ten steps for every one in which the softmax says where it belongs.
        """
        nn.utils.clip_grad_norm_(self.model.parameters(), self._config.clip)
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.learning_rate * rate
        with self._sampled_alone():
            self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def sync_buffers(self) -> None:
        """Give every process the batch statistics of the first, which are those that are saved."""
        self._ranks.copy_from_first(self.model.buffers())

    def losses(self, means: Sequence[float]) -> dict[str, float]:
        """The T means by name, behind their sum that is learned from."""
        found = dict(zip(self.terms, means, strict=True))
        return {"total": found[RECOGNITION] + self._config.balance * found[REGRESSION], **found}

    def curves(self, rate: float) -> dict[str, float]:
        """The learning rate."""
        return {"rate": rate * self._config.learning_rate}

    def weights(self) -> dict[str, Tensor]:
        """The weights by name, with all centres in process 0."""
        own = {_MODEL + name: value for name, value in self.model.state_dict().items()}
        return own | self._whole(_HEAD, self.head.weight)

    def centres(self) -> Tensor | None:
        """The centres of all classes [C, D] in process 0, None in the others; called in every process at once."""
        return self._whole(_HEAD, self.head.weight.detach()).get(_HEAD)

    def state(self) -> dict[str, Any]:
        """What else a checkpoint has to hold of them: the momentum of every weight."""
        moments = {name: self._optimiser.state[value].get(_MOMENTUM) for name, value in self._parameters()}
        if any(moment is None for moment in moments.values()):
            return {"momentum": {}}
        return {"momentum": moments | self._whole(_HEAD, moments[_HEAD])}

    @contextlib.contextmanager
    def _sampled_alone(self) -> Iterator[None]:
        """Show the optimiser the sampled classes in the place of all, and take over what it made of them."""
        sampled, whole, state = self.head.sampled, self.head.weight, self._optimiser.state
        if sampled is None:
            yield
            return
        places, rows, part = self._optimiser.param_groups[0]["params"], sampled.rows, sampled.weight
        places[-1], state[part] = part, {_MOMENTUM: state[whole][_MOMENTUM][rows]}
        yield
        with torch.no_grad():
            whole[rows] = part
        state[whole][_MOMENTUM][rows] = state.pop(part)[_MOMENTUM]
        places[-1], self.head.sampled = whole, None

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is learned, by name, in an order of its own."""
        for name, value in self.model.named_parameters():
            if value.requires_grad:
                yield _MODEL + name, value
        yield _HEAD, self.head.weight

    def _whole(self, name: str, own: Tensor) -> dict[str, Tensor]:
        """The rows of all classes, in process 0; nothing in the others."""
        if self._ranks.world_size == 1:
            return {name: own}
        parts = self._ranks.collect(own)
        return {name: torch.cat(parts)} if parts else {}

    def _own(self, whole: Tensor) -> Tensor:
        """The rows of this process's classes."""
        return whole[self.head.first : self.head.first + len(self.head.weight)]

    def _load(self, weights: Mapping[str, Tensor], place: str) -> None:
        """Take the weights of a checkpoint."""
        model = {n.removeprefix(_MODEL): value for n, value in weights.items() if n.startswith(_MODEL)}
        load_strictly(self.model, model, place)
        load_strictly(self.head, {"weight": self._own(weights[_HEAD])}, place)

    def _load_momentum(self, saved: Mapping[str, Tensor]) -> None:
        """Take the momentum of a checkpoint, in the memory layout of the weights of now."""
        for name, value in self._parameters() if saved else ():
            moment = self._own(saved[name]) if name == _HEAD else saved[name]
            self._optimiser.state[value][_MOMENTUM] = torch.empty_like(value).copy_(moment)

    def _hold_gradients(self) -> contextlib.AbstractContextManager[None]:
        """Keep the processes from adding up their gradients yet."""
        if isinstance(self._parallel, DistributedDataParallel):
            return self._parallel.no_sync()
        return contextlib.nullcontext()


def _join(model: nn.Module, ranks: Ranks) -> nn.Module:
    """The model, joined to the other processes, whose gradients are added up."""
    if ranks.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    if ranks.world_size == 1:
        return model
    places = [ranks.device] if ranks.device.type == "cuda" else None
    joined = DistributedDataParallel(model, device_ids=places, broadcast_buffers=False, gradient_as_bucket_view=True)
    joined.register_comm_hook(None, lambda _, bucket: _add_up(bucket))
    return joined


def _add_up(bucket: Any) -> torch.futures.Future[Tensor]:
    """The sum over the processes; DistributedDataParallel itself would take the mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])
