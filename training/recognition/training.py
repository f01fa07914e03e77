"""The training of CR-FIQA: embedding, centres and certainty ratio at once (CR-FIQA section III)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from training.recognition.head import sample_classes
from training.recognition.learner import RecognitionLearner, Targets
from training.trainer.feeding import MicroBatch
from training.trainer.sampler import Sampler
from training.trainer.trainer import Outcome, Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from training.recognition.config import RecognitionConfig
    from training.recognition.data import PeopleImages
    from training.recognition.run_folder import RecognitionRunFolder
    from training.trainer.ranks import Ranks
    from training.trainer.sampler import Work


class RecognitionTraining:
    """One training, new or taken up again from the last checkpoint of its folder.

    Args:
        config: all settings.
        data: what is learned from.
        ranks: the processes.
        folder: where it writes.

    Attributes:
        trainer: the loop, with the networks as they are now.

    Raises:
        ValueError: if a batch is too small to give every process two images, or people are too few.
        CheckpointError: if there are checkpoints, and none can be used.
    """

    def __init__(
        self, config: RecognitionConfig, data: PeopleImages, ranks: Ranks, folder: RecognitionRunFolder
    ) -> None:
        self._config, self._data, self._ranks, self._folder = config, data, ranks, folder
        classes = len(data.identities)
        smallest = Sampler(images=len(data), batch=config.batch, seed=0).smallest
        if smallest < 2 * ranks.world_size * config.accumulation:
            raise ValueError(
                f"a batch of {smallest} of the {len(data)} images is too small: every part of every process needs two, "
                "or nothing can be normalised over it; raise batch_size, or lower processes or accumulation"
            )
        self.trainer = Trainer(
            config, data, ranks, folder, lambda start: RecognitionLearner(config, classes, ranks, start, data)
        )

    def run(self, limit: int | None = None) -> Outcome:
        """Train to the end, or until told to stop.

        Args:
            limit: stop, and save, after so many steps in all.

        Raises:
            LossError: if the loss is not finite.
            TrainingDataError: if an image cannot be read.
            ExportError: if a network in ONNX does not give what PyTorch gives.
        """
        outcome = self.trainer.run(self._train, limit)
        if outcome is Outcome.FINISHED:
            learner = self.trainer.learner
            centres = learner.centres()
            if centres is not None:
                self._folder.finish(self._config, learner.model, centres, self._data.identities, self._describe())
        self._ranks.wait()
        return outcome

    def _describe(self) -> dict[str, float]:
        """The means of the terms in the last whole epoch; nothing where there was none."""
        history = self.trainer.history
        return dict(zip(RecognitionLearner.terms, history[-1], strict=True)) if history else {}

    def _train(self) -> None:
        """The one phase."""
        self.trainer.train(self.trainer.steps, self._assemble, "training")

    def _assemble(self, work: Work, images: Tensor) -> MicroBatch[Targets]:
        """A micro-batch on the CPU, with the people of all processes."""
        targets = Targets(
            labels=torch.from_numpy(self._data.labels[work.together]), first=work.first, sample=self._sample(work)
        )
        return MicroBatch(
            images=images,
            flipped=torch.from_numpy(work.flipped),
            targets=targets,
            counts=(len(work.whole),),
            last=work.last,
        )

    def _sample(self, work: Work) -> Tensor | None:
        """The classes of this process that the step's softmax is over; None for all."""
        config, ranks = self._config, self._ranks
        if config.sample_rate == 1:
            return None
        wanted, classes = self._data.labels[work.whole], len(self._data.identities)
        return torch.from_numpy(
            sample_classes(
                wanted, classes, config.sample_rate, seed=config.seed, step=work.step, rank=ranks.rank,
                ranks=ranks.world_size,
            )
        )  # fmt: skip
