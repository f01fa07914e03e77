"""The version of every labeler: it enters the fingerprint, so that a change of output makes old labels stale.

`code` is the SHA-256 of the modules that decide the output. A test compares it with the files: whoever changes one
of them either raises `number`, because the output changes, or updates `code` alone, and thereby says that the output
is the same. `python -m labelers.versions` prints the values to enter.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Version of a labeler.

    Attributes:
        number: raised when the same input gives another output.
        modules: files of this package that decide the output.
        code: SHA-256 of those files.
    """

    number: int
    modules: tuple[str, ...]
    code: str


def hash_code(modules: tuple[str, ...]) -> str:
    """SHA-256 over the files of this package, each with its name."""
    state = hashlib.sha256()
    for name in modules:
        state.update(f"{name}\n".encode())
        state.update((Path(__file__).parent / name).read_bytes())
    return state.hexdigest()


VERSIONS: dict[str, Version] = {
    "index": Version(number=1, modules=(), code="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    "blur": Version(
        number=1,
        modules=("faces.py", "blur.py", "cpbd.py", "canny.py", "compilation.py"),
        code="511dd571f74654e18b53c4187e6bdf627c8f872570f7317d59ee5c9fe32645b8",
    ),
    "pose": Version(
        number=1,
        modules=("faces.py", "onnx.py", "batch_axis.py", "pose.py", "landmarker.py"),
        code="31968fba8d088492ea0d1a92d503751533df82c4760eaa228e989047e777f288",
    ),
    "factors": Version(
        number=1,
        modules=("faces.py", "onnx.py", "batch_axis.py", "factors.py"),
        code="60f82c8228825db87f49d8a7efb49d55130c758104b1a940d9e32621160f3132",
    ),
    "embeddings": Version(
        number=1,
        modules=("faces.py", "onnx.py", "batch_axis.py", "recognition.py"),
        code="96979b6229fd6b4e770b556615926d00fb304177051cdf299e55323e3619089e",
    ),
    "centres": Version(
        number=1,
        modules=("centres.py", "heads.py"),
        code="3ab0deac664ff67b76ed2c0491d7cbe1938cb34a48cf45eb05402a4716a98cbc",
    ),
    "anchors": Version(
        number=1,
        modules=("anchors.py", "centres.py", "nearest.py"),
        code="5e388fd82993bd5735c0131c4207e48cbbdb44744386919e63b3cfef282b808a",
    ),
    "anchor_range": Version(
        number=1, modules=("anchors.py",), code="07a6ad8d60ca5de5385e9017381ebc29c57c36bbbcad6cbafc7f54d6f9107f39"
    ),
    "labels": Version(
        number=1,
        modules=("levels.py", "anchors.py"),
        code="01a51009d5f2b369553284865a5a58ebb1eefb6fa58724fc1664a2f3ae393d57",
    ),
}

if __name__ == "__main__":
    for stage, version in VERSIONS.items():
        sys.stdout.write(f"{stage}: {hash_code(version.modules)}\n")
