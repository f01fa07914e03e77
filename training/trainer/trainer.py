"""The loop that every training shares: steps, curves, checkpoints, and the end that a signal asks for.

The place in the training is one number, the step. Batches, mirroring and learning rate are functions of it, so what a
checkpoint has to hold is the weights, the optimiser, random states, and the sums of the epoch that is under way.
"""

from __future__ import annotations

import logging
import math
from enum import Enum
from itertools import tee
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from training.trainer.checkpoint import Checkpoint, CheckpointError, CheckpointFolder, random_state, set_random_state
from training.trainer.feeding import send_ahead
from training.trainer.loader import Images, Loader
from training.trainer.progress import TrainingProgress
from training.trainer.run_folder import Curves
from training.trainer.sampler import Sampler
from training.trainer.stopping import StopRequest, remember_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from training.trainer.feeding import MicroBatch
    from training.trainer.ranks import Ranks
    from training.trainer.run_folder import RunFolder
    from training.trainer.sampler import Work

    Assemble = Callable[[Work, Tensor], MicroBatch[Any]]
    """Makes a micro-batch of its rows and their images, uint8 [n, 112, 112, 3]; all on the CPU."""

logger = logging.getLogger(__name__)


class Outcome(Enum):
    """How a run of the trainer ended."""

    FINISHED = "finished"
    STOPPED = "told to stop, and saved"
    LIMITED = "saved after the number of steps that was asked for"


class RunEnded(Exception):  # noqa: N818 - no error: what has to be saved is saved
    """A run ends before the training does.

    Attributes:
        outcome: why.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


class LossError(FloatingPointError):
    """The loss is not finite."""


class Learner(Protocol):
    """What is trained: networks, their loss and their optimiser."""

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the T terms of the loss."""

    def begin_epoch(self, history: Sequence[Sequence[float]]) -> None:
        """Take the T means of every epoch so far into account."""

    def rate(self, step: int, steps: int) -> float:
        """The share of the highest learning rates at a step, with so many steps in an epoch."""

    def forward_backward(self, micro: MicroBatch[Any]) -> Tensor:
        """Add a micro-batch to the gradient; gives its shares of the T means over the batch, float64 on the device."""

    def optimizer_step(self, rate: float) -> None:
        """Move the weights, at this share of the highest learning rates."""

    def sync_buffers(self) -> None:
        """Give every process the buffers of the first, which are those that are saved."""

    def losses(self, means: Sequence[float]) -> dict[str, float]:
        """What is shown of the T means, the total first."""

    def curves(self, rate: float) -> dict[str, float]:
        """What else is worth a curve, at this share of the highest learning rates."""

    def weights(self) -> Mapping[str, Tensor]:
        """The weights by name, all of them in process 0; called in every process at once."""

    def state(self) -> Mapping[str, Any]:
        """What else a checkpoint has to hold, plain values and tensors; likewise."""


class LoopSettings(Protocol):
    """What the loop has to know of a training's settings; see `training.quality.config.TrainingConfig`."""

    @property
    def batch(self) -> int:
        """Images in a step, over all processes."""

    @property
    def accumulation(self) -> int:
        """Parts into which a process divides its images of a step."""

    def count_steps(self, epoch_steps: int) -> int:
        """Steps in all, with so many in a pass over the images."""

    @property
    def seed(self) -> int:
        """Of order and mirroring."""

    @property
    def threads(self) -> int:
        """Threads that decode images."""

    @property
    def keep(self) -> int:
        """Checkpoints that are kept."""

    @property
    def checkpoint_every(self) -> int:
        """Steps between two checkpoints."""

    @property
    def log_every(self) -> int:
        """Steps between two points of every curve."""


AnyLearner = TypeVar("AnyLearner", bound=Learner)


class Trainer(Generic[AnyLearner]):
    """One training, new or taken up again from the last checkpoint of its folder.

    Args:
        config: settings of the loop.
        data: what is learned from.
        ranks: the processes.
        folder: where it writes.
        build: makes what is trained, new or as a checkpoint holds it.

    Attributes:
        learner: what is trained.
        epoch_steps: steps in an epoch.
        steps: steps in all.
        step: steps done in all.
        history: the means of the learner's terms in every epoch.
        weights_sha256: of the weights of the last checkpoint; known to the process that wrote it, or read it.

    Raises:
        ValueError: if a batch is too small to give every process an image.
        CheckpointError: if there are checkpoints, and none can be used.
    """

    _stop: StopRequest
    _meter: TrainingProgress
    _curves: Curves
    _limit: float

    def __init__(
        self,
        config: LoopSettings,
        data: Images,
        ranks: Ranks,
        folder: RunFolder,
        build: Callable[[Checkpoint | None], AnyLearner],
    ) -> None:
        self._config, self._data, self._ranks, self._folder = config, data, ranks, folder
        self._sampler = Sampler(
            images=len(data), batch=config.batch, seed=config.seed,
            rank=ranks.rank, ranks=ranks.world_size, parts=config.accumulation,
        )  # fmt: skip
        self.epoch_steps = self._sampler.steps
        self.steps = config.count_steps(self.epoch_steps)
        self._store = CheckpointFolder(root=folder.checkpoints, run=folder.fingerprint, keep=config.keep)
        found = self._store.load()
        self.learner = build(found)
        self.step = 0
        self.history: list[list[float]] = []
        self.weights_sha256 = ""
        self._saved_step = -1
        terms = len(self.learner.terms)
        self._sums = torch.zeros(terms, dtype=torch.float64, device=ranks.device)  # of this epoch and process
        self._recent, self._recent_steps = torch.zeros_like(self._sums), 0
        torch.manual_seed(config.seed + ranks.rank)
        if found is not None:
            self._restore(found)
        self.learner.begin_epoch(self.history)
        steps = ranks.gather(self.step)
        if len(set(steps)) > 1:
            raise CheckpointError(f"{folder.root}: the processes see other checkpoints there (steps {steps}); share it")

    def run(self, phases: Callable[[], None], limit: int | None = None) -> Outcome:
        """Train until the phases are done, or until told to stop.

        Args:
            phases: calls `train` and `predict` one after the other, and what else is to be done between them.
            limit: stop, and save, after so many steps in all.

        Raises:
            LossError: if the loss is not finite.
            TrainingDataError: if an image cannot be read.
        """
        self._limit = math.inf if limit is None else limit
        shown = self._ranks.is_main
        with (
            remember_signals() as self._stop,
            TrainingProgress(total=self.steps, done=self.step, shown=shown) as self._meter,
            Curves(self._folder, self.step, shown=shown) as self._curves,
        ):
            try:
                phases()
            except RunEnded as ended:
                return ended.outcome
        return Outcome.FINISHED

    def train(self, until: int, assemble: Assemble, phase: str) -> None:
        """Step until a step; does nothing where it is reached already.

        Args:
            until: the step.
            assemble: makes the micro-batches.
            phase: its name, for people.

        Raises:
            RunEnded: if the run was told to stop, or has come to its limit.
        """
        if self.step < until and self.step >= self._limit:
            raise RunEnded(Outcome.LIMITED)
        self._meter.resume()
        work, decoding, assembling = tee(self._sampler.work(self.step, until), 3)
        with self._load(self._data) as loader:
            images = (batch.images for batch in loader.batches(item.rows for item in decoding))
            micros = send_ahead(map(assemble, assembling, images), self._ranks.device)
            for item, micro in zip(work, micros, strict=True):
                shares = self.learner.forward_backward(micro)
                self._sums += shares
                self._recent += shares
                if item.last:
                    self.learner.optimizer_step(self._rate())
                    self._meter.advance(len(item.whole))
                    self._end_step(until, phase)

    def predict(self, data: Images, compute: Callable[[Tensor], Tensor], name: str) -> NDArray[np.float32]:
        """A few numbers for every image of a set, computed by all processes together.

        Args:
            data: M images, at least one.
            compute: uint8 [n, 112, 112, 3] on the CPU to float32 [n, K] on the CPU.
            name: what is computed, for people.

        Returns:
            float32 [M, K], the same in every process.

        Raises:
            RunEnded: if the run was told to stop.
        """
        self.learner.sync_buffers()
        ranks = self._ranks
        mine = np.array_split(np.arange(len(data)), ranks.world_size)[ranks.rank]
        size = max(1, self._config.batch // ranks.world_size)
        # Every process goes through as many pieces as the first, the last of which may be empty.
        longest = -(-len(data) // ranks.world_size)
        pieces = [mine[start : start + size] for start in range(0, longest, size)]
        own: list[NDArray[np.float32]] = []
        with self._load(data) as loader:
            for done, piece in enumerate(loader.batches(pieces)):
                if ranks.any(self._stop.made):
                    raise RunEnded(Outcome.STOPPED)
                if len(piece.rows):
                    own.append(compute(piece.images).numpy())
                self._meter.note(f"{name}: {done / len(pieces):.0%}")
        return np.concatenate([part for parts in ranks.gather(own) for part in parts])

    def add_curves(self, values: Mapping[str, float]) -> None:
        """Add a point to curves at this step, in the process that writes."""
        self._curves.add(self.step, values)

    def _load(self, data: Images) -> Loader:
        """What decodes the images of a set."""
        return Loader(data, threads=self._config.threads, pinned=self._ranks.device.type == "cuda")

    def _rate(self) -> float:
        """The share of the highest learning rates at this step."""
        return self.learner.rate(self.step, self.epoch_steps)

    def _end_step(self, until: int, phase: str) -> None:
        """Count a step, write what is due after it, and end the run if it is to end here."""
        self.step += 1
        self._recent_steps += 1
        stopped = self._ranks.any(self._stop.made)
        limited = self.step >= self._limit
        pause = self.step == until or stopped or limited
        if self.step % self._config.log_every == 0 or pause:
            self._log(phase)
        if self.step % self.epoch_steps == 0:
            self._end_epoch()
        if self.step % self._config.checkpoint_every == 0 or pause:
            self._save()
            self._meter.resume()
        if stopped or limited:
            raise RunEnded(Outcome.STOPPED if stopped else Outcome.LIMITED)

    def _log(self, phase: str) -> None:
        """Add a point to the curves and renew the live line."""
        means = (self._ranks.sum(self._recent.cpu()) / self._recent_steps).tolist()
        self._recent.zero_()
        self._recent_steps = 0
        if not all(map(math.isfinite, means)):
            raise LossError(
                f"the loss is not finite at step {self.step}: lower the learning rate, or start from other weights; "
                f"the checkpoints in {self._folder.checkpoints} are from before"
            )
        losses = self.learner.losses(means)
        values = {f"loss/{name}": value for name, value in losses.items()} | self.learner.curves(self._rate())
        self.add_curves({**values, "speed/images_per_second": self._meter.speed})
        self._meter.show(
            f"{phase}, epoch {-(-self.step // self.epoch_steps)} of {-(-self.steps // self.epoch_steps)}", losses
        )

    def _end_epoch(self) -> None:
        """Keep the epoch's means, by which a learner may weigh the next, and add them to the curves."""
        self.history.append((self._ranks.sum(self._sums.cpu()) / self.epoch_steps).tolist())
        self.add_curves({f"epoch/{name}": mean for name, mean in self.learner.losses(self.history[-1]).items()})
        self._sums.zero_()
        self.learner.begin_epoch(self.history)

    def _save(self) -> None:
        """Write a checkpoint, unless this step has one."""
        if self.step == self._saved_step:
            return
        parts = self._ranks.gather({"sums": self._sums.cpu(), "random": random_state(self._ranks.device)})
        if not all(bool(part["sums"].isfinite().all()) for part in parts):
            raise LossError(f"the loss is not finite by step {self.step}: lower the learning rate")
        weights, state = self.learner.weights(), self.learner.state()
        if self._ranks.is_main:
            checkpoint = Checkpoint(
                step=self.step, weights=weights, state={**state, "history": self.history, "ranks": parts}
            )
            self.weights_sha256 = self._store.save(checkpoint)
        self._saved_step = self.step

    def _restore(self, found: Checkpoint) -> None:
        """Go on where a checkpoint stands."""
        ranks, parts = self._ranks, found.state["ranks"]
        self.step = self._saved_step = found.step
        self.history = [list(epoch) for epoch in found.state["history"]]
        self.weights_sha256 = found.weights_sha256
        if len(parts) == ranks.world_size:
            self._sums = parts[ranks.rank]["sums"].to(ranks.device)
            set_random_state(parts[ranks.rank]["random"], ranks.device)
        else:
            logger.warning(
                "%d processes go on with what %d began: the last bits may differ", ranks.world_size, len(parts)
            )
            if ranks.is_main:
                self._sums = torch.stack([part["sums"] for part in parts]).sum(0).to(ranks.device)
        if ranks.is_main:
            logger.info("going on from step %d", self.step)
