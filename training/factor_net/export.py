"""The trained network as an ONNX file that gives what PyTorch gives."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import torch

from labelers.faces import SIDE
from training.factor_net.network import folded, normalise
from training.scoring.onnx_file import INPUT, TOLERANCE, ExportError, encode_onnx

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.factor_net.network import CalibratedNet

OUTPUT = "probabilities"


def to_onnx(model: CalibratedNet) -> bytes:
    """Export a network and check the result against it.

    Args:
        model: in evaluation mode.

    Returns:
        An ONNX model: `images` float32 [N, 3, 112, 112] RGB, (level - 127.5) / 127.5, to `probabilities` float32
        [N, 3] in the order of `Head`, for any N. The same weights give the same bytes.

    Raises:
        ExportError: if a probability differs from the network's by more than 1e-4.
    """
    encoded = encode_onnx(folded(model), torch.zeros(2, 3, SIDE, SIDE), [OUTPUT], "factor_net")
    check_equal(encoded, model)
    return encoded


def check_equal(encoded: bytes, model: CalibratedNet) -> None:
    """Compare an ONNX model with the network on noise, on one face and on several.

    Raises:
        ExportError: if a probability differs by more than 1e-4.
    """
    session = onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    reference = copy.deepcopy(model).cpu()  # a GPU may multiply with fewer bits
    for count in (1, 7):
        images = _pictures(count)
        prepared = normalise(torch.from_numpy(images))
        with torch.inference_mode():
            wanted = reference(prepared).numpy()
        (found,) = session.run([OUTPUT], {INPUT: prepared.numpy()})
        difference = float(np.abs(found - wanted).max())
        if found.shape != wanted.shape or not difference <= TOLERANCE:
            raise ExportError(
                f"the ONNX file's probabilities {list(found.shape)} differ from PyTorch's {list(wanted.shape)} by "
                f"{difference:.2g} (allowed: {TOLERANCE:g}): the installed torch, onnxscript and onnxruntime do not fit"
            )


def _pictures(count: int) -> NDArray[np.uint8]:
    """Pictures [N, 3, 112, 112] from dark to bright, smooth and noisy."""
    random = np.random.default_rng(count)
    level = np.linspace(0.0, 255.0, count)[:, None, None, None]
    noise = random.normal(0.0, 40.0, (count, 3, SIDE, SIDE))
    coarse = np.kron(random.normal(0.0, 60.0, (count, 3, 7, 7)), np.ones((16, 16)))
    return np.clip(level + noise + coarse, 0, 255).astype(np.uint8)
