"""The training of the quality model: phase one, the confidence of every image, phase two (CLIB-FIQA section 3)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.quality.calibration import ConfidenceError, read_made_from, write_aside
from training.quality.held_out import EvaluationPoint, compare, explain_chance
from training.quality.learner import QualityLearner
from training.quality.objective import Targets
from training.trainer.feeding import MicroBatch
from training.trainer.trainer import LossError, Outcome, Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from training.dataset.training_set import TrainingSet
    from training.quality.config import TrainingConfig
    from training.quality.run_folder import QualityRunFolder
    from training.trainer.ranks import Ranks
    from training.trainer.sampler import Work

logger = logging.getLogger(__name__)


class QualityTraining:
    """One training, new or taken up again from the last checkpoint of its folder.

    Args:
        config: all settings.
        data: what is learned from.
        ranks: the processes.
        folder: where it writes.

    Attributes:
        trainer: the loop, with the networks as they are now.

    Raises:
        ValueError: if a batch is too small to give every process an image.
        CheckpointError: if there are checkpoints, and none can be used.
    """

    def __init__(self, config: TrainingConfig, data: TrainingSet, ranks: Ranks, folder: QualityRunFolder) -> None:
        self._config, self._data, self._ranks, self._folder = config, data, ranks, folder
        self.trainer = Trainer(config, data, ranks, folder, lambda start: QualityLearner(config, ranks, start, data))
        self._end_one, self._end = (n * self.trainer.epoch_steps for n in (config.epochs_one, config.epochs))
        self._rho: NDArray[np.float32] | None = None  # [M]

    def run(self, limit: int | None = None) -> Outcome:
        """Train to the end, or until told to stop.

        Args:
            limit: stop, and save, after so many steps in all.

        Raises:
            LossError: if the loss is not finite.
            TrainingDataError: if an image cannot be read.
            ConfidenceError: if the confidences are gone with which the second phase was begun.
        """
        outcome = self.trainer.run(self._train, limit)
        if outcome is Outcome.FINISHED and self._ranks.is_main:
            learner = self.trainer.learner
            last = dict(zip(learner.terms, self.trainer.history[-1], strict=True))
            self._folder.finish(self._config, learner.networks, last)
        self._ranks.wait()
        return outcome

    def _train(self) -> None:
        """Both phases, and what stands between them."""
        trainer = self.trainer
        trainer.train(self._end_one, self._assemble, "phase one")
        if trainer.step == self._end_one < self._end:
            self._evaluate(EvaluationPoint.PHASE_ONE)
        if self._config.calibrated:
            self._rho = self._calibrate()
        trainer.train(self._end, self._assemble, "phase two")
        self._evaluate(EvaluationPoint.END)
        self._look_at_probe()

    def _assemble(self, work: Work, images: Tensor) -> MicroBatch[Targets]:
        """A micro-batch on the CPU, with its targets."""
        data, rows = self._data, work.rows
        targets = Targets(
            quality=torch.from_numpy(data.quality[rows]),
            classes=torch.from_numpy(data.classes[rows]).long(),
            rho=None if self._rho is None else torch.from_numpy(self._rho[rows]),
        )
        return MicroBatch(
            images=images,
            flipped=torch.from_numpy(work.flipped),
            targets=targets,
            counts=self.trainer.learner.objective.count(data.quality[work.whole], data.classes[work.whole]),
            last=work.last,
        )

    def _calibrate(self) -> NDArray[np.float32]:
        """The confidence of every image after phase one: read if it was computed before, else computed and stored."""
        trainer, learner, path = self.trainer, self.trainer.learner, self._folder.confidence
        if trainer.step == self._end_one:
            learner.source = self._ranks.gather(trainer.weights_sha256)[0]
        notes = {"fingerprint": self._folder.fingerprint, "weights": learner.source}
        rho = read_made_from(path, self._data.labels.keys[self._data.rows], notes)
        if not self._ranks.any(rho is None):
            assert rho is not None
            return rho
        if trainer.step > self._end_one:
            raise ConfidenceError(
                f"{path}: not the table with which phase two was begun; put it back, or train anew in another folder"
            )
        found = trainer.predict(self._data, learner.calibrate, "confidence of the images")
        js, rho = np.ascontiguousarray(found[:, 0]), np.ascontiguousarray(found[:, 1])
        if self._ranks.is_main:
            write_aside(path, self._data, js, rho, notes)
            trainer.add_curves({"confidence/mean": float(rho.mean()), "confidence/js": float(js.mean())})
        self._ranks.wait()
        return rho

    def _evaluate(self, moment: EvaluationPoint) -> None:
        """Compare the model with the labels of the people who were held out, if there are any."""
        data, trainer = self._data.held_out, self.trainer
        if data is None:
            return
        numbers = trainer.predict(data, trainer.learner.score, "people held out")
        if not np.isfinite(numbers).all():
            raise LossError("the model gives no number for people held out: it has diverged; lower the learning rate")
        if self._ranks.is_main:
            found = compare(numbers, data, self._config.terms.factors)
            self._folder.add_metrics(moment, found)
            trainer.add_curves(found.curves())
            logger.info("%s: %s", moment.words, found)
        self._ranks.wait()

    def _look_at_probe(self) -> None:
        """Warn where the quality was not learned, as far as the images tell that were learned from."""
        data, trainer = self._data.probe, self.trainer
        if data is None or not len(data):
            return
        score = trainer.predict(data, trainer.learner.score, "some images that were learned from")[:, 0]
        if self._ranks.is_main and (why := explain_chance(score, data.quality)):
            logger.warning("%s", why)
        self._ranks.wait()
