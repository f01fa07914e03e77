"""Whether the time an image takes stays the same in a data set ten times as large, for every expensive stage.

    python -m benchmarks.growth --workspace DIR [--pool TRAIN.REC] [--stages blur pose factors embeddings anchors]

Stages with a network are timed at 10,000 and 100,000 images, blur and anchors at 100,000 and 1,000,000, each by the
command that a user types with all cores, and by its receipt: without the start of Luigi, with that of the processes.
Images are those of the pool, again and again (benchmarks.make_ms1mv2). Anchors compare random embeddings of 512 values
with 10,000 people at both sizes, for their cost is images times people. DIR needs 5 GB; what is made is removed.
Further words are settings for Luigi, such as `--models-pose face_landmarker`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from benchmarks.scale import LABEL_ALL, STEPS, run, stage_seconds

SMALL, LARGE = (10_000, 100_000), (100_000, 1_000_000)
SIZES = {"blur": LARGE, "pose": SMALL, "factors": SMALL, "embeddings": SMALL, "anchors": LARGE}
PEOPLE = 10_000
AIM = 1.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True, help="a folder for all that is made")
    parser.add_argument("--pool", default="sample", help="a .rec whose images are used")
    parser.add_argument("--stages", nargs="+", default=list(SIZES), choices=list(SIZES))
    options, settings = parser.parse_known_args()
    seconds: dict[tuple[str, int], float] = {}
    for images in sorted({size for stage in options.stages for size in SIZES[stage]}):
        stages = [stage for stage in options.stages if images in SIZES[stage]]
        folder = options.workspace.absolute() / str(images)
        try:
            for stage in stages:
                seconds[stage, images] = time_stage(folder / stage, stage, images, options.pool, settings)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\nload over the last 1, 5 and 15 minutes: {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    print(f"\n| stage | images | µs an image | images | µs an image | ratio | aim |  |\n{'|---' * 8}|")
    for stage in options.stages:
        small, large = SIZES[stage]
        first, second = (1e6 * seconds[stage, size] / size for size in (small, large))
        verdict = "kept" if second / first <= AIM else "MISSED"
        times = f"{small:,} | {first:.1f} | {large:,} | {second:.1f}"
        print(f"| {stage} | {times} | {second / first:.2f} | {AIM} | {verdict} |")


def time_stage(folder: Path, stage: str, images: int, pool: str, settings: list[str]) -> float:
    """The seconds of one stage on a data set of its own."""
    dataset = folder / "data" / "growth.toml"
    make = [sys.executable, "-m", "benchmarks.make_ms1mv2", "--output", str(dataset.parent), "--name", dataset.stem]
    make += ["--images", str(images), "--pool", pool]
    fabricated = stage == "anchors"
    run([*make, *(["--identities", str(PEOPLE), "--without-pixels"] if fabricated else [])], folder)
    task = [*LABEL_ALL[:-1], f"{stage.capitalize()}All", "--dataset", str(dataset), *settings]
    if fabricated:
        run([*STEPS, "index", "--dataset", str(dataset)], folder)
        run([*STEPS, "fabricate", "--dimension", "512", "--without", "anchors", "--dataset", str(dataset)], folder)
    run([*task, "--workers", str(len(os.sched_getaffinity(0)))], folder)
    return stage_seconds(folder, stage)


if __name__ == "__main__":
    main()
