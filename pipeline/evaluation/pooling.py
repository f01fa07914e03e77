"""Evaluates qualities as weights of the images of a template (CR-FIQA, IJB-C 1:1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from data_manifests.benchmarks.pairs import read_templates
from data_manifests.tables.evaluation import TEMPLATES
from training.evaluation.templates import Templates, measure_tar, scale_quality

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from data_manifests.manifest import Manifest
    from training.evaluation.evaluate import Options

UNWEIGHTED = "mean"
"""The method whose images all weigh the same."""


class PoolingError(ValueError):
    """A benchmark of templates cannot be evaluated; says why."""


def evaluate_templates(
    manifest: Manifest,
    keys: NDArray[np.int32],
    embeddings: NDArray[np.float32],
    qualities: Mapping[str, NDArray[np.floating[Any]]],
    options: Options,
) -> tuple[pa.Table, list[str]]:
    """Pool the images of every template by each quality, and without one, and compare the templates.

    An image without an embedding is in no template. One without a quality weighs nothing, as the worst one does.

    Args:
        manifest: of format templates.
        keys: of the images [N], ascending.
        embeddings: [N, D]; NaN where there is none.
        qualities: method -> [N]; NaN where there is none.
        options: of the evaluation.

    Returns:
        The table `templates`, with benchmark and recogniser still null, and what a reader should know.

    Raises:
        PoolingError: if no genuine or no impostor pair of templates is left.
    """
    lists = read_templates(manifest)
    rows = np.searchsorted(keys, lists.images.key)
    there = np.append(keys, -1)[rows] == lists.images.key
    rows, images = rows[there], np.flatnonzero(there)
    found = ~np.isnan(embeddings[rows, 0])
    rows, images = rows[found], images[found]
    template, medium = lists.images.template[images], lists.images.medium[images]
    kept = np.isin(lists.a, template) & np.isin(lists.b, template)
    a, b, same = lists.a[kept], lists.b[kept], lists.same[kept]
    if same.all() or not same.any():
        raise PoolingError(
            f"{manifest.name}: of {len(kept):,} pairs of templates {len(same):,} have an embedding on both sides, "
            f"{int(same.sum()):,} of them genuine: genuine and impostor pairs are needed"
        )
    table: list[dict[str, Any]] = []
    notes = _say_left_out(len(lists.images.key) - len(rows), int((~kept).sum()))
    counts = {"genuine": int(same.sum()), "impostors": int((~same).sum())}
    vectors = embeddings[rows]
    for method, weights in _weigh(qualities, rows, template, notes):
        pooled = Templates.pool(vectors, template, medium, weights)
        for far, tar in measure_tar(pooled.similarities(a, b), same).items():
            few = far * counts["impostors"] < options.fewest_impostors
            status = "too_few_impostors" if few else "ok"
            table.append({"method": method, "far": far, "tar": tar, **counts, "status": status})
    return TEMPLATES.to_arrow(table), notes


def _say_left_out(images: int, pairs: int) -> list[str]:
    """What has no embedding."""
    if not images:
        return []
    return [f"{images:,} images are left out, for want of an embedding, and with them {pairs:,} pairs of templates"]


def _weigh(
    qualities: Mapping[str, NDArray[np.floating[Any]]],
    rows: NDArray[np.intp],
    template: NDArray[np.int32],
    notes: list[str],
) -> list[tuple[str, NDArray[np.float64] | None]]:
    """The weights of the images at `rows` [R] by every method."""
    found: list[tuple[str, NDArray[np.float64] | None]] = [(UNWEIGHTED, None)]
    for method, quality in qualities.items():
        own = quality[rows]
        known = np.isfinite(own)
        if len(np.unique(own[known])) < 2:
            notes.append(f"{method} gives all images the same quality, so it gives no weights and is left out")
            continue
        weights = np.zeros(len(rows))
        weights[known] = scale_quality(own[known], template[known])
        found.append((method, weights))
    return found
