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
        modules=(
            "faces.py",
            "blur/scores.py",
            "blur/cpbd_kernels.py",
            "blur/canny.py",
            "blur/edge_ratio.py",
            "runtime/compilation.py",
        ),
        code="5d06888317e497d6aa6f462d75abdf102cd3bc80334414c21757d927df8f8365",
    ),
    "pose": Version(
        number=1,
        modules=(
            "faces.py",
            "runtime/onnx.py",
            "runtime/precision.py",
            "runtime/prelu.py",
            "runtime/picture_input.py",
            "runtime/batch_axis.py",
            "runtime/denormals.py",
            "pose/labeler.py",
            "pose/landmarker.py",
            "pose/face_mesh.py",
            "pose/head_geometry.py",
        ),
        code="f0fbb73cab8336f241b1626b287889007f483f20f228c53da757584d626cfd0d",
    ),
    "factors": Version(
        number=1,
        modules=(
            "faces.py",
            "runtime/onnx.py",
            "runtime/precision.py",
            "runtime/prelu.py",
            "runtime/picture_input.py",
            "runtime/batch_axis.py",
            "runtime/denormals.py",
            "factors.py",
        ),
        code="8a817e1f6988c80917e7bcff8dd7ce3fb4b2b37b0c63dffc871ef1a9143aa479",
    ),
    "embeddings": Version(
        number=1,
        modules=(
            "faces.py",
            "runtime/onnx.py",
            "runtime/precision.py",
            "runtime/prelu.py",
            "runtime/picture_input.py",
            "runtime/batch_axis.py",
            "runtime/denormals.py",
            "recognition.py",
        ),
        code="f70d8578bf97abe711df906997c44894f6b973a41d4c63d815ae265a52630eb3",
    ),
    "centres": Version(
        number=2,
        modules=("anchors/centres.py", "anchors/copies.py", "anchors/head.py"),
        code="2f897c3ff17db66bb7c5b9fb376ff0b7a3e67dfcc4250b34940793aab190ad3b",
    ),
    "anchors": Version(
        number=2,
        modules=("anchors/similarities.py", "anchors/centres.py", "anchors/nearest.py", "anchors/largest.py"),
        code="6b54e790bb7c8d3bd1fc860a856ec54eae91a172d9ac3f1bec3585a3a044979f",
    ),
    "anchor_range": Version(
        number=1,
        modules=("anchors/similarities.py",),
        code="9b43d7a62ea4ea7b94068fb7c17e33560263fd10ff0b6a3ff91536cfe72dbe5d",
    ),
    "labels": Version(
        number=1,
        modules=("levels.py", "rules.py", "anchors/similarities.py"),
        code="658e3e0d42816843d9bf50e6d49b8ec67d58d7aa915e899155eb934c3004d441",
    ),
}

if __name__ == "__main__":
    for stage, version in VERSIONS.items():
        sys.stdout.write(f"{stage}: {hash_code(version.modules)}\n")
