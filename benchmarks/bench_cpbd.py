"""CPBD's speed: our kernels against PyPI cpbd 1.0.7, in one run, on the same images, with the largest difference.

    python benchmarks/bench_cpbd.py

The images are real aligned faces where the folder of test data is there (FIQA_TEST_DATA, default ../shared), else
crops of a photo that scikit-image ships. PyPI cpbd needs numpy 1.23 and scikit-image 0.21: it gets an environment of
its own in the user's cache folder, made on the first run. Everything runs on one thread.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from skimage import data as photos

from data_manifests.recordio.record_file import RecordFile
from labelers.blur.scores import Blocks, BlurLabeler, Edges, cpbd, sobel
from labelers.faces import FaceBatch, decode, grey

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

AIM = 180
"""How many times faster than PyPI cpbd the kernel shall be."""
TOLERANCE = 1e-12
PACKAGES = ("cpbd==1.0.7", "numpy==1.23.5", "scipy==1.10.1", "scikit-image==0.21.0")
PYTHON = ">=3.9,<3.12"

PYPI_PROGRAM = """
import sys, time
import numpy as np
import scipy.ndimage
scipy.ndimage.imread = None  # cpbd imports it for its command line; this SciPy no longer has it
import cpbd
images = np.load(sys.argv[1])
cpbd.compute(images[0])
start = time.perf_counter()
scores = [cpbd.compute(image) for image in images]
seconds = time.perf_counter() - start
np.savez(sys.argv[2], scores=scores, seconds=seconds)
"""


def load_faces(count: int) -> tuple[str, NDArray[np.uint8]]:
    """Where the images come from, and uint8 [count, 112, 112, 3]."""
    default = Path(__file__).resolve().parents[2] / "shared"
    rec = Path(os.environ.get("FIQA_TEST_DATA", default)) / "data/lfw112_mixed/train.rec"
    if rec.is_file():
        with RecordFile(rec) as file:
            keys = file.keys[:: max(1, len(file) // count)][:count]
            return "lfw112_mixed", np.stack([decode(file.read(int(key))[1]) for key in keys])
    photo, seed = photos.astronaut(), np.random.default_rng(0)
    corners = seed.integers(0, 400, (count, 2))
    crops = [photo[r : r + 112, c : c + 112] for r, c in corners]
    return "crops of scikit-image's astronaut", np.stack(
        [cv2.GaussianBlur(crop, (0, 0), sigma) for crop, sigma in zip(crops, seed.uniform(0.2, 2, count), strict=True)]
    )


def best_rate(run: Callable[[], object], count: int, repeats: int = 5) -> float:
    """Images a second of the fastest of some runs, after one that compiles."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return count / min(seconds)


def make_environment(folder: Path) -> Path:
    """The Python of an environment with PyPI cpbd, made when it is not there."""
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        beside = Path(sys.executable).with_name("uv")
        uv = str(beside) if beside.exists() else shutil.which("uv")
        if uv is None:
            raise SystemExit("uv is missing, and PyPI cpbd needs an environment of its own: run `make setup` first")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", PYTHON, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *PACKAGES], check=True)
        (folder / "complete").touch()
    return python


def run_pypi(python: Path, images: NDArray[np.uint8]) -> tuple[float, NDArray[np.float64]]:
    """Images a second, and the scores [N], of PyPI cpbd."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder) / "images.npy", Path(folder) / "scores.npz"
        np.save(given, images)
        command = [str(python), "-W", "ignore", "-c", PYPI_PROGRAM, str(given), str(result)]
        subprocess.run(command, check=True, env=os.environ | one_thread)
        with np.load(result) as values:
            return len(images) / float(values["seconds"]), values["scores"]


def score_all(gray: NDArray[np.uint8], edges: Edges, blocks: Blocks) -> list[float]:
    """CPBD of every image."""
    return [cpbd(image, edges, blocks) for image in gray]


def measure_ours(faces: NDArray[np.uint8], gray: NDArray[np.uint8]) -> dict[str, float]:
    """Images a second of every variant, one core, images decoded; printed as they are measured."""
    count = len(faces)
    numbers = np.arange(count, dtype=np.int32)
    batch = FaceBatch(keys=numbers, images=faces, identities=numbers)
    jobs: dict[str, Callable[[], object]] = {
        f"cpbd {edges} {blocks}": partial(score_all, gray, edges, blocks) for edges, blocks in product(Edges, Blocks)
    }
    jobs["grey"] = lambda: [grey(face) for face in faces]
    jobs["sobel"] = lambda: [sobel(face) for face in faces]
    jobs["BlurLabeler (grey, cpbd, sobel)"] = lambda: BlurLabeler()(batch)
    rates = {}
    for name, job in jobs.items():
        rates[name] = best_rate(job, count)
        print(f"{name:40} {rates[name]:10,.0f} images/s")
    return rates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fiqa-factory/pypi-cpbd"
    parser.add_argument("--images", type=int, default=2000, help="images for our kernels")
    parser.add_argument(
        "--pypi-images", type=int, default=400, help="of them, how many for PyPI cpbd (30 to 50 a second)"
    )
    parser.add_argument("--environment", type=Path, default=cache, help="where PyPI cpbd is installed")
    arguments = parser.parse_args()

    cv2.setNumThreads(1)
    source, faces = load_faces(arguments.images)
    print(f"{len(faces)} images of 112x112, {source}; one core, decoding not counted")
    gray = np.stack([grey(face) for face in faces])
    rates = measure_ours(faces, gray)

    some = gray[:: max(1, len(gray) // arguments.pypi_images)][: arguments.pypi_images]
    pypi_rate, theirs = run_pypi(make_environment(arguments.environment), some)
    ours = np.array(score_all(some, Edges.PYTHON, Blocks.REFERENCE))
    difference = float(np.abs(ours - theirs).max())
    print(f"{'PyPI cpbd 1.0.7':40} {pypi_rate:10,.1f} images/s ({len(some)} images)")
    for edges in Edges:
        ratio = rates[f"cpbd {edges} {Blocks.REFERENCE}"] / pypi_rate
        print(f"ratio, {edges} edges: {ratio:,.0f}x (aim {AIM}x)")
    print(f"largest difference, python edges: {difference:.1e} (at most {TOLERANCE:.0e})")
    return 0 if difference <= TOLERANCE else 1


if __name__ == "__main__":
    raise SystemExit(main())
