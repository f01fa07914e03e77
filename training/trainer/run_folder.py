"""The folder of a training run: what it was made from, its curves, its checkpoints and its result.

<run>/config.json          settings, data and versions; names the run by a fingerprint
<run>/checkpoints/         the last few, to go on from
<run>/events/              curves for TensorBoard
<run>/README.md            the model's card
<run>/model.safetensors    the result; written last, so a run that has it is done
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from data_manifests.storage.atomic import remove_leftovers, write_atomically
from data_manifests.storage.json_files import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

CONFIG, CARD, MODEL = "config.json", "README.md", "model.safetensors"
SCORER = "quality.onnx"
"""What scores images by a run whose model gives more than qualities: a recogniser."""
EVENTS, CHECKPOINTS = "events", "checkpoints"


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
    def finished(self) -> bool:
        """Whether its result is there; ask after `open`, which sees to it that the folder is this run's."""
        return (self.root / MODEL).is_file()

    def open(self, facts: Mapping[str, Any], explain: Callable[[Mapping[str, Any], Mapping[str, Any]], str]) -> None:
        """Write down what the run is made from, or see that it is the same run that goes on.

        Args:
            facts: what it is made from; `versions` are those of the packages.
            explain: says in which settings the facts of two runs differ.

        Raises:
            RunFolderError: if another run, or anything else, lies there.
        """
        new = {"run": self.fingerprint, **facts}
        if not (self.root / CONFIG).is_file():
            if self.checkpoints.exists() or self.finished:
                raise RunFolderError(f"{self.root}: holds a run without its {CONFIG}; name another output folder")
            self.write(CONFIG, new)
            return
        old = self.read(CONFIG)
        if old.get("run") != self.fingerprint:
            raise RunFolderError(
                f"{self.root}: holds a training with other settings or labels ({explain(old, new)}); name "
                "another output folder, or give the same settings to go on with it"
            )
        if old.get("versions") != new["versions"]:
            logger.warning("%s: begun with other versions of packages; the last bits may differ", self.root)
        remove_leftovers(self.root)

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the run.

        Raises:
            RunFolderError: if it cannot be read.
        """
        path = self.root / name
        try:
            content: dict[str, Any] = parse_json(path.read_text())
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path}: cannot be read ({error}); name another output folder") from error
        return content

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the run."""
        text = json.dumps(content, indent=1) + "\n"
        write_atomically(self.root / name, lambda file: file.write(text.encode()))


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
