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
        code="3c8190cff3f3041893a048d146d62904f4f9c2e95e8b5fc77f9731ade92b1beb",
    ),
    "pose": Version(
        number=1,
        modules=(
            "faces.py",
            "onnx.py",
            "precision.py",
            "prelu.py",
            "picture_input.py",
            "batch_axis.py",
            "denormals.py",
            "pose.py",
            "landmarker.py",
            "face_mesh.py",
            "head_geometry.py",
            "tflite.py",
            "tflite_to_onnx.py",
        ),
        code="7014e4d29ce92811cbf90d8f768df8d5af083195139bec35bcd46f312ca60c60",
    ),
    "factors": Version(
        number=1,
        modules=(
            "faces.py",
            "onnx.py",
            "precision.py",
            "prelu.py",
            "picture_input.py",
            "batch_axis.py",
            "denormals.py",
            "factors.py",
        ),
        code="a409947500ca4fb91456b87c6d34730ee9570175a9b53fa72526ef34ff581f7f",
    ),
    "embeddings": Version(
        number=1,
        modules=(
            "faces.py",
            "onnx.py",
            "precision.py",
            "prelu.py",
            "picture_input.py",
            "batch_axis.py",
            "denormals.py",
            "recognition.py",
        ),
        code="ff89673a62999df21f95263e52fdb9c458aee926b46daddd05dc88567c7a9aaa",
    ),
    "centres": Version(
        number=1,
        modules=("centres.py", "heads.py"),
        code="3ab0deac664ff67b76ed2c0491d7cbe1938cb34a48cf45eb05402a4716a98cbc",
    ),
    "anchors": Version(
        number=1,
        modules=("anchors.py", "centres.py", "nearest.py", "largest.py"),
        code="22c8ac3ae1c9650f46e58d5b422a8f172d66d4d226548e84c18ecf2bfa6cbac8",
    ),
    "anchor_range": Version(
        number=1, modules=("anchors.py",), code="5788f5ce7a7a9020e251d906ed94741216e76ef95caf78ab5bdb5a642c9df714"
    ),
    "labels": Version(
        number=1,
        modules=("levels.py", "anchors.py"),
        code="22ad29051c4271efde7708e72f8f5d1bd53bf8479f14b2f4e2d4ba78cb5f41bd",
    ),
}

if __name__ == "__main__":
    for stage, version in VERSIONS.items():
        sys.stdout.write(f"{stage}: {hash_code(version.modules)}\n")
