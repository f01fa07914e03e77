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
    "index": Version(number=1, modules=(), code=""),
    "blur": Version(number=1, modules=("faces.py", "blur.py", "cpbd.py", "canny.py", "compilation.py"), code=""),
    "pose": Version(number=1, modules=("faces.py", "onnx.py", "batch_axis.py", "pose.py", "landmarker.py"), code=""),
    "factors": Version(number=1, modules=("faces.py", "onnx.py", "batch_axis.py", "factors.py"), code=""),
    "embeddings": Version(number=1, modules=("faces.py", "onnx.py", "batch_axis.py", "recognition.py"), code=""),
    "centres": Version(number=1, modules=("centres.py", "heads.py"), code=""),
    "anchors": Version(number=1, modules=("anchors.py", "centres.py", "nearest.py"), code=""),
    "anchor_range": Version(number=1, modules=("anchors.py",), code=""),
    "labels": Version(number=1, modules=("levels.py", "anchors.py"), code=""),
}

if __name__ == "__main__":
    for stage, version in VERSIONS.items():
        sys.stdout.write(f"{stage}: {hash_code(version.modules)}\n")
