"""In what numbers a network computes, and what that needs. What only names a precision must not load a runtime."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from labelers.runtime.device import Device, ProviderError, gpu_capability

if TYPE_CHECKING:
    import onnx

PROCESSOR = Path("/proc/cpuinfo")
"""Where Linux tells what instructions the processor has."""

_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_AMPERE = (8, 0)


class Precision(StrEnum):
    """In what numbers a network computes. Pictures go in and values come out as float32 everywhere."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    TF32 = "tf32"
    FLOAT16 = "float16"


_DEVICES = {Precision.BFLOAT16: Device.CPU, Precision.TF32: Device.CUDA, Precision.FLOAT16: Device.CUDA}
"""The device that a precision other than float32 is for."""


def check_precision(precision: Precision, device: str) -> None:
    """Check that a device is one for which a precision is meant; asks nothing of the machine.

    Raises:
        ValueError: if it is not; names what to set.
    """
    needed = _DEVICES.get(precision, device)
    if device != needed:
        others = " or ".join(p for p in Precision if _DEVICES.get(p, device) == device)
        raise ValueError(
            f"{precision} is for device = {needed}, not {device}: set [models] precision = {others},"
            f" or [execution] device = {needed}"
        )


def check_processor(precision: Precision) -> None:
    """Check that this machine's processor has the instructions of a precision.

    Raises:
        ProviderError: if it has not, where the precision is bfloat16; names what to set.
    """
    if precision is Precision.BFLOAT16 and not _BFLOAT16_FLAGS & _processor_flags():
        raise ProviderError(
            f"precision = {precision} needs a processor with AVX512_BF16 or AMX (Intel from Cooper Lake, AMD from"
            f" Zen 4 on), and {PROCESSOR} names neither {' nor '.join(sorted(_BFLOAT16_FLAGS))}: set [models]"
            f" precision = {Precision.FLOAT32}"
        )


def check_tensor_float() -> None:
    """Check that the GPU multiplies in tf32; an older one would take the setting and compute in float32.

    Raises:
        ProviderError: if it does not; names what to set.
    """
    # Where there is no GPU at all, the session says so.
    if (found := gpu_capability()) is not None and found < _AMPERE:
        raise ProviderError(
            f"precision = {Precision.TF32} needs a GPU of compute capability 8.0 or more (Ampere), not"
            f" {found[0]}.{found[1]}: set [models] precision = {Precision.FLOAT32} or {Precision.FLOAT16}"
        )


def _processor_flags() -> frozenset[str]:
    """The instruction sets of the processor; none where the system does not tell."""
    lines = PROCESSOR.read_text().splitlines() if PROCESSOR.is_file() else []
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with float16 weights and values; inputs and outputs stay float32."""
    # Here because it loads ONNX Runtime.
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

    converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    return converted


class Bfloat16Session:
    """A network in bfloat16 on the processor, by OpenVINO, with what `Network` uses of an ONNX Runtime session.

    It runs in one thread, which it does not tie to a core: other cores have other processes, and so has this one.
    """

    def __init__(self, serialized: bytes) -> None:
        """Compile a network.

        Args:
            serialized: an ONNX model.

        Raises:
            ProviderError: if the processor lacks the instructions.
            RuntimeError: if OpenVINO does not know the network's operators.
        """
        check_processor(Precision.BFLOAT16)
        import openvino  # noqa: PLC0415 - takes a third of a second, and only this precision needs it

        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(core.read_model(serialized, b""), "CPU", settings)
        # OpenVINO takes the setting for a wish.
        if compiled.get_property("INFERENCE_PRECISION_HINT") != openvino.Type.bf16:
            raise ProviderError(
                f"OpenVINO does not compute in bfloat16 on this processor: set [models] precision = {Precision.FLOAT32}"
            )
        self._request = compiled.create_infer_request()
        self._inputs = [SimpleNamespace(name=value.any_name) for value in compiled.inputs]

    def get_inputs(self) -> list[SimpleNamespace]:
        """The inputs, each with its `name`."""
        return self._inputs

    def run(self, names: None, feed: dict[str, Any]) -> list[Any]:  # noqa: ARG002 - as ONNX Runtime is called
        """All outputs, in the network's order."""
        return list(self._request.infer(feed).values())
