"""The nearest class centre among 85,742: exact, and how near to the rate of this machine's matrix product.

    python -m benchmarks.nearest_speed [--device cuda] [--classes 85742] [--rows 2048]

Times `measure_anchors` (CCS, NNCCS and certainty ratio of parts of 1,024 images) as the anchors stage calls it: with a
search that is opened once. In turns with it, the same float32 products alone, cut in several ways. The ratio is that of
the best turn of each, so of the fastest way. A part of the rows is checked against all similarities in float64.
OMP_NUM_THREADS sets the threads.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_info

from labelers.anchors.centres import Centres
from labelers.anchors.nearest import COLUMNS, GPU_COLUMNS, ROWS, open_search
from labelers.anchors.similarities import measure_anchors
from labelers.runtime.device import Device, TorchProducts
from labelers.runtime.threads import map_products, processor_threads
from pipeline.storage.shards import MAX_PART_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from labelers.anchors.nearest import CentreSearch

AIM = 0.85
DIMENSION = 512
IMAGES = 68
"""Images a person, as in MS1MV2."""
CHECKED = 256
ROUNDS = 4
SHAPES = ((ROWS, COLUMNS), (512, 1024), (1024, 1024), (1024, 8192))
"""Rows and centres of the products alone on a processor."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=Device, choices=list(Device), default=Device.CPU)
    parser.add_argument("--classes", type=int, default=85_742)
    parser.add_argument("--rows", type=int, default=2 * MAX_PART_ROWS)
    parser.add_argument("--json", type=Path, help="file for the figures")
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

    search = open_search(centres, given.device)

    def ours() -> None:
        for start in range(0, given.rows, MAX_PART_ROWS):
            part = slice(start, start + MAX_PART_ROWS)
            measure_anchors(embeddings[part], identities[part], search)

    ours()  # compiles, and warms up
    ways = bare_products(embeddings.astype(np.float32), centres.sums, given.device)
    turns = [(time_once(ours), time_once(bare)) for bare in ways * ROUNDS]
    with_ours, alone = np.array(turns).min(axis=0)
    wrong, largest = check(embeddings[:CHECKED], identities[:CHECKED], search)
    flops = 2 * given.rows * given.classes * DIMENSION
    ratio = alone / with_ours
    pools = ", ".join(f"{p['internal_api']} x {p['num_threads']}" for p in threadpool_info())
    print(f"{given.rows:,} x {given.classes:,} x {DIMENSION} on {given.device} ({pools})")
    print(f"bare products   {given.rows / alone:10,.0f} rows/s   {flops / alone / 1e9:10,.0f} GFLOP/s")
    print(f"measure_anchors {given.rows / with_ours:10,.0f} rows/s   {flops / with_ours / 1e9:10,.0f} GFLOP/s")
    # On a GPU one process cannot keep up with the products; the stage has four.
    aim = f" (aim {AIM}): {'kept' if ratio >= AIM else 'MISSED'}" if given.device is Device.CPU else " by one process"
    print(f"ratio {ratio:.2f}{aim}")
    print(f"of {CHECKED} rows {wrong} differ from float64 by more than 1e-6; largest difference {largest:.1e}")
    print(f"5.8 million images: {5_822_653 * with_ours / given.rows / 3600:.2f} hours")
    if given.json:
        figures = {"rows": given.rows, "classes": given.classes, "rows_per_second": given.rows / with_ours}
        figures |= {"gflops": flops / alone / 1e9, "ratio": ratio, "wrong": wrong, "checked": CHECKED}
        given.json.write_text(json.dumps(figures, indent=1))


def time_once(work: Callable[[], None]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def bare_products(rows: NDArray[np.float32], centres: NDArray[np.float32], device: Device) -> list[Callable[[], None]]:
    """The products of parts of rows with all centres and nothing else, in every way that may be the fastest."""
    if device is Device.CUDA:
        return [on_gpu(rows, centres, columns) for columns in (GPU_COLUMNS, len(centres))]
    threads = processor_threads()
    ways = [on_processor(rows, centres, shape, threads) for shape in SHAPES]
    return ways if threads == 1 else ways + [on_processor(rows, centres, shape, 1) for shape in SHAPES[2:]]


def on_gpu(rows: NDArray[np.float32], centres: NDArray[np.float32], columns: int) -> Callable[[], None]:
    """The products on a GPU, where rows and centres lie."""
    products = TorchProducts("cuda", "products were to be timed")
    left, right = products.move(rows), products.move(centres)
    room = left.new_empty(MAX_PART_ROWS * columns)

    def multiply() -> None:
        for start in range(0, len(rows), MAX_PART_ROWS):
            for first in range(0, len(centres), columns):
                products.multiply(left[start : start + MAX_PART_ROWS], right[first : first + columns], room)
        products.torch.cuda.synchronize()

    return multiply


def on_processor(
    rows: NDArray[np.float32], centres: NDArray[np.float32], shape: tuple[int, int], threads: int
) -> Callable[[], None]:
    """The products on a processor: of several threads each its own, or each one on all threads that it may use."""
    height, width = shape

    def multiply_tile(tile: NDArray[np.float32]) -> None:
        room = np.empty((len(tile), height), np.float32)
        for start in range(0, len(rows), height):
            block = rows[start : start + height]
            np.matmul(tile, block.T, out=room[:, : len(block)] if len(block) == height else None)

    tiles = [centres[first : first + width] for first in range(0, len(centres), width)]
    return lambda: deque(map_products(multiply_tile, tiles, threads), maxlen=0)


def check(embeddings: NDArray[np.float16], identities: NDArray[np.int32], search: CentreSearch) -> tuple[int, float]:
    """How many NNCCS differ from those of all similarities in float64, and by how much at most."""
    units = embeddings.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    others = search.centres.sums.astype(np.float64)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    similarity = units @ others.T
    similarity[np.arange(len(units)), identities] = -np.inf
    found = measure_anchors(embeddings, identities, search).columns["nnccs"]
    difference = np.abs(similarity.max(axis=1) - found)
    return int((difference > 1e-6).sum()), float(difference.max())


if __name__ == "__main__":
    main()
