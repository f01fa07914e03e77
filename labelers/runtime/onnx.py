"""One way to open an ONNX network: provider asserted, threads set, batch free, pictures prepared as it wants them."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

from labelers.labeler import LabelerError
from labelers.runtime.batch_axis import free_batch, network_inputs
from labelers.runtime.denormals import flush_denormals
from labelers.runtime.device import Device, ProviderError
from labelers.runtime.picture_input import PICTURES, Colour, InputSpec, take_pictures
from labelers.runtime.precision import Bfloat16Session, Precision, check_precision, check_tensor_float, to_float16
from labelers.runtime.prelu import split_prelu

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Colour",
    "Device",
    "InputSpec",
    "Network",
    "NetworkError",
    "Precision",
    "ProviderError",
    "open_model",
    "open_network",
    "read_model",
]

BATCH_TOLERANCE = {Precision.FLOAT32: 1e-3, Precision.TF32: 1e-2, Precision.FLOAT16: 5e-2, Precision.BFLOAT16: 5e-2}
"""How far a row may lie from the same row run alone, as a share of the output's largest value: rounding, not error."""

GPU_BATCH = 128
"""Pictures in a run on a GPU at least: in eights, `face_mesh` starts its 250 kernels so often that an H200 makes 2,700
images/s of it with four processes. An iresnet100 takes 1.5 GB a process so."""


class NetworkError(LabelerError):
    """A weight file is no network that takes the pictures it is said to take."""


class Network:
    """An open network. One caller at a time: the prepared pictures share one buffer.

    Attributes:
        path: the weight file, for messages.
        input: what the network wants to see.
        batch: how many pictures every run holds.
        outputs: the shape of every output for one picture, without the batch axis.
    """

    def __init__(
        self, session: Any, *, path: Path, spec: InputSpec, batch: int, precision: Precision = Precision.FLOAT32
    ) -> None:
        self.path = path
        self.input = spec
        self.batch = batch
        self._session = session
        self._buffer = np.zeros((batch, spec.height, spec.width, 3), np.uint8)  # [B, H, W, 3]
        self.outputs = self._check_batch(precision)

    def run(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Resize, normalise and run N pictures.

        Every run holds exactly `batch` pictures and the last one is filled up with black ones: the kernels that the
        runtime picks, and with them the last bits of the values, depend on the batch's size, and a row's values must
        not depend on how many rows came with it.

        Args:
            images: uint8 [N, H, W, 3], RGB.

        Returns:
            One float32 array [N, ...] for every output of the network.

        Raises:
            ValueError: if the pictures have another shape or type.
        """
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ValueError(f"pictures must be uint8 [N, H, W, 3] RGB, not {images.dtype} {list(images.shape)}")
        results = [np.empty((len(images), *shape), np.float32) for shape in self.outputs]
        for start in range(0, len(images), self.batch):
            chunk = images[start : start + self.batch]
            self._fill(chunk)
            for result, output in zip(results, self._run_buffer(self._buffer), strict=True):
                result[start : start + len(chunk)] = output[: len(chunk)]
        return results

    def _fill(self, images: NDArray[np.uint8]) -> None:
        """Bring at most `batch` pictures to size in the buffer; rows without a picture become black."""
        size = (self.input.width, self.input.height)
        for row, image in enumerate(images):
            fitting = image if image.shape[1::-1] == size else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
            self._buffer[row] = fitting
        self._buffer[len(images) :] = 0

    def _run_buffer(self, batch: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """Run pictures [B, H, W, 3]."""
        with flush_denormals():
            outputs: list[NDArray[Any]] = self._session.run(None, {PICTURES: batch})
        return outputs

    def _check_batch(self, precision: Precision) -> tuple[tuple[int, ...], ...]:
        """Run noise as a full batch and alone; both must agree, or the batch axis is not free."""
        noise = np.random.default_rng(0).integers(0, 256, self._buffer.shape, dtype=np.uint8)
        self._fill(noise)
        rows = sorted({0, self.batch - 1})
        remedy = "set batch = 1 in the network's entry, or export it with a free batch axis"
        try:
            alone = [self._run_buffer(self._buffer[row : row + 1]) for row in rows]
            together = self._run_buffer(self._buffer)
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise NetworkError(f"{self.path} does not run with a batch of {self.batch} ({error}): {remedy}") from error
        for number, output in enumerate(together):
            if len(output) != self.batch:
                raise NetworkError(
                    f"{self.path}: output {number} is {list(output.shape)} for a batch of {self.batch}: {remedy}"
                )
            if not np.isfinite(output).all():
                raise NetworkError(
                    f"{self.path}: output {number} holds values that are no numbers, in {precision}: set another"
                    " [models] precision, or check the file"
                )
            for row, single in zip(rows, alone, strict=True):
                scale = float(np.abs(output).max(initial=0.0))
                difference = float(np.abs(output[row] - single[number][0]).max(initial=0.0))
                if not difference <= BATCH_TOLERANCE[precision] * scale:
                    raise NetworkError(
                        f"{self.path}: output {number} of one picture changes by {difference:.3g} (of {scale:.3g})"
                        f" in a batch of {self.batch}: {remedy}"
                    )
        return tuple(tuple(output.shape[1:]) for output in together)


def open_network(
    path: Path,
    *,
    input: InputSpec,  # noqa: A002 - the contract's word
    batch: int,
    device: Device,
    precision: Precision = Precision.FLOAT32,
) -> Network:
    """Open a network and check that it is the one described. It runs in one thread: other cores have other processes.

    Args:
        path: an ONNX file.
        input: what the network wants to see.
        batch: pictures in a run on a processor; part of the network's entry, since values depend on it in the last
            bits. Above 1, a GPU takes `GPU_BATCH` at least.
        device: where it runs; never another one than asked for.
        precision: in what numbers it computes; likewise.

    Raises:
        FileNotFoundError: if there is no such file.
        NetworkError: if the file is no ONNX model, or its input or its batch is not as described.
        ValueError: if the precision is not for the device.
        ProviderError: if the device cannot be used, or cannot compute so.
    """
    return open_model(read_model(path), path=path, input=input, batch=batch, device=device, precision=precision)


def read_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, with the weights that it keeps in other files of its folder.

    Raises:
        FileNotFoundError: if there is no such file.
        NetworkError: if it is no ONNX model, or keeps weights outside its folder.
    """
    try:
        return onnx.load(path)
    except DecodeError as error:
        raise NetworkError(f"{path} is not an ONNX model: {error}") from error
    except (onnx.checker.ValidationError, ValueError) as error:
        raise NetworkError(f"{path} keeps weights where it may not ({error}): save it as one file") from error


def open_model(  # noqa: PLR0913 - a network, what it is said to be, and how to run it
    model: onnx.ModelProto,
    *,
    path: Path,
    input: InputSpec,  # noqa: A002 - the contract's word
    batch: int,
    device: Device,
    precision: Precision = Precision.FLOAT32,
) -> Network:
    """Open a network that is in memory, as `open_network` does, with the same checks.

    Args:
        model: the network.
        path: the file that it was made from, for messages.
        input: what the network wants to see.
        batch: pictures in a run on a processor; above 1, a GPU takes `GPU_BATCH` at least.
        device: where it runs.
        precision: in what numbers it computes.

    Raises:
        NetworkError: if its input or its batch is not as described.
        ValueError: if the precision is not for the device.
        ProviderError: if the device cannot be used, or cannot compute so.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    check_precision(precision, device)
    try:
        _check_input(model, path, input)
        ready = _make_ready(model, input, device, precision)
    except NetworkError:
        raise
    except Exception as error:  # a damaged graph makes ONNX's own tools raise nearly anything
        raise NetworkError(f"{path} is no sound ONNX model ({error}): export it again") from error
    session = _open_session(ready, path, device, precision)
    if device is Device.CUDA and batch > 1:
        batch = max(batch, GPU_BATCH)
    return Network(session, path=path, spec=input, batch=batch, precision=precision)


def _make_ready(model: onnx.ModelProto, spec: InputSpec, device: Device, precision: Precision) -> bytes:
    """The network as it is run: any number of pictures as they are, in the precision."""
    free = free_batch(model)
    if precision is Precision.FLOAT16:
        free = to_float16(free)
    # A GPU's PReLU is one pass, and OpenVINO's is fast.
    if device is Device.CPU and precision is Precision.FLOAT32:
        free = split_prelu(free)
    return take_pictures(free, spec).SerializeToString()


def _check_input(model: onnx.ModelProto, path: Path, spec: InputSpec) -> None:
    """One float32 input [batch, 3, height, width] that fits the specification."""
    inputs = network_inputs(model)
    if len(inputs) != 1 or not model.graph.node:
        names = ", ".join(value.name for value in inputs) or "none"
        raise NetworkError(
            f"{path} has {len(model.graph.node)} nodes and {len(inputs)} inputs ({names}), expected a network"
            " with one input: is this the right file, and is it whole?"
        )
    tensor = inputs[0].type.tensor_type
    # A free dimension reads as 0 and fits everything.
    found = [int(dimension.dim_value) for dimension in tensor.shape.dim]
    wanted = [3, spec.height, spec.width]
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        known = onnx.TensorProto.DataType.values()
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type in known else "of no known type"
        raise NetworkError(f"{path}: input {inputs[0].name} is {kind}, expected FLOAT: export the network in float32")
    if len(found) != 4 or any(a not in (0, b) for a, b in zip(found[1:], wanted, strict=True)):
        raise NetworkError(
            f"{path}: input {inputs[0].name} is {found}, expected [batch, 3, {spec.height}, {spec.width}]"
            " as the network's entry says: correct the entry or the file"
        )


def _open_session(serialized: bytes, path: Path, device: Device, precision: Precision) -> Any:
    """A session that runs on the device asked for: ONNX Runtime's, or for bfloat16 OpenVINO's."""
    if precision is Precision.BFLOAT16:
        try:
            return Bfloat16Session(serialized)
        except ProviderError:
            raise
        except Exception as error:  # OpenVINO's errors share no base class of their own
            raise NetworkError(
                f"OpenVINO does not open {path} in {precision} ({error}): set [models] precision = {Precision.FLOAT32}"
            ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Spinning threads burn the cores that other workers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors
    provider, said = _cuda_provider(precision) if device is Device.CUDA else (("CPUExecutionProvider", {}), "")
    try:
        # The first session of a process turns the thread's switch off, so this stands around every one.
        with flush_denormals():
            session = onnxruntime.InferenceSession(serialized, options, providers=[provider], enable_fallback=0)
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        raise NetworkError(f"ONNX Runtime does not open {path} on {device}: {error}") from error
    if session.get_providers()[0] != provider[0]:
        raise ProviderError(
            f"{path} was to run on {device}, but ONNX Runtime gave {', '.join(session.get_providers())}: no usable GPU,"
            " or its driver or the nvidia-* packages beside onnxruntime-gpu do not fit; run `python -m pipeline doctor`"
            f" to see which, or choose the device cpu. {said}".rstrip()
        )
    return session


def _cuda_provider(precision: Precision) -> tuple[tuple[str, dict[str, str]], str]:
    """The CUDA provider with its options, and what loading its libraries said.

    Raises:
        ProviderError: if this installation of ONNX Runtime does not have it, or the GPU not the precision.
    """
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ProviderError(
            "the installed onnxruntime has no CUDA: remove the package onnxruntime, install onnxruntime-gpu again"
            " (the two overwrite each other), and check with `python -m pipeline doctor`"
        )
    if precision is Precision.TF32:
        check_tensor_float()
    said = _load_cuda()
    # Tensor-float arithmetic keeps 10 bits of mantissa: only where it is asked for. The exhaustive search for an
    # algorithm may choose another one in every process, and values would differ between runs.
    options = {"use_tf32": str(int(precision is Precision.TF32)), "cudnn_conv_algo_search": "HEURISTIC"}
    if precision is Precision.FLOAT16:
        options["prefer_nhwc"] = "1"  # an iresnet50 is 1.3 times as fast on an H100
    return ("CUDAExecutionProvider", options), said


def _load_cuda() -> str:
    """Load CUDA's libraries from the packages nvidia-*, which may lie in another folder than ONNX Runtime.

    Returns:
        What ONNX Runtime says of those that it does not find.
    """
    found = importlib.util.find_spec("nvidia")
    places = [Path(place) for place in found.submodule_search_locations or ()] if found else []
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for name in ("cuda", "cudnn"):
            pattern = "cudnn/lib" if name == "cudnn" else "cu[0-9]*/lib"
            folder = next((str(folder) for place in places for folder in sorted(place.glob(pattern))), None)
            onnxruntime.preload_dlls(cuda=name == "cuda", cudnn=name == "cudnn", directory=folder)
    return said.getvalue().strip()
