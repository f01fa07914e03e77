"""The table that an alignment leaves beside its crops: where the face of every photo was found."""

from __future__ import annotations

import pyarrow as pa

from data_manifests.tables.stages import STATUS, Column, Table

LANDMARKS = tuple(f"{axis}{number}" for number in range(1, 6) for axis in "xy")
"""The columns of the five landmarks, x1 y1 to x5 y5, in the order of `ARCFACE_TEMPLATE`."""

_POINTS = ("left eye", "right eye", "nose tip", "left corner of the mouth", "right corner of the mouth")


def _landmark_columns() -> tuple[Column, ...]:
    """The ten coordinates; left and right are the picture's."""
    return tuple(
        Column(
            name=name,
            type=pa.float32(),
            text=f"{_POINTS[number // 2]}, pixels from the {'left' if number % 2 == 0 else 'top'} of the upright photo",
        )
        for number, name in enumerate(LANDMARKS)
    )


ALIGNMENT = Table(
    name="alignment",
    text="Where the face of every photo was found and where its aligned crop lies; written beside the crops.",
    columns=(
        Column(name="path", type=pa.string(), text="the photo below its folder"),
        Column(name="crop", type=pa.string(), text="the aligned image below the folder of crops; null without one"),
        Column(name="bytes", type=pa.int64(), text="size of the photo's file; with its time tells that it has changed"),
        Column(name="mtime_ns", type=pa.int64(), text="the file's time of change, in nanoseconds since 1970"),
        Column(name="width", type=pa.int32(), text="of the upright photo, in pixels; null where it does not decode"),
        Column(name="height", type=pa.int32(), text="likewise"),
        *_landmark_columns(),
        Column(name="score", type=pa.float32(), limits=(0.0, 1.0), text="how certain the detector is of the face"),
        Column(name="faces", type=pa.int32(), text="faces found in the photo; null where landmarks were given"),
        STATUS,
    ),
)
"""One row a photo, sorted by path. Given landmarks may come with scores of any scale."""
