"""The folder of a training run: what it was made from, its curves, its checkpoints and its result.

<run>/config.json          settings, labels, counts and versions; names the run by a fingerprint
<run>/checkpoints/         the last few, to go on from
<run>/events/              curves for TensorBoard
<run>/confidence/          the table `confidence`, Parquet and nothing else
<run>/metrics.json         how the model does on people held out, where there are any
<run>/README.md            the model's card
<run>/model.safetensors    the result; written last, so a run that has it is done
"""

from __future__ import annotations

import json
import logging
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from data_manifests.storage.atomic import remove_leftovers, write_atomically
from data_manifests.storage.environment import version_of
from training.quality.card import write_card
from training.quality.config import FREE
from training.quality.model_file import save_model
from training.quality.settings import flatten

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from training.quality.config import TrainingConfig
    from training.quality.data import TrainingSet
    from training.quality.held_out import Agreement, Moment
    from training.quality.scorer import TrainedNetworks

logger = logging.getLogger(__name__)

CONFIG, METRICS, CARD, MODEL = "config.json", "metrics.json", "README.md", "model.safetensors"
EVENTS, CHECKPOINTS, CONFIDENCE = "events", "checkpoints", "confidence"
_PACKAGES = ("torch", "open_clip_torch", "numpy", "polars", "simplejpeg", "safetensors")


class RunFolderError(RuntimeError):
    """The output folder holds something else; says what and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Where a run writes.

    Attributes:
        root: the folder.
        fingerprint: of the run.
    """

    root: Path
    fingerprint: str

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.root / CHECKPOINTS

    @property
    def confidence(self) -> Path:
        """The table of confidences. Its folder holds nothing else, so that Polars opens it as a whole."""
        return self.root / CONFIDENCE / f"{CONFIDENCE}.parquet"

    @property
    def finished(self) -> bool:
        """Whether its result is there; ask after `open`, which sees to it that the folder is this run's."""
        return (self.root / MODEL).is_file()

    def open(self, config: TrainingConfig, data: TrainingSet) -> None:
        """Write down what the run is made from, or see that it is the same run that goes on.

        Raises:
            RunFolderError: if another run, or anything else, lies there.
        """
        path = self.root / CONFIG
        new = self._describe(config, data)
        if not path.is_file():
            if self.checkpoints.exists() or self.finished:
                raise RunFolderError(f"{self.root}: holds a run without its {CONFIG}; name another output folder")
            _write_json(path, new)
            return
        old = self._read(path)
        if old.get("run") != self.fingerprint:
            raise RunFolderError(
                f"{self.root}: holds a training with other settings or labels ({describe_change(old, new)}); name "
                "another output folder, or give the same settings to go on with it"
            )
        if old.get("versions") != new["versions"]:
            logger.warning("%s: begun with other versions of packages; the last bits may differ", self.root)
        remove_leftovers(self.root)

    def add_metrics(self, moment: Moment, found: Agreement) -> None:
        """Write down how the model does on people held out, beside what was written at other moments."""
        path = self.root / METRICS
        before = self._read(path) if path.is_file() else {}
        _write_json(path, before | {moment.value: found.to_json()})

    def finish(self, config: TrainingConfig, networks: TrainedNetworks, losses: Mapping[str, float]) -> None:
        """Write card and result."""
        facts = self._read(self.root / CONFIG)
        metrics = self._read(self.root / METRICS) if config.held_out is not None else {}
        card = write_card(facts, losses, metrics)
        write_atomically(self.root / CARD, lambda file: file.write(card.encode()))
        save_model(self.root / MODEL, networks.model, networks.merged, {**facts, "score": config.terms.score.value})

    def _describe(self, config: TrainingConfig, data: TrainingSet) -> dict[str, Any]:
        return {
            "run": self.fingerprint,
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

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path}: cannot be read ({error}); name another output folder") from error
        return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def describe_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The settings that decide the weights and in which two runs differ, each with both values."""
    before, after = flatten(old), flatten(new)
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    told = [n for n in names if n.startswith("config.") or n == "data.labels_content"]
    told = [n for n in told if n.removeprefix("config.") not in FREE]
    return ", ".join(f"{name}: {before.get(name)} there, {after.get(name)} here" for name in told) or "unknown"


class Curves:
    """The curves of a run for TensorBoard; a process that is not the first writes none.

    Args:
        folder: the run's folder.
        step: from which the run goes on; points of a run that was killed later than its last checkpoint are dropped.
        shown: whether this process writes.
    """

    def __init__(self, folder: RunFolder, step: int, *, shown: bool) -> None:
        self._writer: Any = None
        if shown:
            # TensorBoard takes seconds to import, and only the process that writes needs it.
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

            self._writer = SummaryWriter(folder.root / EVENTS, purge_step=step + 1 if step else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to every curve."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
