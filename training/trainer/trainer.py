"""Trains the quality model: phase one, the confidence of every image, phase two (CLIB-FIQA section 3).

The place in the training is one number, the step. Batches, mirroring and learning rate are functions of it, so what a
checkpoint has to hold is the weights, the optimiser, random states, and the sums of the epoch that is under way.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from enum import Enum
from itertools import tee
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.quality.calibration import ConfidenceError
from training.quality.confidence_file import read_made_from, write_aside
from training.quality.held_out import Moment, compare
from training.quality.learner import Learner
from training.quality.objective import MERGED, TOTAL, Targets
from training.trainer.checkpoint import Checkpoint, CheckpointError, CheckpointFolder
from training.trainer.feeding import MicroBatch, send_ahead
from training.trainer.loader import Loader
from training.trainer.plan import Plan, Work
from training.trainer.progress import Meter
from training.trainer.random_state import random_state, set_random_state
from training.trainer.run_folder import Curves, RunFolder
from training.trainer.sampler import Sampler
from training.trainer.schedule import rate_share
from training.trainer.stopping import StopRequest, remember_signals
from training.trainer.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from training.quality.config import TrainingConfig
    from training.quality.data import LabelledImages, TrainingSet
    from training.trainer.ranks import Ranks

logger = logging.getLogger(__name__)


class Outcome(Enum):
    """How a run of the trainer ended."""

    FINISHED = "finished"
    STOPPED = "told to stop, and saved"
    LIMITED = "saved after the number of steps that was asked for"


class LossError(FloatingPointError):
    """The loss is not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tools:
    """What is open while a run lasts."""

    loader: Loader
    meter: Meter
    curves: Curves
    stop: StopRequest
    limit: float


class Trainer:
    """One training, new or taken up again from the last checkpoint of its folder.

    Args:
        config: all settings.
        data: what is learned from.
        ranks: the processes.
        folder: where it writes.

    Raises:
        ValueError: if a batch is too small to give every process an image.
        CheckpointError: if there are checkpoints, and none can be used.
    """

    def __init__(self, config: TrainingConfig, data: TrainingSet, ranks: Ranks, folder: RunFolder) -> None:
        self._config, self._data, self._ranks, self._folder = config, data, ranks, folder
        self._sampler = Sampler(images=len(data), batch=config.batch, seed=config.seed)
        self._plan = Plan(sampler=self._sampler, rank=ranks.rank, ranks=ranks.count, parts=config.accumulation)
        self._store = CheckpointFolder(root=folder.checkpoints, run=folder.fingerprint, keep=config.keep)
        found = self._store.load()
        self._learner = Learner(config, ranks, found)
        terms = len(self._learner.objective.names)
        self._step = 0
        self._history: list[list[float]] = []
        self._sums = torch.zeros(terms, dtype=torch.float64, device=ranks.device)  # of this epoch and process
        self._recent, self._recent_steps = torch.zeros_like(self._sums), 0
        self._rho: NDArray[np.float32] | None = None
        self._saved_step = -1
        self._source = ""  # SHA-256 of the weights after phase one, of which the confidences are made
        torch.manual_seed(config.seed + ranks.rank)
        if found is not None:
            self._restore(found)
        steps = ranks.gather(self._step)
        if len(set(steps)) > 1:
            raise CheckpointError(f"{folder.root}: the processes see other checkpoints there (steps {steps}); share it")

    @property
    def step(self) -> int:
        """Steps done in all."""
        return self._step

    @property
    def learner(self) -> Learner:
        """The networks as they are now."""
        return self._learner

    def run(self, limit: int | None = None) -> Outcome:
        """Train to the end, or until told to stop.

        Args:
            limit: stop, and save, after so many steps in all.

        Raises:
            LossError: if the loss is not finite.
            TrainingDataError: if an image cannot be read.
            ConfidenceError: if the confidences are gone with which the second phase was begun.
        """
        config, first = self._config, self._ranks.first
        end_one, end = (epochs * self._sampler.steps for epochs in (config.epochs_one, config.epochs))
        with (
            remember_signals() as stop,
            self._load(self._data) as loader,
            Meter(total=end, done=self._step, shown=first) as meter,
            Curves(self._folder, self._step, shown=first) as curves,
        ):
            tools = _Tools(
                loader=loader, meter=meter, curves=curves, stop=stop, limit=math.inf if limit is None else limit
            )
            ended = self._train(end_one, tools)
            if ended is None and self._step == end_one < end:
                ended = self._judge(Moment.PHASE_ONE, tools)
            if ended is None and config.calibrated:
                ended = self._calibrate(end_one, tools)
            if ended is None:
                ended = self._train(end, tools)
            if ended is None:
                ended = self._judge(Moment.END, tools)
        if ended is None and first:
            last = dict(zip(self._learner.objective.names, self._history[-1], strict=True))
            self._folder.finish(config, self._learner.heads, last)
        self._ranks.wait()
        return ended or Outcome.FINISHED

    def _train(self, until: int, tools: _Tools) -> Outcome | None:
        """Step until a step; None when it is reached."""
        if self._step < until and self._step >= tools.limit:
            return Outcome.LIMITED
        tools.meter.resume()
        work, ahead = tee(self._plan.work(self._step, until))
        weights = self._learner.objective.weights(self._history)
        for item, micro in zip(work, send_ahead(self._micro_batches(ahead, tools), self._ranks.device), strict=True):
            shares = self._learner.learn(micro, weights)
            self._sums += shares
            self._recent += shares
            if not item.last:
                continue
            self._learner.update(self._rate())
            self._step += 1
            self._recent_steps += 1
            tools.meter.advance(len(item.whole))
            if self._step % self._sampler.steps == 0:
                self._close_epoch()
            if ended := self._after_step(until, weights, tools):
                return ended
            weights = self._learner.objective.weights(self._history)
        return None

    def _micro_batches(self, work: Iterator[Work], tools: _Tools) -> Iterator[MicroBatch]:
        """Decoded images with their targets, on the CPU."""
        data = self._data
        work, ahead = tee(work)
        for item, batch in zip(work, tools.loader.batches(later.rows for later in ahead), strict=True):
            rows, whole = item.rows, item.whole
            targets = Targets(
                quality=torch.from_numpy(data.quality[rows]),
                classes=torch.from_numpy(data.classes[rows]).long(),
                rho=None if self._rho is None else torch.from_numpy(self._rho[rows]),
            )
            yield MicroBatch(
                images=batch.images,
                flipped=torch.from_numpy(item.flipped),
                targets=targets,
                counts=self._learner.objective.count(data.quality[whole], data.classes[whole]),
                last=item.last,
            )

    def _rate(self) -> float:
        """The share of the highest learning rate at this step."""
        steps, rules = self._sampler.steps, self._config.rules
        return rate_share(
            self._step,
            steps=steps,
            epochs=self._config.epochs,
            recipe=rules.schedule,
            warm_up=self._config.warm_up,
        )

    def _after_step(self, until: int, weights: tuple[float, ...], tools: _Tools) -> Outcome | None:
        """Write what is due after a step, and say whether the run ends here."""
        boundary = self._step == until
        stopped = self._ranks.any(tools.stop.made)
        limited = self._step >= tools.limit
        if self._step % self._config.log_every == 0 or boundary or stopped or limited:
            self._log(weights, tools)
        if self._step % self._config.checkpoint_every == 0 or boundary or stopped or limited:
            self._save()
            tools.meter.resume()
        if stopped:
            return Outcome.STOPPED
        return Outcome.LIMITED if limited else None

    def _log(self, weights: tuple[float, ...], tools: _Tools) -> None:
        """Add a point to the curves and renew the live line."""
        means = (self._ranks.sum(self._recent.cpu()) / self._recent_steps).tolist()
        self._recent.zero_()
        self._recent_steps = 0
        if not all(map(math.isfinite, means)):
            raise LossError(
                f"the loss is not finite at step {self._step}: lower the learning rate, or start from other weights; "
                f"the checkpoints in {self._folder.checkpoints} are from before"
            )
        names = self._learner.objective.names
        losses = dict(zip(names, means, strict=True))
        total = sum(w * losses[name] for name, w in zip(names, weights, strict=True) if name != MERGED)
        shown = {TOTAL: total, **losses}
        rate = self._rate()
        values = {f"loss/{name}": value for name, value in shown.items()}
        values |= {f"weight/{name}": w for name, w in zip(names, weights, strict=True)}
        values |= {"rate/tower": rate * self._config.learning_rate, "speed/images_per_second": tools.meter.speed}
        tools.curves.add(self._step, values)
        tools.meter.show(self._phase(), shown)

    def _phase(self) -> str:
        """Where the training is, in words."""
        epoch = min(-(-self._step // self._sampler.steps), self._config.epochs)
        phase = "one" if epoch <= self._config.epochs_one else "two"
        return f"phase {phase}, epoch {epoch} of {self._config.epochs}"

    def _close_epoch(self) -> None:
        """Keep the epoch's means, by which the released recipe weighs the next."""
        self._history.append((self._ranks.sum(self._sums.cpu()) / self._sampler.steps).tolist())
        self._sums.zero_()

    def _calibrate(self, end_one: int, tools: _Tools) -> Outcome | None:
        """The confidence of every image after phase one: read if it was computed before, else computed and stored."""
        folder = self._folder
        notes = {"fingerprint": folder.fingerprint, "weights": self._ranks.gather(self._source)[0]}
        keys = self._data.labels.keys[self._data.rows]
        rho = read_made_from(folder.confidence, keys, notes)
        if self._ranks.any(rho is None):
            if self._step > end_one:
                raise ConfidenceError(
                    f"{folder.confidence}: not the table with which phase two was begun; put it back, or train anew in "
                    "another folder"
                )
            found = self._sweep(tools.loader, len(self._data), self._measure, tools, "confidence of the images")
            if found is None:
                return Outcome.STOPPED
            js, rho = np.ascontiguousarray(found.T)
            if self._ranks.first:
                write_aside(folder.confidence, self._data, js, rho, notes)
                tools.curves.add(self._step, {"confidence/mean": float(rho.mean()), "confidence/js": float(js.mean())})
            self._ranks.wait()
        self._rho = rho
        return None

    def _measure(self, images: Tensor) -> Tensor:
        """Divergence and confidence of some images, float32 [n, 2]."""
        found = self._learner.calibrate(images)
        return torch.stack([found.js, found.confidence], dim=1)

    def _judge(self, moment: Moment, tools: _Tools) -> Outcome | None:
        """Hold the model against the labels of the people who were held out, if there are any."""
        data = self._data.held_out
        if data is None:
            return None
        with self._load(data) as loader:
            numbers = self._sweep(loader, len(data), self._learner.score, tools, "people held out")
        if numbers is None:
            return Outcome.STOPPED
        if not np.isfinite(numbers).all():
            raise LossError("the model gives no number for people held out: it has diverged; lower the learning rate")
        if self._ranks.first:
            found = compare(numbers, data, self._config.terms.factors)
            self._folder.add_metrics(moment, found)
            tools.curves.add(self._step, found.curves())
            logger.info("%s: %s", moment.words, found)
        self._ranks.wait()
        return None

    def _sweep(
        self, loader: Loader, images: int, compute: Callable[[Tensor], Tensor], tools: _Tools, name: str
    ) -> NDArray[np.float32] | None:
        """A few numbers for every image, float32 [M, K]; None if the run was told to stop."""
        self._learner.level()
        sweep = Sweep(
            ranks=self._ranks,
            batch=self._config.batch,
            stopped=lambda: tools.stop.made,
            advance=lambda share: tools.meter.note(f"{name}: {share:.0%}"),
        )
        return sweep.run(loader, images, compute)

    def _load(self, data: LabelledImages) -> Loader:
        """What decodes the images of a set."""
        return Loader(data, threads=self._config.threads, pinned=self._ranks.device.type == "cuda")

    def _save(self) -> None:
        """Write a checkpoint, unless this step has one."""
        if self._step == self._saved_step:
            return
        parts = self._ranks.gather({"sums": self._sums.cpu(), "random": random_state(self._ranks.device)})
        if not all(bool(part["sums"].isfinite().all()) for part in parts):
            raise LossError(f"the loss is not finite by step {self._step}: lower the learning rate")
        if self._ranks.first:
            state = {**self._learner.state(), "history": self._history, "source": self._source, "ranks": parts}
            weights = self._store.save(Checkpoint(step=self._step, weights=self._learner.weights(), state=state))
            if self._step == self._config.epochs_one * self._sampler.steps:
                self._source = weights
        self._saved_step = self._step

    def _restore(self, found: Checkpoint) -> None:
        """Go on where a checkpoint stands."""
        state, ranks = found.state, self._ranks
        self._step = self._saved_step = found.step
        self._history = [list(epoch) for epoch in state["history"]]
        at_end = found.step == self._config.epochs_one * self._sampler.steps
        self._source = found.weights_sha256 if at_end else state["source"]
        parts = state["ranks"]
        if len(parts) == ranks.count:
            self._sums = parts[ranks.rank]["sums"].to(ranks.device)
            set_random_state(parts[ranks.rank]["random"], ranks.device)
        else:
            logger.warning("%d processes go on with what %d began: the last bits may differ", ranks.count, len(parts))
            if ranks.first:
                self._sums = torch.stack([part["sums"] for part in parts]).sum(0).to(ranks.device)
        if ranks.first:
            logger.info("going on from step %d", self._step)
