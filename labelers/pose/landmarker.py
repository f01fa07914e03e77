"""MediaPipe's FaceLandmarker, opened once: quiet, on the CPU, and without calls home."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import tempfile
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from data_manifests.installation import find_missing_landmarker_library
from data_manifests.storage.environment import environment
from labelers.pose.head_geometry import EYES_NOSE_MOUTH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)

PADDING = 56
"""Black pixels on each side for the second try: the detector misses some faces that fill the picture."""

_NOISE = (
    b"Logging before InitGoogle() is written to STDERR",
    b"Sets FaceBlendshapesGraph acceleration to xnnpack by default",
    b"Created TensorFlow Lite XNNPACK delegate for CPU",
    b"Feedback manager requires a model with a single signature inference",
)

_LAST_WORDS = 'read -r over || { cat "$0" >&2; rm -f "$0"; }'
"""What a shell does with the file of held-back lines, $0, when its input ends without a line: this process has died."""


class LandmarkerError(ValueError):
    """The task file cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFace:
    """What the landmarker says of one face.

    Attributes:
        rotation: float64 [3, 3], the head's rotation with columns of unit length.
        landmarks: float64 [5, 2], x then y in pixels of the picture: eyes, nose tip, corners of the mouth, each from
            left to right in the picture.
        padded: found only after padding.
    """

    rotation: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    padded: bool


class Landmarker:
    """An open FaceLandmarker in IMAGE mode: no state from one picture to the next."""

    def __init__(self, task_file: Path) -> None:
        if not task_file.is_file():
            raise FileNotFoundError(f"no landmarker bundle at {task_file}: `python -m pipeline weights` fetches it")
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(task_file), delegate=BaseOptions.Delegate.CPU),
            running_mode=vision.RunningMode.IMAGE,
            num_faces=1,
            output_facial_transformation_matrixes=True,
        )
        with contextlib.ExitStack() as blocked, quiet_stderr() as said:
            blocked.enter_context(block_network())
            try:
                self._landmarker: Any = vision.FaceLandmarker.create_from_options(options)
            except Exception as error:  # MediaPipe raises by the C status code: RuntimeError, ValueError and others
                text = b" ".join(said()).decode(errors="replace")
                fault = find_missing_landmarker_library() or f"MediaPipe does not open {task_file}: {error} {text}"
                raise LandmarkerError(fault.rstrip()) from error
            self._close = weakref.finalize(self, _close_silently, self._landmarker, blocked.pop_all())
            # Its worker threads speak up with the first picture.
            self._detect(np.zeros((112, 112, 3), np.uint8))

    def find(self, image: NDArray[np.uint8]) -> FoundFace | None:
        """Find the one face of a picture, uint8 [H, W, 3] RGB; None where there is none even after padding."""
        result, padded = self._detect(image), False
        if not result.face_landmarks:
            edges = ((PADDING, PADDING), (PADDING, PADDING), (0, 0))
            result, padded = self._detect(np.pad(image, edges)), True
            if not result.face_landmarks:
                return None
        margin = PADDING if padded else 0
        height, width = (side + 2 * margin for side in image.shape[:2])
        points = [result.face_landmarks[0][index] for index in EYES_NOSE_MOUTH]
        rotation = np.asarray(result.facial_transformation_matrixes[0], np.float64)[:3, :3]
        return FoundFace(
            rotation=rotation / np.linalg.norm(rotation, axis=0),
            landmarks=np.array([(point.x * width - margin, point.y * height - margin) for point in points]),
            padded=padded,
        )

    def close(self) -> None:
        """Free the model and its threads; also done when the object dies and when the interpreter ends."""
        self._close()

    def _detect(self, image: NDArray[np.uint8]) -> Any:
        """Run the task on one picture."""
        picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        return self._landmarker.detect(picture)


def _close_silently(landmarker: Any, blocked: contextlib.ExitStack) -> None:
    """Close a task without sending usage statistics, and let requests out again."""
    with blocked, quiet_stderr():
        try:
            landmarker.close()
        except RuntimeError as error:
            if "after shutdown" not in str(error):
                raise
            # The interpreter is ending and MediaPipe's thread is gone; the process frees the rest, and without a
            # handle MediaPipe's own destructor does not try once more.
            landmarker._handle = None


_blocked = contextlib.ExitStack()
_holders: list[object] = []
_BLOCKED = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}


@contextlib.contextmanager
def block_network() -> Iterator[None]:
    """Let HTTPS requests of native code fail at once; blocks may overlap, and the last one to end lets them out again.

    While a task is open, and when it is closed, MediaPipe sends statistics of its use to its makers and offers no
    switch against it; where nobody answers, the process hangs when it ends. Its HTTP client obeys the environment, so
    for that time the proxy is a port where nobody listens.
    """
    holder = object()
    if not _holders:
        _blocked.enter_context(environment(_BLOCKED))
    _holders.append(holder)
    try:
        yield
    finally:
        _holders.remove(holder)
        if not _holders:
            _blocked.close()


@contextlib.contextmanager
def quiet_stderr() -> Iterator[Any]:
    """Hold back what native code writes to stderr; all but the known chatter is logged as a warning at the end.

    Where native code ends the process meanwhile, no Python runs any more: a shell that waits for the end writes all of
    it to stderr.

    Yields:
        A function that gives the lines so far and takes them off the log.
    """
    with tempfile.NamedTemporaryFile() as file:
        read = 0

        def take() -> list[bytes]:
            nonlocal read
            lines = os.pread(file.fileno(), os.fstat(file.fileno()).st_size - read, read)
            read += len(lines)
            return [line for line in lines.splitlines() if line.strip() and not any(n in line for n in _NOISE)]

        # In a session of its own, so that Ctrl-C leaves it to the end of this process.
        command = ["/bin/sh", "-c", _LAST_WORDS, file.name]
        witness = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
        screen = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield take
        finally:
            os.dup2(screen, 2)
            os.close(screen)
            witness.communicate(b"\n")
            for line in take():
                _LOG.warning("MediaPipe: %s", line.decode(errors="replace"))
