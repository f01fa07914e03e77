"""The faces that a method rejects first and last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from labelers.faces import DecodeError
from pipeline.pages.people import A_ROW, first_of_people
from pipeline.pages.pictures import Picture, embed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.evaluation.evaluate import EvaluatedBenchmark

    Ends = tuple[Sequence[Picture], Sequence[Picture]]


def read_gallery(evaluated: EvaluatedBenchmark, qualities: pl.DataFrame) -> dict[str, Ends]:
    """Method -> the faces that it rejects first, worst first, and last, best first; no method without any face.

    Args:
        evaluated: a benchmark with its images.
        qualities: the table `qualities`.
    """
    gallery: dict[str, Ends] = {}
    for (method,), own in qualities.filter(benchmark=evaluated.benchmark.name).group_by("method", maintain_order=True):
        rows = np.searchsorted(evaluated.images.keys, own["key"].to_numpy())
        ends = pick_faces(own, evaluated.images.identities[rows])
        if any(ends):
            first, last = (_read_faces(evaluated, end) for end in ends)
            gallery[str(method)] = first, last
    return gallery


def pick_faces(
    qualities: pl.DataFrame, people: NDArray[np.int32], count: int = A_ROW
) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Keys and qualities of the images that a method rejects first, worst first, and last, best first.

    Images without a quality are passed over, and the third and further ones of a person at one end; of equal qualities
    the smaller key comes first. No image stands in both.

    Args:
        qualities: rows of the table `qualities` of one benchmark and method.
        people: whom each row shows, [N]; negative where nobody knows.
        count: faces at each end.
    """
    table = qualities.select("key", "quality").with_row_index("row").filter(pl.col("quality").is_finite())
    ordered = table.sort("quality", "key")
    first = _pick(ordered.head(ordered.height - ordered.height // 2), people, count)
    rest = table.join(first, on="key", how="anti").sort("quality", "key", descending=[True, False])
    last = _pick(rest, people, count)
    return first.select("key", "quality").rows(), last.select("key", "quality").rows()


def _pick(ordered: pl.DataFrame, people: NDArray[np.int32], count: int) -> pl.DataFrame:
    """The first faces of a table, at most two of a person."""
    rows = ordered["row"].to_numpy().astype(np.int64)
    return ordered[first_of_people(np.arange(rows.size), people[rows], count)]


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
