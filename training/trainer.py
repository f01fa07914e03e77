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

from training.calibration import ConfidenceError
from training.checkpoint import Checkpoint, CheckpointError, CheckpointFolder
from training.confidence_file import read_made_from, write_aside
from training.learner import Learner, MicroBatch
from training.loader import Batch, Loader
from training.objective import MERGED, TOTAL, Targets
from training.plan import Plan, Work
from training.progress import Meter
from training.random_state import random_state, set_random_state
from training.run_folder import Curves, RunFolder
from training.sampler import Sampler, part_of
from training.schedule import rate_share
from training.stopping import StopRequest, remember_signals

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from training.config import TrainingConfig
    from training.data import TrainingSet
    from training.ranks import Ranks

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
            Loader(self._data, threads=config.threads, pinned=self._ranks.device.type == "cuda") as loader,
            Meter(total=end, done=self._step, shown=first) as meter,
            Curves(self._folder, self._step, shown=first) as curves,
        ):
            tools = _Tools(
                loader=loader, meter=meter, curves=curves, stop=stop, limit=math.inf if limit is None else limit
            )
            ended = self._train(end_one, tools)
            if ended is None and config.calibrated:
                ended = self._calibrate(end_one, tools)
            if ended is None:
                ended = self._train(end, tools)
        if ended is None and self._ranks.first:
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
        for item, batch in zip(work, tools.loader.batches(later.rows for later in ahead), strict=True):
            self._learn(item, batch, weights)
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

    def _learn(self, work: Work, batch: Batch, weights: tuple[float, ...]) -> None:
        """One forward and backward pass."""
        data, whole = self._data, work.whole
        targets = Targets(
            quality=self._send(data.quality[work.rows]),
            classes=self._send(data.classes[work.rows]).long(),
            rho=None if self._rho is None else self._send(self._rho[work.rows]),
        )
        micro = MicroBatch(
            images=batch.images,
            flipped=self._send(work.flipped),
            targets=targets,
            counts=self._learner.objective.count(data.quality[whole], data.classes[whole]),
            last=work.last,
        )
        shares = self._learner.learn(micro, weights)
        self._sums += shares
        self._recent += shares

    def _send(self, values: NDArray[np.generic]) -> Tensor:
        """An array to the device, without waiting until the device has done what it was told before."""
        return torch.from_numpy(values).to(self._ranks.device, non_blocking=True)

    def _rate(self) -> float:
        """The share of the highest learning rate at this step."""
        steps, rules = self._sampler.steps, self._config.rules
        return rate_share(self._step, steps=steps, epochs=self._config.epochs, recipe=rules.schedule)

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
            found = self._measure(tools)
            if found is None:
                return Outcome.STOPPED
            js, rho = found
            if self._ranks.first:
                write_aside(folder.confidence, keys, js, rho, notes)
                tools.curves.add(self._step, {"confidence/mean": float(rho.mean()), "confidence/js": float(js.mean())})
            self._ranks.wait()
        self._rho = rho
        return None

    def _measure(self, tools: _Tools) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Divergence and confidence of every image, float32 [M] each; None if the run was told to stop."""
        self._learner.level()
        mine = part_of(np.arange(len(self._data)), self._ranks.rank, self._ranks.count)
        size = max(1, self._config.batch // self._ranks.count)
        # Every process goes through as many pieces as the first, the last of which may be empty.
        longest = -(-len(self._data) // self._ranks.count)
        pieces = [mine[start : start + size] for start in range(0, longest, size)]
        own: list[NDArray[np.float32]] = []
        for done, batch in enumerate(tools.loader.batches(pieces)):
            if self._ranks.any(tools.stop.made):
                return None
            if len(batch.rows):
                found = self._learner.calibrate(batch.images)
                own.append(torch.stack([found.js, found.confidence]).numpy())
            tools.meter.note(f"confidence of the images: {done / len(pieces):.0%}")
        js, rho = np.concatenate(self._ranks.gather(np.concatenate(own, axis=1)), axis=1)
        return js, rho

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
