"""The faces that a method rejects first and last, small enough for a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from labelers.faces import DecodeError
from training.pages.pictures import Picture, shrink

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

FACES = 12
"""Faces at each end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One face of the gallery.

    Attributes:
        key: of the image.
        encoded: the image as it is stored: JPEG, PNG, BMP or WebP.
        quality: by the method whose gallery it is in.
        labels: name -> value of what else is known of the image, such as `yaw_deg` or `blur`; None where not known.
    """

    key: int
    encoded: bytes
    quality: float
    labels: Mapping[str, str | float | None]


def pick_faces(
    qualities: pa.Table, benchmark: str, method: str, count: int = FACES
) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Keys and qualities of the images that a method rejects first, worst first, and last, best first.

    Images without a quality are passed over; of equal qualities the smaller key comes first. No image stands in both.

    Args:
        qualities: the table `qualities`.
        benchmark: a benchmark in it.
        method: a method in it.
        count: faces at each end.
    """
    own = (
        pl.DataFrame(pl.from_arrow(qualities))
        .filter((pl.col("benchmark") == benchmark) & (pl.col("method") == method))
        .filter(pl.col("quality").is_finite())
        .select("key", "quality")
    )
    ordered = own.sort("quality", "key")
    at_start = min(count, own.height - own.height // 2)
    rest = ordered.slice(at_start).sort("quality", "key", descending=[True, False])
    return ordered.head(at_start).rows(), rest.head(count).rows()


def prepare(face: Face) -> Picture:
    """Bring a face to the size of the page and put what is known of it into words."""
    try:
        source = shrink(face.encoded)
    except DecodeError:
        source = ""
    quality = _show(face.quality)
    labels = [(name, _show(value)) for name, value in face.labels.items() if value is not None]
    return Picture(source=source, caption=quality, facts=(("image", str(face.key)), ("quality", quality), *labels))


def _show(value: str | float) -> str:
    """A label as text."""
    return value if isinstance(value, str) else f"{value:#.3g}".removesuffix(".")
