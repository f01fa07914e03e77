"""The model that scores, whichever way it was saved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import torch

from data_manifests.storage.atomic import sha256_of
from labelers.runtime.device import Device
from training.quality.config import Score
from training.quality.model_file import load_model
from training.quality.released import load_released
from training.quality.scorer import OUTPUT_SIZES, OUTPUTS, Scorer, full_float32
from training.scoring.onnx_file import INPUT, Note
from training.trainer.ranks import DeviceError
from training.trainer.run_folder import CHECKPOINTS, MODEL, SCORER
from training.trainer.weights import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

_RELEASED = (".pt", ".pth")

BATCH = {Device.CPU: 64, Device.CUDA: 256}
"""Images in a run of the model, where nothing else is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringModel:
    """A model that is ready to score.

    Attributes:
        path: its file.
        sha256: of the file, in hexadecimal.
        score: what the score is taken from; None for an ONNX file that does not tell.
        numbers: how many of the 18 numbers it gives: all, or the quality alone.
        device: where it computes.
        run: uint8 [N, 112, 112, 3] RGB to float32 [N, 18], the numbers of training.quality.scorer.OUTPUTS side by side,
            NaN where it gives none.
        flip_average: whether `run` takes the mean over each image and its mirror image.
    """

    path: Path
    sha256: str
    score: Score | None
    device: Device
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    numbers: int = sum(OUTPUT_SIZES)
    flip_average: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedScorer:
    """A model in PyTorch, as its file holds it.

    Attributes:
        scorer: in evaluation mode, on the CPU.
        run: fingerprint of the training; empty where the file does not tell.
    """

    scorer: Scorer
    run: str


def open_model(checkpoint: Path, device: Device | str = Device.CPU) -> ScoringModel:
    """Open the model of a checkpoint; nothing in a file is run but the network.

    Args:
        checkpoint: the folder of a finished run, its model.safetensors, an ONNX file of training.export or
            training.train_on_top, or a state dict in the layout of OpenAI's CLIP (.pt, .pth), such as the one that
            CLIB-FIQA's authors published.
        device: where it computes; ONNX computes on the CPU alone.

    Raises:
        WeightsError: if there is no such model, or if it cannot be read whole.
        DeviceError: if the device is not there, or not for this kind of file.
    """
    device = Device(device)
    path = find_model(checkpoint)
    if device is Device.CUDA and not torch.cuda.is_available():
        raise DeviceError("no GPU can be used here: ask for the device cpu, or install a driver that fits PyTorch")
    numbers = sum(OUTPUT_SIZES)
    if path.suffix == ".onnx":
        score, run, numbers = _open_onnx(path, device)
    else:
        scorer = load_scorer(path).scorer
        score, run = scorer.score, _run_by_torch(scorer, torch.device(device.value))
    return ScoringModel(path=path, sha256=sha256_of(path), score=score, device=device, run=run, numbers=numbers)


def average_flips(model: ScoringModel) -> ScoringModel:
    """The model that gives, of every distribution, the mean over the image and its mirror image.

    The quality is linear in its distribution (CLIB-FIQA Eq. 2), so the mean of both qualities is that of the mean.
    """

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = model.run(images) + model.run(np.ascontiguousarray(images[:, :, ::-1]))
        return found / np.float32(2)

    return replace(model, run=run, flip_average=True)


def find_model(checkpoint: Path) -> Path:
    """The file that holds the model of a run's folder, or of a file.

    Raises:
        WeightsError: if there is none.
    """
    if checkpoint.is_dir():
        scorer, model = checkpoint / SCORER, checkpoint / MODEL
        if model.is_file():
            return scorer if scorer.is_file() else model
        if (checkpoint / CHECKPOINTS).is_dir():
            raise WeightsError(
                f"{checkpoint}: this training is not finished, there is no {MODEL} yet; start it again with the same "
                "words, and it goes on"
            )
        raise WeightsError(f"{checkpoint}: holds no {MODEL}; name the folder of a finished training, or a file")
    if not checkpoint.is_file():
        raise WeightsError(f"{checkpoint}: no such checkpoint; name the folder of a training, or a file of weights")
    return checkpoint


def load_scorer(path: Path) -> SavedScorer:
    """Read a model into PyTorch.

    Args:
        path: a file, as `find_model` gives it, but no ONNX.

    Raises:
        WeightsError: if it cannot be read whole.
    """
    if path.suffix in _RELEASED:
        return SavedScorer(scorer=Scorer(load_released(path)).eval(), run="")
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{path}: is not a kind of checkpoint that is known; give a run's folder or a file that ends in "
            f".safetensors, .onnx, {' or '.join(_RELEASED)}"
        )
    saved = load_model(path)
    try:
        # a model that was saved by itself scores by its own quality
        scorer = Scorer(saved.model, saved.merged, saved.notes.get("score", Score.QUALITY)).eval()
    except ValueError as error:
        raise WeightsError(f"{path}: {error}; save the model of the training anew") from error
    return SavedScorer(scorer=scorer, run=str(saved.notes.get("run", "")))


def _run_by_torch(scorer: Scorer, device: torch.device) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    scorer = scorer.to(device)

    @torch.inference_mode()
    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with full_float32(device):
            outputs = scorer(torch.from_numpy(images).to(device))
            joined = torch.cat([output.reshape(len(images), -1) for output in outputs], dim=1)  # [N, 18]
        found: NDArray[np.float32] = joined.cpu().numpy()
        return found

    return run


def _open_onnx(
    path: Path, device: Device
) -> tuple[Score | None, Callable[[NDArray[np.uint8]], NDArray[np.float32]], int]:
    """What an exported model's score is taken from, the model, and how many numbers it gives."""
    if device is not Device.CPU:
        raise DeviceError(f"{path}: ONNX is scored on the CPU; name a quality model's {MODEL} for the device {device}")
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        raise WeightsError(f"{path} is not a network that ONNX Runtime opens ({error}): export it again") from error
    given = [(each.name, each.type) for each in session.get_inputs()]
    gives = [each.name for each in session.get_outputs()]
    if given != [(INPUT, "tensor(uint8)")] or gives not in (list(OUTPUTS), list(OUTPUTS[:1])):
        raise WeightsError(
            f"{path} takes {given} and gives {', '.join(gives)}, so neither training.export nor training.train_on_top "
            "wrote it: export the run's model again"
        )

    numbers = sum(OUTPUT_SIZES[: len(gives)])

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        outputs = session.run(gives, {INPUT: images})
        found = np.full((len(images), sum(OUTPUT_SIZES)), np.nan, np.float32)
        found[:, :numbers] = np.concatenate([np.reshape(output, (len(images), -1)) for output in outputs], axis=1)
        return found

    return _read_score(session, path), run, numbers


def _read_score(session: onnxruntime.InferenceSession, path: Path) -> Score | None:
    """What an exported model says that its score is taken from; None if it says nothing, as older ones do."""
    told = session.get_modelmeta().custom_metadata_map.get(Note.SCORE.value)
    if told is None:
        return None
    try:
        return Score(told)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}; export the run's model again") from error
