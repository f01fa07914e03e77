"""All pairs of an identity set beside the rate at which the same machine multiplies the same blocks.

    python -m benchmarks.all_pairs_speed [--images 20000] [--device cuda]

Pairs a second of the products alone, in blocks of the shape that makes most, of the counting pass and of the search
pass, and the share of the products' rate that each pass reaches. The best of several turns counts, of each.
OMP_NUM_THREADS sets the threads.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labelers.runtime.device import Device, TorchProducts
from labelers.runtime.threads import map_products, processor_threads
from training.evaluation.pairs.all_pairs import AllPairs
from training.evaluation.pairs.blocks import SHAPES, BlockShape
from training.evaluation.pairs.impostor_threshold import find_window, product_error
from training.evaluation.pairs.impostors import Impostors
from training.evaluation.pairs.rejection_levels import RejectionLevels

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FMRS = (1e-2, 1e-3, 1e-4)
IMAGES_A_PERSON = 10
PRODUCT_SECONDS = 1.0
TURNS = 2
PRODUCT_SHAPES = {
    Device.CPU: (BlockShape(1024, 256), BlockShape(1024, 512), BlockShape(512, 4096), BlockShape(1024, 8192)),
    Device.CUDA: (SHAPES[Device.CUDA], BlockShape(4096, 16_384)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--device", type=Device, default=Device.CPU, choices=list(Device))
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    embeddings, identities = make_set(options.images, options.dimension)
    threads = processor_threads() if options.device is Device.CPU else 1

    pairs = options.images * (options.images - 1) // 2
    print(
        f"{options.images:,} images, {pairs:,} pairs, {options.dimension} values, {options.device}, {threads} threads"
    )
    passes: dict[str, tuple[int, float]] = {}
    products, shape = 0.0, SHAPES[options.device]
    for tried in PRODUCT_SHAPES[options.device] * TURNS:
        products, shape = max((products, shape), (product_rate(embeddings, options.device, tried, threads), tried))
        for name, found in time_passes(embeddings, identities, options.device).items():
            passes[name] = min(passes.get(name, found), found)
    flops = products * 2 * options.dimension / 1e9
    print(f"products alone: {products:,.0f} pairs/s, {flops:,.0f} GFLOP/s in blocks of {shape.rows} x {shape.columns}")
    for name, (rounds, seconds) in passes.items():
        rate = rounds * pairs / seconds
        print(f"{name:<24}{seconds:>8.2f} s{rate:>16,.0f} pairs/s{rate / products:>6.0%} of the products alone")
    if options.json:
        shares = {name: rounds * pairs / seconds / products for name, (rounds, seconds) in passes.items()}
        options.json.write_text(json.dumps({"pairs": pairs, "products": products, "shares": shares}, indent=1))


def time_passes(embeddings: np.ndarray, identities: np.ndarray, device: Device) -> dict[str, tuple[int, float]]:
    """Over all pairs how often each pass goes, and its seconds."""
    built = AllPairs.build(embeddings, identities, device=device)
    built.thresholds(FMRS)  # compiles, and warms up
    genuine = built.a.astype(np.intp), built.b.astype(np.intp)
    impostors = Impostors(embeddings, genuine, RejectionLevels.single(len(embeddings)), device=device)
    count_seconds, counts = timed(impostors.count)
    wanted = np.zeros_like(counts, np.bool_)
    for fmr in FMRS:
        window = find_window(counts[0], fmr, product_error(embeddings.shape[1]))
        wanted[0, window.low : window.high + 1] = True
    search_seconds, _ = timed(lambda: impostors.collect(wanted))
    whole_seconds, _ = timed(lambda: built.thresholds(FMRS))
    return {
        "count": (1, count_seconds),
        f"search {wanted.sum()} bins": (1, search_seconds),
        "thresholds as a whole": (2, whole_seconds),
    }


def make_set(images: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings around a centre of each person."""
    rng = np.random.default_rng(0)
    identities = (np.arange(images) // IMAGES_A_PERSON).astype(np.int32)
    embeddings = rng.standard_normal((int(identities[-1]) + 1, dimension), np.float32)[identities]
    embeddings += rng.standard_normal((images, dimension), np.float32)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), identities


def product_rate(embeddings: np.ndarray, device: Device, shape: BlockShape, threads: int) -> float:
    """Pairs a second of products of whole blocks alone, as many blocks at a time as there are threads."""
    rows, columns = (embeddings[: min(size, len(embeddings))] for size in (shape.rows, shape.columns))
    if device is Device.CUDA:
        return cuda_product_rate(rows, columns)

    def multiply(_: int) -> int:
        matrix = np.empty((len(rows), len(columns)), np.float32)
        pairs, ends = 0, time.perf_counter() + PRODUCT_SECONDS
        while time.perf_counter() < ends:
            np.matmul(rows, columns.T, out=matrix)
            pairs += matrix.size
        return pairs

    seconds, pairs = timed(lambda: sum(map_products(multiply, range(threads), threads)))
    return pairs / seconds


def cuda_product_rate(rows: np.ndarray, columns: np.ndarray) -> float:
    """The same on a GPU, in float32."""
    products = TorchProducts("cuda", "products were to be timed")
    left, right = products.move(rows), products.move(columns)
    room = left.new_empty(len(rows) * len(columns))

    def multiply() -> None:
        for _ in range(200):
            products.multiply(left, right, room)
        products.torch.cuda.synchronize()

    multiply()
    return 200 * len(room) / timed(multiply)[0]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


if __name__ == "__main__":
    main()
