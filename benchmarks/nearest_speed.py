"""The nearest class centre among 85,742: exact, and how near to the rate of this machine's matrix product.

    python -m benchmarks.nearest_speed [--device cuda] [--classes 85742] [--rows 4096]

Times `measure_anchors` (CCS, NNCCS and certainty ratio of parts of 1,024 images, as the anchors stage calls it) and, in
the same run and in turns with it, bare float32 matrix products of the same shapes. The ratio is that of the best turns.
A part of the rows is checked against all similarities in float64.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_info

from labelers.anchors import measure_anchors
from labelers.centres import Centres
from labelers.device import Device
from labelers.nearest import COLUMNS
from pipeline.shards import MAX_PART_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

AIM = 0.85
DIMENSION = 512
IMAGES = 68
"""Images a person, as in MS1MV2."""
CHECKED = 256
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=Device, choices=list(Device), default=Device.CPU)
    parser.add_argument("--classes", type=int, default=85_742)
    parser.add_argument("--rows", type=int, default=4 * MAX_PART_ROWS)
    given = parser.parse_args()
    random = np.random.default_rng(1)
    directions = random.standard_normal((given.classes, DIMENSION), np.float32)
    identities = random.integers(0, given.classes, given.rows).astype(np.int32)
    embeddings = (directions[identities] + 0.8 * random.standard_normal((given.rows, DIMENSION), np.float32)).astype(
        np.float16
    )
    centres = Centres(
        identities=np.arange(given.classes, dtype=np.int32),
        counts=np.full(given.classes, IMAGES, np.int32),
        sums=directions * np.float32(IMAGES / np.sqrt(DIMENSION)),
    )

    def ours() -> None:
        for start in range(0, given.rows, MAX_PART_ROWS):
            part = slice(start, start + MAX_PART_ROWS)
            measure_anchors(embeddings[part], identities[part], centres, device=given.device)

    bare = bare_products(embeddings.astype(np.float32), centres.sums, given.device)
    seconds = np.array([[time_once(work) for work in (ours, bare)] for _ in range(ROUNDS)])
    with_ours, alone = seconds.min(axis=0)
    wrong, largest = check(embeddings[:CHECKED], identities[:CHECKED], centres, given.device)
    flops = 2 * given.rows * given.classes * DIMENSION
    ratio = alone / with_ours
    pools = ", ".join(f"{p['internal_api']} x {p['num_threads']}" for p in threadpool_info())
    print(f"{given.rows:,} x {given.classes:,} x {DIMENSION} on {given.device} ({pools})")
    print(f"bare products   {given.rows / alone:10,.0f} rows/s   {flops / alone / 1e9:10,.0f} GFLOP/s")
    print(f"measure_anchors {given.rows / with_ours:10,.0f} rows/s   {flops / with_ours / 1e9:10,.0f} GFLOP/s")
    print(f"ratio {ratio:.2f} (aim {AIM}): {'kept' if ratio >= AIM else 'MISSED'}")
    print(f"of {CHECKED} rows {wrong} differ from float64 by more than 1e-6; largest difference {largest:.1e}")
    print(f"5.8 million images: {5_822_653 * with_ours / given.rows / 3600:.2f} hours")


def time_once(work: Callable[[], None]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def bare_products(rows: NDArray[np.float32], centres: NDArray[np.float32], device: Device) -> Callable[[], None]:
    """The products alone, tile by tile, into one buffer."""
    if device is Device.CUDA:
        import torch  # noqa: PLC0415

        torch.backends.cuda.matmul.allow_tf32 = False
        left, right = torch.from_numpy(rows).cuda(), torch.from_numpy(centres).cuda()

        def on_gpu() -> None:
            for start in range(0, len(rows), MAX_PART_ROWS):
                left[start : start + MAX_PART_ROWS] @ right.T
            torch.cuda.synchronize()

        return on_gpu

    buffer = np.empty((MAX_PART_ROWS, COLUMNS), np.float32)

    def on_processor() -> None:
        for start in range(0, len(rows), MAX_PART_ROWS):
            part = rows[start : start + MAX_PART_ROWS]
            for first in range(0, len(centres), COLUMNS):
                tile = centres[first : first + COLUMNS]
                np.matmul(part, tile.T, out=buffer[: len(part), : len(tile)] if len(tile) == COLUMNS else None)

    return on_processor


def check(
    embeddings: NDArray[np.float16], identities: NDArray[np.int32], centres: Centres, device: Device
) -> tuple[int, float]:
    """How many NNCCS differ from those of all similarities in float64, and by how much at most."""
    units = embeddings.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    others = centres.sums.astype(np.float64)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    similarity = units @ others.T
    similarity[np.arange(len(units)), identities] = -np.inf
    found = measure_anchors(embeddings, identities, centres, device=device).columns["nnccs"]
    difference = np.abs(similarity.max(axis=1) - found)
    return int((difference > 1e-6).sum()), float(difference.max())


if __name__ == "__main__":
    main()
