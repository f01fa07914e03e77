"""A network that gives a quality, opened as a labeler: faces in, one number each out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data_manifests.tables.stages import Status
from labelers.labeler import Measures
from labelers.runtime.device import Device
from training.evaluation.methods.networks import EXPORTED_INPUT, EXPORTED_OUTPUT, NetworkKind, QualityNetworkError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from labelers.faces import FaceBatch
    from labelers.labeler import Labeler
    from training.evaluation.methods.networks import QualityNetwork

    Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

BATCH = 32
"""Faces in every run of a network; values depend on it in the last bits, so it is the same everywhere."""

FACE_MEAN = FACE_STD = (127.5, 127.5, 127.5)
"""What a foreign network is given: RGB, (x - 127.5) / 127.5 (CR-FIQA's evaluation/QualityModel.py)."""


class QualityLabeler:
    """The quality of every face by a network.

    Args:
        path: the network's file, for messages.
        run: uint8 [BATCH, 112, 112, 3] RGB to float32 [BATCH].
    """

    def __init__(self, path: Path, run: Run) -> None:
        self._path = path
        self._run = run

    def __call__(self, faces: FaceBatch) -> Measures:
        """Score every face.

        Returns:
            `quality` float32 [N]; larger is better.

        Raises:
            QualityNetworkError: if a value is not finite; names the face.
        """
        quality = np.empty(len(faces), np.float32)
        for start in range(0, len(faces), BATCH):
            piece = faces.images[start : start + BATCH]
            full = np.zeros((BATCH, *piece.shape[1:]), np.uint8)
            full[: len(piece)] = piece
            quality[start : start + len(piece)] = self._run(full)[: len(piece)]
        if not np.isfinite(quality).all():
            key = faces.keys[~np.isfinite(quality)][0]
            raise QualityNetworkError(
                f"{self._path} gives no number for the image with key {key}: its training has diverged, or the file is "
                "damaged; evaluate an earlier checkpoint, or leave it out"
            )
        return Measures(columns={"quality": quality}, status=[Status.OK] * len(faces))


def open_labeler(network: QualityNetwork, device: Device) -> Labeler:
    """Open a network in the process that will use it.

    Args:
        network: what and where.
        device: where it computes. What training.export wrote computes on the processor, whatever is asked for.

    Raises:
        QualityNetworkError, WeightsError, NetworkError: if it cannot be used; each names the file.
        DeviceError, ProviderError: if the device cannot be used.
    """
    factories = {
        NetworkKind.TRAINED: _open_trained,
        NetworkKind.EXPORTED: _open_exported,
        NetworkKind.FOREIGN: _open_foreign,
    }
    return QualityLabeler(network.files[0], factories[network.kind](network.files[0], device))


def _open_trained(path: Path, device: Device) -> Run:
    """A model in PyTorch."""
    import torch  # noqa: PLC0415 - an ONNX network does without it

    from training.scoring.models import open_model  # noqa: PLC0415

    if device is Device.CPU:
        torch.set_num_threads(1)  # the processes are the parallelism, and sums do not depend on how many there are
    model = open_model(path, device.value)
    return lambda images: model.run(images)[:, 0]


def _open_exported(path: Path, device: Device) -> Run:  # noqa: ARG001 - CPU only
    """A model that training.export wrote."""
    import onnxruntime  # noqa: PLC0415 - a model in PyTorch does without it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        raise QualityNetworkError(
            f"{path} is not a network that ONNX Runtime opens ({error}): export it again"
        ) from error

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        quality: NDArray[np.float32] = session.run([EXPORTED_OUTPUT], {EXPORTED_INPUT: images})[0]
        return quality.reshape(len(images))

    return run


def _open_foreign(path: Path, device: Device) -> Run:
    """A network of somebody else, with whatever batch it was exported."""
    from labelers.runtime.onnx import Colour, InputSpec, NetworkError, open_network  # noqa: PLC0415 - as above

    spec = InputSpec(width=112, height=112, colour=Colour.RGB, mean=FACE_MEAN, std=FACE_STD)
    try:
        network = open_network(path, input=spec, batch=BATCH, device=device)
    except NetworkError:
        # Its batch may be written into it: one face after the other is slower, and the same on every machine.
        try:
            network = open_network(path, input=spec, batch=1, device=device)
        except NetworkError as error:
            raise QualityNetworkError(
                f"{path} does not run on faces of float32 [N, 3, 112, 112] ({error}): export it again, or score the "
                "images yourself and give a table"
            ) from error
    scores = [place for place, shape in enumerate(network.outputs) if int(np.prod(shape)) == 1]
    if len(scores) != 1:
        shapes = ", ".join(str(["N", *shape]).replace("'", "") for shape in network.outputs)
        raise QualityNetworkError(
            f"{path} gives {shapes}: one output has to be of one number a face: export the network so, or score the "
            "images yourself and give a table"
        )
    return lambda images: network.run(images)[scores[0]].reshape(len(images))
