"""The run folder of a quality model: the table of confidences and what was measured on people held out.

<run>/confidence/          the table `confidence`, Parquet and nothing else
<run>/metrics.json         how the model does on people held out, where there are any
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from data_manifests.storage.atomic import write_atomically
from data_manifests.storage.environment import version_of
from training.command_line.settings import describe_change
from training.quality.card import write_card
from training.quality.config import FREE
from training.quality.model_file import save_model
from training.trainer.run_folder import CARD, CONFIG, MODEL, RunFolder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from training.dataset.training_set import TrainingSet
    from training.quality.config import TrainingConfig
    from training.quality.held_out import Agreement, EvaluationPoint
    from training.quality.scorer import TrainedNetworks

METRICS, CONFIDENCE = "metrics.json", "confidence"
_PACKAGES = ("torch", "open_clip_torch", "numpy", "polars", "simplejpeg", "safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRunFolder(RunFolder):
    """Where the training of a quality model writes."""

    @classmethod
    def of(cls, root: Path, config: TrainingConfig, data: TrainingSet) -> Self:
        """The folder of the run that these settings and labels make."""
        return cls(root=root, fingerprint=config.fingerprint(data.labels.content, len(data)))

    def begin(self, config: TrainingConfig, data: TrainingSet) -> None:
        """Write down what the run is made from, or see that it is the same run that goes on.

        Raises:
            RunFolderError: if another run, or anything else, lies there.
        """
        facts = {
            "config": config.describe(),
            "data": {
                "labels_fingerprint": data.labels.fingerprint,
                "labels_content": data.labels.content,
                "rows": len(data.labels),
                "images": len(data),
                "left_out": data.left_out,
                "counts": data.counts(),
            },
            "versions": {"python": platform.python_version(), **{name: version_of(name) for name in _PACKAGES}},
        }
        self.open(facts, partial(describe_change, content="data.labels_content", free=FREE))

    @property
    def confidence(self) -> Path:
        """The table of confidences. Its folder holds nothing else, so that Polars opens it as a whole."""
        return self.root / CONFIDENCE / f"{CONFIDENCE}.parquet"

    def add_metrics(self, moment: EvaluationPoint, found: Agreement) -> None:
        """Write down how the model does on people held out, beside what was written at other moments."""
        before = self.read(METRICS) if (self.root / METRICS).is_file() else {}
        self.write(METRICS, before | {moment.value: found.to_json()})

    def finish(self, config: TrainingConfig, networks: TrainedNetworks, losses: Mapping[str, float]) -> None:
        """Write card and result."""
        facts = self.read(CONFIG)
        metrics = self.read(METRICS) if config.held_out is not None else {}
        card = write_card(facts, losses, metrics)
        write_atomically(self.root / CARD, lambda file: file.write(card.encode()))
        save_model(self.root / MODEL, networks.model, networks.merged, {**facts, "score": config.terms.score.value})
