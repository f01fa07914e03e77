"""A training on all cores beside another process that keeps one of them busy: with waiting as here, and as by default.

python -m benchmarks.busy_core [--seconds 4]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import torch

from training.backbones.names import Backbone
from training.backbones.networks import build_backbone

BATCH = 32
TURNS = {"as here": 1_000, "by default": 300_000}
"""How often a thread of libgomp looks whether the others are done, before it sleeps (GOMP_SPINCOUNT)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4, help="of every measurement (default: %(default)s)")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(measure(given.seconds))
        return
    print(f"{os.cpu_count()} cores; images/s of mobilefacenet_small in training, batch {BATCH}")
    for beside in (False, True):
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) if beside else None
        try:
            speeds = {name: start(given.seconds, turns) for name, turns in TURNS.items()}
        finally:
            if busy:
                busy.kill()
        here, default = speeds.values()
        shown = ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items())
        print(f"{'one core busy' if beside else 'cores free'}: {shown} ({here / default:.2f} times)", flush=True)


def start(seconds: float, turns: int) -> float:
    """Images per second of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.busy_core", "--measure", "--seconds", str(seconds)]
    return float(subprocess.check_output(command, env={**os.environ, "GOMP_SPINCOUNT": str(turns)}, text=True))


def measure(seconds: float) -> float:
    """Images per second of forward, backward and a step."""
    torch.manual_seed(0)
    backbone = build_backbone(Backbone.MOBILEFACENET_SMALL).train()
    optimiser = torch.optim.SGD(backbone.parameters(), lr=1e-3)
    images = torch.randn(BATCH, 3, 112, 112)
    done, started = -2, time.perf_counter()
    while done <= 0 or time.perf_counter() - started < seconds:
        if done == 0:
            started = time.perf_counter()
        optimiser.zero_grad()
        backbone(images).square().mean().backward()
        optimiser.step()
        done += 1
    return done * BATCH / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
