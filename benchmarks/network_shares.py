"""What every network at hand reaches of one core's arithmetic, and an iresnet50 with random weights beside.

    FIQA_MODELS=FOLDER python -m benchmarks.network_shares

Time in which the core did other work does not count.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from benchmarks.iresnet import write_iresnet50
from data_manifests.weights.entry import POSE_KINDS, Kind
from data_manifests.weights.files import WeightsError
from data_manifests.weights.registry import load_registry
from labelers.opening import read_models
from labelers.runtime.arithmetic import core_rate, count_arithmetic, time_network
from labelers.runtime.entry_input import input_spec
from labelers.runtime.onnx import Colour, Device, InputSpec, open_model
from pipeline.execution.contract import quieten_process

BATCH = 4


def main() -> None:
    quieten_process()
    print(f"{'network':<36}{'MMAC':>8}{'images/s':>10}{'GFLOP/s':>10}{'of product':>12}{'of bound':>10}")
    for entry in load_registry().entries.values():
        if entry.kind in {*POSE_KINDS, Kind.FACTORS, Kind.RECOGNITION}:
            try:
                models = read_models(entry)
            except WeightsError:
                continue
            for path, model in models:
                show(f"{entry.name} {path.stem}", model, input_spec(entry), min(entry.batch, BATCH))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "iresnet50.onnx"
        write_iresnet50(path)
        levels = (127.5, 127.5, 127.5)
        spec = InputSpec(width=112, height=112, colour=Colour.RGB, mean=levels, std=levels)
        show("iresnet50", onnx.load(path), spec, BATCH)


def show(name: str, model: onnx.ModelProto, spec: InputSpec, batch: int) -> None:
    """One line, with the rate of the product measured beside."""
    arithmetic = count_arithmetic(model, input=spec)
    rate = core_rate()
    seconds = time_network(open_model(model, path=Path(name), input=spec, batch=batch, device=Device.CPU)).core
    reached = arithmetic.multiply_adds / seconds
    print(
        f"{name:<36}{arithmetic.multiply_adds / 1e6:>8,.0f}{1 / seconds:>10,.0f}{2 * reached / 1e9:>10,.0f}"
        f"{reached / rate:>12.2f}{arithmetic.bound / seconds / rate:>10.2f}"
    )


if __name__ == "__main__":
    main()
