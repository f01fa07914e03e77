"""Checkpoints: whole or not there, checked before they are believed, and read without running what they hold.

<run>/checkpoints/step-000001234/
    model.safetensors     weights of the model and of the merged-factor network
    state.pt              tensors and plain values: optimiser, place in the training, random states
    checkpoint.json       written last: whose checkpoint it is, and the SHA-256 of the two other files
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from data_manifests.storage.atomic import sha256_of, sync_folder, write_atomically
from data_manifests.storage.json_files import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

logger = logging.getLogger(__name__)

FORMAT = "fiqa-checkpoint-1"
WEIGHTS, STATE, SEAL = "model.safetensors", "state.pt", "checkpoint.json"
_NAME = re.compile(r"step-(\d{9})")
_UNUSABLE = (
    OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError, SafetensorError
)  # fmt: skip


class CheckpointError(RuntimeError):
    """No checkpoint of a run can be used, though there are some; says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A training at rest.

    Attributes:
        step: steps done in all.
        weights: name -> tensor, on the CPU when read.
        state: everything else, made of tensors and plain values only.
        weights_sha256: of the file of weights; empty where it was not read from one.
    """

    step: int
    weights: Mapping[str, Tensor]
    state: Mapping[str, Any]
    weights_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFolder:
    """The checkpoints of one run.

    Attributes:
        root: the folder.
        run: fingerprint of the run; a checkpoint of another one is never taken.
        keep: how many are kept.
    """

    root: Path
    run: str
    keep: int = 3

    def save(self, checkpoint: Checkpoint) -> str:
        """Write a checkpoint, then drop the oldest ones.

        Returns:
            The SHA-256 of its weights.

        Raises:
            DiskFullError: if no space is left; the checkpoints before stay.
        """
        folder = self.root / f"step-{checkpoint.step:09d}"
        # A torn one of the same step is in the way, and a whole one is about to be written again.
        (folder / SEAL).unlink(missing_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}
        # One entry: several would be written in any order, and the same weights would give other bytes.
        content = save(tensors, metadata={"run": self.run})
        write_atomically(folder / WEIGHTS, lambda file: file.write(content))
        write_atomically(folder / STATE, lambda file: torch.save(dict(checkpoint.state), file))
        hashes = {name: sha256_of(folder / name) for name in (WEIGHTS, STATE)}
        seal = {"format": FORMAT, "run": self.run, "step": checkpoint.step, "sha256": hashes}
        write_atomically(folder / SEAL, lambda file: file.write(json.dumps(seal, indent=1).encode()))
        sync_folder(self.root)
        self._drop_old()
        return hashes[WEIGHTS]

    def load(self) -> Checkpoint | None:
        """The last checkpoint that is whole and of this run; None where there has never been one.

        Raises:
            CheckpointError: if there are checkpoints but none can be used.
        """
        reasons = []
        for folder in reversed(self._folders()):
            try:
                return self._read(folder)
            except _UNUSABLE as error:
                reason = str(error).partition("\n")[0]
                reasons.append(f"{folder.name}: {reason}")
                logger.warning("%s: this checkpoint is skipped: %s", folder, reason)
        if reasons:
            raise CheckpointError(
                f"{self.root}: no checkpoint there can be used ({'; '.join(reasons)}); name another output folder, or "
                "remove this one to start anew"
            )
        return None

    def _read(self, folder: Path) -> Checkpoint:
        """Read one checkpoint; raises anything sensible if it is torn or foreign."""
        try:
            seal = parse_json((folder / SEAL).read_bytes())
        except FileNotFoundError:
            raise ValueError("it was never finished") from None
        if not isinstance(seal, dict) or seal.get("format") != FORMAT:
            raise ValueError(f"it is not in the format {FORMAT}")
        if seal["run"] != self.run:
            raise ValueError(f"it belongs to the run {seal['run']}, and this is {self.run}")
        for name, expected in seal["sha256"].items():
            if sha256_of(folder / name) != expected:
                raise ValueError(f"{name} is not as it was written")
        return Checkpoint(
            step=seal["step"],
            weights=load_file(folder / WEIGHTS),
            state=torch.load(folder / STATE, map_location="cpu", weights_only=True),
            weights_sha256=seal["sha256"][WEIGHTS],
        )

    def _is_own(self, folder: Path) -> bool:
        """Whether a folder is sealed as one of this run's."""
        try:
            return bool(parse_json((folder / SEAL).read_bytes())["run"] == self.run)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _folders(self) -> list[Path]:
        """The folders of all checkpoints, oldest first."""
        if not self.root.is_dir():
            return []
        return sorted(path for path in self.root.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())

    def _drop_old(self) -> None:
        """Remove all but the last few of this run's, and what was never finished."""
        folders = self._folders()
        own = [folder for folder in folders if self._is_own(folder)]
        torn = [folder for folder in folders if not (folder / SEAL).exists()]
        for folder in (*own[: -self.keep], *torn):
            # The seal goes first, so that what is half removed is never taken for whole.
            (folder / SEAL).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The random states of this process."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Put the random states of this process back."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
