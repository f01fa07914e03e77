"""Whether packages that several distributions provide are whole, and the system has the libraries that they load."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys

SHARED_MODULES = ("onnxruntime", "cv2")
"""Modules that several distributions provide: one that is taken away takes the files of the others along."""

REPAIR = "rm -r .venv && make setup"
"""Installs every package whole; `make setup` by itself does nothing where the lock has not changed."""

SYSTEM_PACKAGES = "libegl1 libgl1 libgles2 libglib2.0-0"
"""Debian's packages of the libraries that OpenCV and MediaPipe load (docker/debian-packages.txt)."""

_LIBRARIES = ("libxcb.so.1", "libGL.so.1", "libgthread-2.0.so.0")
"""What OpenCV loads of them; a tenth of a second less than OpenCV itself takes."""

_LANDMARKER_LIBRARIES = ("libEGL.so.1", "libGLESv2.so.2")
"""What MediaPipe loads of them when a landmarker is opened."""


def find_fault() -> str:
    """What is wrong with the packages, and the remedy, in one sentence; empty if nothing is. Loads none of them."""
    for module in SHARED_MODULES:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:  # a folder without its first file
            return (
                f"the module {module} is not whole, as after another of its distributions was removed: run `{REPAIR}`"
            )
    return ""


def find_missing_library() -> str:
    """What library of OpenCV's the system lacks, and the remedy, in one sentence; empty if none is missing.

    OpenCV itself is loaded only where one of the usual libraries is missing: it may be built to do without.
    """
    try:
        for library in _LIBRARIES:
            ctypes.CDLL(library)
    except OSError:
        try:
            importlib.import_module("cv2")
        except ImportError as error:
            return _advise_packages(error)
    return ""


def find_missing_landmarker_library() -> str:
    """What library of MediaPipe's FaceLandmarker the system lacks, and the remedy; empty if none is missing."""
    try:
        for library in _LANDMARKER_LIBRARIES:
            ctypes.CDLL(library)
    except OSError as error:
        return _advise_packages(error)
    return ""


def _advise_packages(error: Exception) -> str:
    """An error and the system's packages that hold the library it names; the error is raised if it names none."""
    if ".so" not in str(error):
        raise error
    return f"{error}: install the system's libraries, on Debian and Ubuntu `apt-get install {SYSTEM_PACKAGES}`"


def require_installation() -> None:
    """End the program with one message where packages are not whole; no command can do anything then."""
    if fault := find_fault():
        sys.exit(f"error: {fault}")


def require_libraries() -> None:
    """End the program with one message where the system lacks a library that nearly every command needs."""
    if fault := find_missing_library():
        sys.exit(f"error: {fault}")
