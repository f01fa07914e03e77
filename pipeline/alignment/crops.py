"""From photos to aligned crops: the work on one part of them, in the process that holds the detector."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.image_folder import ImageFileError, ImageFolder
from data_manifests.storage.atomic import write_atomically
from data_manifests.storage.parquet import write_table
from data_manifests.tables.alignment import ALIGNMENT, LANDMARKS
from data_manifests.tables.stages import Status
from data_manifests.weights.files import find

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from data_manifests.weights.entry import ModelEntry
    from labelers.detection import FaceDetector
    from pipeline.storage.shards import Part

# Every import of a labeler stands inside a function: the process that plans loads no model library.

VERSION = 1
"""Raised when the same photos and settings give other crops: those that were made before are then made anew."""

PART_PHOTOS = 64
"""A crash costs each process at most one part: at 20 photos a second that is three seconds."""

MADE_FROM = "made_from"
"""The key of the settings in a table's metadata."""

_UNREADABLE = {"bytes": 0, "mtime_ns": 0}
"""What is known of a file that cannot be read; when it can, it counts as changed."""

JPEG_SUFFIXES = (".jpg", ".jpeg")

JPEG_QUALITY = 95
"""OpenCV's own default, with which InsightFace writes aligned crops."""


class AlignError(ValueError):
    """Photos cannot be aligned as asked; says what is wrong and what to do."""


class Encoding(StrEnum):
    """How crops are stored."""

    JPEG = "jpeg"
    PNG = "png"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignSettings:
    """What decides the crops of given photos.

    Attributes:
        detector: name, version and SHA-256 of the network, or of the list in which the landmarks are given.
        face: the rule where a photo has several faces.
        encoding: how crops are stored.
        min_score: the least certain face that counts.
        longest_side: photos are reduced to it before faces are looked for.
    """

    detector: str
    face: str
    encoding: Encoding
    min_score: float
    longest_side: int

    def describe(self) -> dict[str, Any]:
        """The plain description that is kept with the table."""
        return {"version": VERSION, "jpeg_quality": JPEG_QUALITY, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignFolder:
    """Where an alignment is written.

    `NAME/` holds the crops and nothing else, `NAME.toml` is the manifest that names them as a data set, and
    `NAME.alignment/` holds `alignment.parquet` and, while the work goes on, the plan and the parts that are done.

    Attributes:
        crops: the folder of the crops, absolute.
    """

    crops: Path

    @property
    def state(self) -> Path:
        """The folder of the table."""
        return self.crops.with_name(f"{self.crops.name}.alignment")

    @property
    def table(self) -> Path:
        """The table of all photos."""
        return self.state / "alignment.parquet"

    @property
    def manifest(self) -> Path:
        """The manifest of the crops."""
        return self.crops.with_name(f"{self.crops.name}.toml")

    def plan(self, digest: str) -> Path:
        """The photos that a run has to align."""
        return self.state / f"plan-{digest}.parquet"

    def part(self, digest: str, part: Part) -> Path:
        """What was found in the photos of a part of a plan."""
        return self.state / f"part-{digest}-{part.start}-{part.stop}.parquet"

    def plans(self) -> list[Path]:
        """The plans of runs that did not come to their end, and tables that were set aside."""
        return sorted(self.state.glob("plan-*.parquet"))

    def parts(self) -> list[Path]:
        """The parts that wait to be joined."""
        return sorted(self.state.glob("part-*.parquet"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignPhotos:
    """Align the photos of one part of a plan: write the crops, then the part's rows, which say that they are whole.

    Attributes:
        photos: the folder of the photos.
        folder: where the results go.
        digest: names the plan.
        settings: what decides the crops.
        entry: the detector's network; None where the plan holds landmarks.
        made_from: the description of the settings as it stands in every table.
    """

    photos: Path
    folder: AlignFolder
    digest: str
    settings: AlignSettings
    entry: ModelEntry | None
    made_from: str

    def __call__(self, part: Part, advance: Callable[[int], None]) -> dict[str, float]:
        """Align, stage, and return how many photos ended with which status."""
        rows = []
        for row in recall_plan(self.folder.plan(self.digest)).slice(part.start, part.rows).to_pylist():
            rows.append(self._align(row))
            advance(1)
        write_table(self.folder.part(self.digest, part), make_rows(rows, self.made_from))
        return dict(Counter(str(row["status"]) for row in rows))

    def _align(self, row: dict[str, Any]) -> dict[str, Any]:
        """Align one photo and say how that went; a crop that an earlier run made and this one does not make goes."""
        from labelers.faces import DecodeError  # noqa: PLC0415
        from labelers.photos import decode_photo  # noqa: PLC0415

        result = {"path": row["path"], **read_facts(self.photos / row["path"])}
        crop = None
        try:
            photo = decode_photo(ImageFolder(self.photos).read(row["path"]))
            result |= {"width": photo.shape[1], "height": photo.shape[0]}
            found = self._find(photo, row)
            crop = found.pop("crop")
            result |= found
        except ImageFileError as error:
            result["status"] = error.status.value
        except DecodeError:
            result["status"] = Status.DECODE_ERROR.value
        place = self.folder.crops / row["crop"]
        if crop is None:
            place.unlink(missing_ok=True)
            return result
        encoded = encode(crop, place.suffix)
        write_atomically(place, lambda file: file.write(encoded))
        return result | {"crop": row["crop"]}

    def _find(self, photo: NDArray[np.uint8], row: dict[str, Any]) -> dict[str, Any]:
        """What the table says of the face, and under `crop` its pixels, uint8 [112, 112, 3] RGB, or None."""
        import numpy as np  # noqa: PLC0415

        from data_manifests.alignment import AlignmentError, align  # noqa: PLC0415 - loads OpenCV
        from labelers.detection import FaceChoice  # noqa: PLC0415

        if self.entry is None:
            landmarks = np.array([row[name] for name in LANDMARKS]).reshape(5, 2)
            facts = {"score": row["score"], "faces": None}
        else:
            face = _detector(self.entry, self.settings).locate(photo, FaceChoice(self.settings.face))
            if face is None:
                return {"crop": None, "faces": 0, "status": Status.NO_FACE.value}
            landmarks, facts = face.landmarks, {"score": face.score, "faces": face.faces}
        facts |= dict(zip(LANDMARKS, landmarks.ravel().tolist(), strict=True))
        try:
            return {"crop": align(photo, landmarks), "status": Status.OK.value, **facts}
        except AlignmentError:  # five points in which no turn sees a face
            return {"crop": None, "status": Status.NO_FACE.value, **facts}


def encode(crop: NDArray[np.uint8], suffix: str) -> bytes:
    """Encode a crop, uint8 [112, 112, 3] RGB, as its file's suffix says."""
    import cv2  # noqa: PLC0415

    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix.lower() in JPEG_SUFFIXES else []
    _, encoded = cv2.imencode(suffix.lower(), crop[:, :, ::-1], quality)
    return bytes(encoded.tobytes())


def make_rows(rows: Sequence[dict[str, Any]], made_from: str) -> pa.Table:
    """Rows of the table; what a row does not name is null."""
    columns = {name: [row.get(name) for row in rows] for name in ALIGNMENT.names}
    table = pa.table(
        {name: pa.array(values) if name == "status" else values for name, values in columns.items()},
        schema=ALIGNMENT.schema(),
    )
    return table.replace_schema_metadata({MADE_FROM: made_from})


def read_facts(place: Path) -> dict[str, int]:
    """Size and time of change of a photo's file; zeros where it cannot be read, as for a link that leads nowhere."""
    try:
        facts = place.stat()
    except OSError:
        return _UNREADABLE
    return {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns} if os.access(place, os.R_OK) else _UNREADABLE


@lru_cache(maxsize=1)
def recall_plan(plan: Path) -> pa.Table:
    """The rows of a plan, read once a process; a plan's content is in its name."""
    return pq.read_table(plan, memory_map=True)


@lru_cache(maxsize=1)
def _detector(entry: ModelEntry, settings: AlignSettings) -> FaceDetector:
    """The detector that this process holds."""
    from labelers.detection import FaceDetector  # noqa: PLC0415

    (weights,) = find(entry)
    return FaceDetector(weights, longest_side=settings.longest_side, min_score=settings.min_score)
