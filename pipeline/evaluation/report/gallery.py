"""The faces that a method rejects first and last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from labelers.faces import DecodeError
from pipeline.pages.pictures import Picture, embed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.evaluation.evaluate import EvaluatedBenchmark

    Ends = tuple[Sequence[Picture], Sequence[Picture]]

FACES = 12
"""Faces at each end."""


def read_gallery(evaluated: EvaluatedBenchmark, qualities: pl.DataFrame) -> dict[str, Ends]:
    """Method -> the faces that it rejects first, worst first, and last, best first; no method without any face.

    Args:
        evaluated: a benchmark with its images.
        qualities: the table `qualities`.
    """
    gallery: dict[str, Ends] = {}
    for (method,), own in qualities.filter(benchmark=evaluated.benchmark.name).group_by("method", maintain_order=True):
        ends = pick_faces(own)
        if any(ends):
            first, last = (_read_faces(evaluated, end) for end in ends)
            gallery[str(method)] = first, last
    return gallery


def pick_faces(qualities: pl.DataFrame, count: int = FACES) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Keys and qualities of the images that a method rejects first, worst first, and last, best first.

    Images without a quality are passed over; of equal qualities the smaller key comes first. No image stands in both.

    Args:
        qualities: rows of the table `qualities` of one benchmark and method.
        count: faces at each end.
    """
    ordered = qualities.select("key", "quality").filter(pl.col("quality").is_finite()).sort("quality", "key")
    at_start = min(count, ordered.height - ordered.height // 2)
    rest = ordered.slice(at_start).sort("quality", "key", descending=[True, False])
    return ordered.head(at_start).rows(), rest.head(count).rows()


def show_face(key: int, encoded: bytes, quality: float, labels: Mapping[str, str | float | None]) -> Picture:
    """A face with its quality below it.

    Args:
        key: of the image.
        encoded: the image as it is stored: JPEG, PNG, BMP or WebP.
        quality: by the method whose gallery it is in.
        labels: name -> value of what else is known of the image, such as `yaw_deg` or `blur`; None where not known.
    """
    try:
        source = embed(encoded, small=True)
    except DecodeError:
        source = ""
    shown = {name: _show(value) for name, value in labels.items() if value is not None}
    facts = ("image", str(key)), ("quality", _show(quality)), *shown.items()
    return Picture(source=source, caption=_show(quality), facts=facts)


def _read_faces(evaluated: EvaluatedBenchmark, chosen: Sequence[tuple[int, float]]) -> list[Picture]:
    """Faces by key and quality, with what is known of them; those that cannot be read are passed over."""
    images, measures = evaluated.images, evaluated.measures
    rows = np.searchsorted(images.keys, np.array([key for key, _ in chosen], np.int32))
    stored = evaluated.benchmark.job.source.read(images.index.take(rows))
    return [
        show_face(
            key, encoded, quality,
            {name: None if np.isnan(values[row]) else float(values[row]) for name, values in measures.items()},
        )
        for row, (key, quality), encoded in zip(rows.tolist(), chosen, stored, strict=True)
        if isinstance(encoded, bytes)
    ]  # fmt: skip


def _show(value: str | float) -> str:
    """A label as text."""
    return value if isinstance(value, str) else f"{value:#.3g}".removesuffix(".")
