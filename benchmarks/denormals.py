"""What denormal weights cost a network, with denormals flushed to zero as the factory does, and without.

    python -m benchmarks.denormals [--weights 8948]

Times, in turns on one core, three networks of the same shape: an iresnet50 with random weights; the same with that
many weights of its 1x1 and 3x3 convolutions replaced by denormal numbers; and the latter in a bare ONNX Runtime
session, which leaves the processor as it is. Where the first two are equally fast, denormals cost nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from timeit import timeit
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from benchmarks.iresnet import write_iresnet50
from labelers.runtime.onnx import Colour, Device, InputSpec, open_network
from pipeline.execution.contract import quieten_process
from pipeline.storage.receipts import machine

if TYPE_CHECKING:
    from collections.abc import Callable

AIM = 1.3
BATCH = 16
ROUNDS = 5
SPEC = InputSpec(width=112, height=112, colour=Colour.RGB, mean=(127.5,) * 3, std=(127.5,) * 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=8948, help="that become denormal; fr_feature has so many")
    given = parser.parse_args()
    quieten_process()
    with tempfile.TemporaryDirectory() as name:
        plain, poor = Path(name, "plain.onnx"), Path(name, "denormal.onnx")
        write_iresnet50(plain)
        add_denormals(plain, poor, given.weights)
        pictures = np.random.default_rng(0).integers(0, 256, (BATCH, 112, 112, 3), dtype=np.uint8)
        ours = [open_network(path, input=SPEC, batch=BATCH, device=Device.CPU) for path in (plain, poor)]
        works = [*((lambda network=network: network.run(pictures)) for network in ours), bare(poor, pictures)]
        seconds = np.median([[timeit(work, number=1) for work in works] for _ in range(ROUNDS)], axis=0)
    without, flushed, left = (BATCH / s for s in seconds)
    print(f"{machine()['processor']}, one core, iresnet50, {given.weights:,} denormal weights")
    print(f"no denormal weights        {without:8.1f} images/s")
    print(f"denormals flushed to zero  {flushed:8.1f} images/s, {without / flushed:.2f} times as slow")
    print(f"denormals left as they are {left:8.1f} images/s, {without / left:.2f} times as slow")
    print(f"aim: within {AIM} times: {'kept' if without / flushed <= AIM else 'MISSED'}")


def add_denormals(source: Path, target: Path, count: int) -> None:
    """Replace so many weights of the convolutions, spread evenly over all of them, by denormal numbers."""
    model = onnx.load(source)
    names = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    weights = [weight for weight in model.graph.initializer if weight.name in names]
    random = np.random.default_rng(1)
    for weight in weights:
        values = numpy_helper.to_array(weight).copy()
        places = random.choice(values.size, min(-(-count // len(weights)), values.size), replace=False)
        values.reshape(-1)[places] = random.uniform(1e-40, 1e-38, len(places)).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, target)


def bare(path: Path, pictures: np.ndarray) -> Callable[[], object]:
    """The network in a session of its own, as ONNX Runtime opens it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    batch = ((pictures.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2).copy()
    return lambda: session.run(None, {name: batch})


if __name__ == "__main__":
    main()
