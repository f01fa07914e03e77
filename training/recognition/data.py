"""The images of people that a recogniser learns to tell apart."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.image_folder import ImageFileError
from data_manifests.recordio.format import RecordError
from data_manifests.tables.stages import Status
from labelers.faces import decode_batch
from training.dataset.images import TrainingDataError, decode_face, open_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from data_manifests.folds import Fold
    from training.dataset.images import Images

_PIECE = 64
"""Images that a thread looks at in one go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeopleImages:
    """M images of C people.

    Attributes:
        place: where they lie.
        keys: int32 [M], ascending.
        labels: int64 [M], whom each shows, from 0 to C - 1.
        identities: int32 [C], the number of every one of them in the data set, ascending.
        images: where the M images lie.
        left_out: cause -> number of images that are not learned from.
    """

    place: Path
    keys: NDArray[np.int32]
    labels: NDArray[np.int64]
    identities: NDArray[np.int32]
    images: Images
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def content(self) -> str:
        """What a training depends on: 12 hexadecimal digits of a SHA-256 over keys and people."""
        state = hashlib.sha256(self.keys.astype("<i4").tobytes())
        state.update(self.identities[self.labels].astype("<i4").tobytes())
        return state.hexdigest()[:12]

    def find_unreadable(self, threads: int) -> dict[str, list[int]]:
        """Read and decode every image once.

        Returns:
            Why some cannot be learned from, in the words of the tables' `status`, and the keys of these, ascending.
        """
        pieces = [range(start, min(start + _PIECE, len(self))) for start in range(0, len(self), _PIECE)]
        found: dict[str, list[int]] = {}
        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            for rows, status in zip(pieces, pool.map(self._look, pieces), strict=True):
                for row, told in zip(rows, status, strict=True):
                    if told is not Status.OK:
                        found.setdefault(told.value, []).append(int(self.keys[row]))
        return found

    def _look(self, rows: range) -> list[Status]:
        """Whether some of the images can be read and decoded."""
        chosen = slice(rows.start, rows.stop)
        return decode_batch(self.keys[chosen], self.identities[self.labels[chosen]], [*map(self._read, rows)])[1]

    def _read(self, row: int) -> bytes | Status:
        """The bytes of an image, or why there are none."""
        try:
            return self.images.read(row)
        except (RecordError, ImageFileError) as error:
            return error.status

    def decode_into(self, target: NDArray[np.uint8], row: int) -> None:
        """Decode one image.

        Args:
            target: uint8 [112, 112, 3], gets the RGB picture.
            row: 0 to M - 1.

        Raises:
            TrainingDataError: if it cannot be read; names its key.
        """

        def explain(why: str) -> str:
            return (
                f"{self.place}: key {self.keys[row]} cannot be learned from: {why}; it could be read when the run "
                "began, so bring the image back"
            )

        decode_face(lambda: self.images.read(row), target, explain)


def load_people(
    place: Path,
    *,
    held_out: Fold | None = None,
    least_images: int = 1,
    unreadable: Mapping[str, Sequence[int]] | None = None,
) -> PeopleImages:
    """Find the images to learn from.

    Left out, and counted, are images of nobody known, then the people who are held out, then what cannot be read, then
    people of few images.

    Args:
        place: a .rec file (its .idx beside it), or an image folder, one folder a person.
        held_out: the people who are left out.
        least_images: people of fewer images are left out.
        unreadable: the keys of images that cannot be read, by cause, from `PeopleImages.find_unreadable`.

    Raises:
        TrainingDataError: if there is no such place, or if fewer than two people are left.
        RecordError, ImageFolderError: if the images' index is damaged.
    """
    source = open_source(place)
    known = source.identities >= 0
    held = np.zeros(len(known), np.bool_) if held_out is None else known & held_out.holds(source.identities)
    damaged = {cause: np.isin(source.keys, keys) & known & ~held for cause, keys in (unreadable or {}).items()}
    usable = known & ~held & ~np.any([np.zeros(len(known), np.bool_), *damaged.values()], axis=0)
    people, counts = np.unique(source.identities[usable], return_counts=True)
    kept = people[counts >= least_images]
    learned = usable & np.isin(source.identities, kept)
    if len(kept) < 2:
        raise TrainingDataError(
            f"{place}: {len(kept)} people are left to be told apart ({len(people)} before those of fewer than "
            f"{least_images} images were left out): name images of two people or more, one folder a person, or lower "
            "least_images"
        )
    rows = np.flatnonzero(learned)
    return PeopleImages(
        place=place,
        keys=source.keys[rows],
        labels=np.searchsorted(kept, source.identities[rows]).astype(np.int64),
        identities=kept.astype(np.int32),
        images=source.choose(rows),
        left_out={
            "of nobody known": int((~known).sum()),
            "held out": int(held.sum()),
            **{cause: int(rows.sum()) for cause, rows in damaged.items()},
            "of people with few images": int((usable & ~learned).sum()),
        },
    )
