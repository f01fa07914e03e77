"""Tries what a run needs of a device, in a process of its own: a library that does not fit a driver may end it.

    python -m labelers.runtime.device_check onnxruntime cuda

prints the CUDA that the library is built for, and what it did on the device; or why it did not, with exit code 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from labelers.runtime.device import Device

_SIDE = 64


def try_torch(device: Device) -> str:
    """Multiply two matrices by PyTorch on a device.

    Returns:
        What did it, with its memory where it is a GPU.

    Raises:
        RuntimeError: PyTorch's own, which says why it cannot use the GPU; or if the product is wrong.
    """
    import torch  # noqa: PLC0415 - it takes seconds to load, and may not load

    print_cuda_version(torch.version.cuda)
    if device is Device.CUDA:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # it says best why there is no GPU
    ones = torch.ones((_SIDE, _SIDE), device=device.value)
    if float((ones @ ones).sum()) != _SIDE**3:
        raise RuntimeError(f"a product of matrices by PyTorch on {device} is wrong: its driver or the GPU is damaged")
    if device is Device.CPU:
        return f"PyTorch {torch.__version__} works on the processor"
    gpus = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        gpus.append(f"{torch.cuda.get_device_name(number)} ({free >> 20:,} of {total >> 20:,} MiB free)")
    return f"PyTorch {torch.__version__}, built for CUDA {torch.version.cuda}, works on {', '.join(gpus)}"


def try_onnxruntime(device: Device) -> str:
    """Run a network of one convolution in ONNX Runtime on a device, opened as all networks are.

    Returns:
        What did it.

    Raises:
        ProviderError: if the device cannot be used.
        NetworkError: if the network does not run, or gives something else than it should.
    """
    import onnxruntime  # noqa: PLC0415 - it may not load
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - as above

    # CPU-only builds have no such name.
    cuda = getattr(onnxruntime, "cuda_version", "")
    print_cuda_version(cuda)
    from labelers.runtime.onnx import Colour, InputSpec, NetworkError, open_model  # noqa: PLC0415 - as above

    weight = numpy_helper.from_array(np.ones((1, 3, _SIDE, _SIDE), np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["picture", "weight"], ["sum"])],
        "sum",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["batch", 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", 1, 1, 1])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    spec = InputSpec(width=_SIDE, height=_SIDE, colour=Colour.RGB, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    network = open_model(model, path=Path("a small network"), input=spec, batch=2, device=device)
    found = network.run(np.ones((2, _SIDE, _SIDE, 3), np.uint8))[0].ravel()
    if not np.allclose(found, 3 * _SIDE**2):
        raise NetworkError(f"a convolution in ONNX Runtime on {device} gives {found}, not {3 * _SIDE**2}")
    built = f", built for CUDA {cuda}" if cuda else ""
    return f"ONNX Runtime {onnxruntime.__version__}{built}, runs a network on {device}"


def print_cuda_version(version: str | None) -> None:
    """Say what a library is built for before it is used, for it may not come back."""
    if version:
        sys.stdout.write(f"built for CUDA {version}\n")
        sys.stdout.flush()


CHECKS = {"torch": try_torch, "onnxruntime": try_onnxruntime}


def main(library: str, device: str) -> int:
    """Try a library, and say in one line what it did or what it lacks."""
    try:
        said, code = CHECKS[library](Device(device)), 0
    except Exception as error:  # libraries raise what they like, and one that is broken fails on import
        said, code = next(iter(str(error).splitlines()), type(error).__name__), 1
    sys.stdout.write(f"{said}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
