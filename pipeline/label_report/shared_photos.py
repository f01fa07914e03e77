"""Photos that stand under several people, byte for byte: at most one of them is named rightly."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from pipeline.config.job import Job

SHOWN = 4
"""Photos whose keys the warning names."""

_ALIKE = ("cpbd", "sobel")
"""Equal for equal pixels, and hardly ever for others: only images that share both are read."""


def shared_photo_warnings(job: Job, labels: pl.LazyFrame) -> list[str]:
    """How many photos stand under several people, with the keys of the first."""
    photos = find_shared_photos(job, labels)
    if not photos:
        return []
    keys = "; ".join(" and ".join(map(str, photo)) for photo in photos[:SHOWN])
    return [
        f"{sum(map(len, photos)):,} images are photos that stand under several people, byte for byte: keys {keys}"
        f"{'; …' if len(photos) > SHOWN else ''}: at most one name is right, so their quality is too low and a class "
        "centre holds a stranger; take the wrong ones out of the data set"
    ]


def find_shared_photos(job: Job, labels: pl.LazyFrame) -> list[list[int]]:
    """The photos of the `labels` table whose bytes are stored under more than one identity.

    Returns:
        The ascending keys of each, in the order of the first.
    """
    people = labels.filter(pl.col("identity") >= 0, pl.all_horizontal(pl.col(_ALIKE).is_not_null()))
    several = pl.col("identity").n_unique().over(_ALIKE) > 1
    candidates = people.select("key", "identity", *_ALIKE).filter(several).select("key", "identity").collect()
    found: dict[bytes, list[int]] = {}
    for shard in sorted(job.store.present_shards(job.stages["index"])) if len(candidates) else ():
        rows = job.store.read(job.stages["index"], shard)
        rows = rows.filter(pc.is_in(rows["key"], pa.array(candidates["key"].to_numpy())))
        for key, stored in zip(rows["key"].to_pylist(), job.source.read(rows), strict=True):
            if isinstance(stored, bytes):
                found.setdefault(hashlib.sha256(stored).digest(), []).append(key)
    person = dict(candidates.iter_rows())
    return [keys for keys in found.values() if len({person[key] for key in keys}) > 1]
