"""How near the networks of a run come to the arithmetic of one core, as `doctor` shows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from data_manifests.installation import REPAIR
from data_manifests.weights.files import WeightsError
from labelers.opening import read_models
from labelers.runtime.device import Device
from labelers.runtime.precision import Precision
from pipeline.commands.doctor.finding import Finding, Verdict
from pipeline.config.pixel_stages import PIXEL_STAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from data_manifests.weights.entry import ModelEntry
    from labelers.runtime.arithmetic import Seconds
    from pipeline.config.job import Job

LEAST_SHARE = 0.2
"""Of its bound, a network is slow below. On a sound core the networks that this project knows reach 0.61 to
1.04 (docs/scale.md)."""

_BATCH = 4
"""Pictures in a run at most: the speed hardly depends on it, and a large network is measured in a second or two."""

_WIDE = ("avx2", "asimd")
"""What a processor says that multiplies eight, or four, numbers at a time."""


def check_speed(job: Job) -> Iterator[Finding]:
    """The matrix rate of one core, and every network of the run beside it that the processor runs in float32."""
    settings = job.settings
    measured = (Device.CPU, Precision.FLOAT32)
    stages = [s for s in PIXEL_STAGES if (settings.device_of(s.name), settings.precision_of(s.name)) == measured]
    roles = [stage.role for stage in stages if stage.role]
    if not roles:
        return
    try:
        rate = _core_rate()
    except Exception as error:  # a library that is broken fails as it likes
        text = f"ONNX Runtime does not work: {error}; `{REPAIR}` installs it anew"
        yield Finding(verdict=Verdict.BAD, subject="arithmetic", text=text)
        return
    yield check_core(2 * rate, Path("/proc/cpuinfo").read_text())
    for entry in (job.models[role] for role in roles):
        try:
            yield from _measure(entry, rate)
        except WeightsError:
            continue  # what is said of the weights says so
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            yield Finding(verdict=Verdict.BAD, subject=f"{entry.name} speed", text=str(error))


def _core_rate() -> float:
    """Multiply-adds a second of one core, in a process that is held to one thread, as those of a run are."""
    from labelers.runtime.arithmetic import core_rate  # noqa: PLC0415 - ONNX Runtime is loaded where it is asked for
    from pipeline.execution.contract import quieten_process  # noqa: PLC0415 - as above

    quieten_process()
    return core_rate()


def check_core(rate: float, cpuinfo: str) -> Finding:
    """What one core does, and whether it has wide arithmetic.

    Args:
        rate: FLOP a second of a float32 matrix product.
        cpuinfo: the text of /proc/cpuinfo.
    """
    flags = {word for line in cpuinfo.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    text = f"one core makes {rate / 1e9:,.0f} GFLOP/s of a float32 matrix product in ONNX Runtime"
    if flags.isdisjoint(_WIDE):
        text += "; it has no AVX2: a virtual machine hides it perhaps, give it the host's processor model"
        return Finding(verdict=Verdict.NOTE, subject="arithmetic", text=text)
    return Finding(verdict=Verdict.OK, subject="arithmetic", text=text)


def _measure(entry: ModelEntry, rate: float) -> Iterator[Finding]:
    """Every network of an entry."""
    from labelers.runtime.arithmetic import count_arithmetic, time_network  # noqa: PLC0415 - as above
    from labelers.runtime.entry_input import input_spec  # noqa: PLC0415 - as above
    from labelers.runtime.onnx import open_model  # noqa: PLC0415 - as above

    for path, model in read_models(entry):
        spec = input_spec(entry)
        arithmetic = count_arithmetic(model, input=spec)
        network = open_model(model, path=path, input=spec, batch=min(entry.batch, _BATCH), device=Device.CPU)
        yield check_network_speed(entry.name, path.name, time_network(network), arithmetic.bound / rate)


def check_network_speed(name: str, file: str, seconds: Seconds, least: float) -> Finding:
    """Whether a network is as fast as its arithmetic lets it be.

    Args:
        name: of the network.
        file: its weights, for the remedy.
        seconds: of one picture.
        least: seconds that its arithmetic needs on this core.
    """
    share, alone = least / seconds.wall, least / seconds.core
    text = f"{1 / seconds.wall:,.0f} images/s on one core, {share:.2f} of what its arithmetic allows"
    if share >= LEAST_SHARE:
        return Finding(verdict=Verdict.OK, subject=f"{name} speed", text=text)
    if alone >= LEAST_SHARE:
        text += (
            f"; other processes had the core {1 - seconds.core / seconds.wall:.0%} of the time: end them, give the "
            "container more processors, or run with fewer --workers"
        )
    else:
        text += (
            f", {alone:.2f} with the core to itself: the core is held back (by a power limit, an emulation, or other "
            f"virtual machines on the host, and then this changes from run to run), or {file} has layers that ONNX "
            "Runtime does slowly, or weights next to zero on a processor that cannot ignore them: "
            "`python -m benchmarks.labels_speed` shows every kernel; export the network anew where it alone is slow"
        )
    return Finding(verdict=Verdict.NOTE, subject=f"{name} speed", text=text)
