"""The model that scores, whichever way it was saved."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import torch

from data_manifests.files import sha256_of
from training.config import Device, Score
from training.export import OUTPUTS, Scorer
from training.model_file import load_model
from training.onnx_file import INPUT
from training.ranks import DeviceError
from training.released import load_released
from training.run_folder import CHECKPOINTS, MODEL
from training.weights import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

EXPORTED = "exported"
"""Stands for the score's kind where an ONNX file does not tell what was exported."""

_RELEASED = (".pt", ".pth")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringModel:
    """A model that is ready to score.

    Attributes:
        path: its file.
        sha256: of the file, in hexadecimal.
        score: what the score is taken from: `quality`, `merged`, or `exported` for ONNX, which does not tell.
        device: where it computes.
        run: uint8 [N, 112, 112, 3] RGB to float32 [N, 18], the numbers of training.export.OUTPUTS side by side.
    """

    path: Path
    sha256: str
    score: str
    device: Device
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def open_model(checkpoint: Path, device: Device | str = Device.CPU) -> ScoringModel:
    """Open the model of a checkpoint; nothing in a file is run but the network.

    Args:
        checkpoint: the folder of a finished run, its model.safetensors, an ONNX file of training.export, or a state
            dict in the layout of OpenAI's CLIP (.pt, .pth), such as the one that CLIB-FIQA's authors published.
        device: where it computes; ONNX computes on the CPU alone.

    Raises:
        WeightsError: if there is no such model, or if it cannot be read whole.
        DeviceError: if the device is not there, or not for this kind of file.
    """
    device = Device(device)
    path = _find_file(checkpoint)
    if device is Device.CUDA and not torch.cuda.is_available():
        raise DeviceError("no GPU can be used here: ask for the device cpu, or install a driver that fits PyTorch")
    if path.suffix == ".onnx":
        score, run = EXPORTED, _open_onnx(path, device)
    else:
        scorer = _load_scorer(path)
        score, run = scorer.score.value, _run_by_torch(scorer, torch.device(device.value))
    return ScoringModel(path=path, sha256=sha256_of(path), score=score, device=device, run=run)


def _find_file(checkpoint: Path) -> Path:
    """The file that holds the model."""
    if checkpoint.is_dir():
        model = checkpoint / MODEL
        if model.is_file():
            return model
        if (checkpoint / CHECKPOINTS).is_dir():
            raise WeightsError(
                f"{checkpoint}: this training is not finished, there is no {MODEL} yet; start it again with the same "
                "words, and it goes on"
            )
        raise WeightsError(f"{checkpoint}: holds no {MODEL}; name the folder of a finished training, or a file")
    if not checkpoint.is_file():
        raise WeightsError(f"{checkpoint}: no such checkpoint; name the folder of a training, or a file of weights")
    return checkpoint


def _load_scorer(path: Path) -> Scorer:
    """The model in PyTorch, on the CPU."""
    if path.suffix in _RELEASED:
        return Scorer(load_released(path)).eval()
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{path}: is not a kind of checkpoint that is known; give a run's folder or a file that ends in "
            f".safetensors, .onnx, {' or '.join(_RELEASED)}"
        )
    saved = load_model(path)
    try:
        # a model that was saved by itself scores by its own quality
        return Scorer(saved.model, saved.merged, saved.notes.get("score", Score.QUALITY)).eval()
    except ValueError as error:
        raise WeightsError(f"{path}: {error}; save the model of the training anew") from error


def _run_by_torch(scorer: Scorer, device: torch.device) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    scorer = scorer.to(device)

    @torch.inference_mode()
    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with _full_float32(device):
            outputs = scorer(torch.from_numpy(images).to(device))
            joined = torch.cat([output.reshape(len(images), -1) for output in outputs], dim=1)  # [N, 18]
        found: NDArray[np.float32] = joined.cpu().numpy()
        return found

    return run


def _full_float32(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Convolutions by fixed algorithms without tensor-float on a GPU, so that scores are those of the CPU."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    flags: contextlib.AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


def _open_onnx(path: Path, device: Device) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    if device is not Device.CPU:
        raise DeviceError(f"{path}: ONNX is scored on the CPU; name the run's {MODEL} for the device {device}")
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        raise WeightsError(f"{path} is not a network that ONNX Runtime opens ({error}): export it again") from error
    given = [(each.name, each.type) for each in session.get_inputs()]
    gives = [each.name for each in session.get_outputs()]
    if given != [(INPUT, "tensor(uint8)")] or gives != list(OUTPUTS):
        raise WeightsError(
            f"{path} takes {given} and gives {', '.join(gives)}, so training.export did not write it: export the run's "
            "model again"
        )

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        outputs = session.run(list(OUTPUTS), {INPUT: images})
        return np.concatenate([np.reshape(output, (len(images), -1)) for output in outputs], axis=1)  # [N, 18]

    return run
