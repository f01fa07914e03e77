"""A training on a GPU that is killed in the middle, and what it comes to beside one under torchrun.

    python -m benchmarks.gpu_resume [--device cuda] [--tower RN50-quickgelu] [--steps 40] [--json resume.json]

Trains twice with the same settings: undisturbed, by torchrun as `--gpus 1` does; and killed by SIGKILL as soon as half
of the steps have a checkpoint, then run again to the end. Where the two differ, an undisturbed training is repeated,
for a GPU does not promise the same bits twice: what resuming adds is the difference beyond that.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from benchmarks.speed_data import find_faces
from labelers.runtime.device import Device

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from benchmarks.speed_data import Faces

_POLL_SECONDS = 0.02
IMAGES = 2048
"""To which the sample is repeated, where no data set is named."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", help=".rec file, or name or TOML file of a data set; default: the sample's faces")
    parser.add_argument("--device", type=Device, choices=list(Device), default=Device.CUDA)
    parser.add_argument("--tower", default="RN50-quickgelu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40, help="in all; half of them before the kill")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        faces = find_faces(folder, given.dataset, None, IMAGES)
        whole, killed = (words_for(faces, folder / run, given) for run in ("whole", "killed"))
        started = time.monotonic()
        train(whole, torchrun=True)
        figures: dict[str, Any] = {"torchrun_seconds": round(time.monotonic() - started, 1)}
        half = given.steps // 2
        kill_at(killed, folder / "killed" / "checkpoints" / f"step-{half:09d}" / "checkpoint.json")
        train(killed)
        figures |= {"steps": given.steps, "killed_behind_step": half}
        figures["resumed"] = compare(*(last_weights(folder / run, given.steps) for run in ("whole", "killed")))
        if figures["resumed"]["largest_difference"]:
            train(words_for(faces, folder / "again", given))
            weights = (last_weights(folder / run, given.steps) for run in ("whole", "again"))
            figures["repeated"] = compare(*weights)
    for key, value in figures.items():
        print(f"{key}: {value}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


def words_for(faces: Faces, output: Path, given: argparse.Namespace) -> list[str]:
    """The arguments of one training."""
    words = ["--labels", str(faces.labels), "--images", str(faces.images), "--output", str(output)]
    words += ["--tower", given.tower, "--pretrained", "", "--device", given.device.value, "--batch", str(given.batch)]
    words += ["--checkpoint-every", str(max(1, given.steps // 4)), "--keep", "9", "--learning-rate", "1e-4"]
    return [*words, "--epochs-one", "1000", "--limit-steps", str(given.steps)]


def start(words: Sequence[str], *, torchrun: bool = False) -> subprocess.Popen[bytes]:
    """Start a training."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=1", "-m"] if torchrun else []
    return subprocess.Popen([sys.executable, "-m", *launcher, "training.train_quality", *words])


def train(words: Sequence[str], *, torchrun: bool = False) -> None:
    """Train to the end of the asked steps."""
    if code := start(words, torchrun=torchrun).wait():
        sys.exit(f"the training ended with {code}")


def kill_at(words: Sequence[str], seal: Path) -> None:
    """Start a training, and kill it when that file is there."""
    process = start(words)
    while process.poll() is None and not seal.exists():
        time.sleep(_POLL_SECONDS)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        sys.exit(f"the training ended with {process.returncode} before it could be killed: give more --steps")


def last_weights(run: Path, steps: int) -> dict[str, torch.Tensor]:
    """The weights after the last step."""
    return load_file(run / "checkpoints" / f"step-{steps:09d}" / "model.safetensors")


def compare(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> dict[str, float]:
    """How many of the weights differ, and by how much."""
    differences = [(left[name].double() - right[name].double()).abs() for name in left]
    unequal = sum(int((difference > 0).sum()) for difference in differences)
    largest = max(float(difference.max()) for difference in differences if difference.numel())
    return {"unequal": unequal, "of": sum(d.numel() for d in differences), "largest_difference": largest}


if __name__ == "__main__":
    main()
