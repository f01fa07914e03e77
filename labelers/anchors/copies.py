"""Copies: images of one person whose embeddings hardly differ, because they are one photo stored twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labelers.anchors.centres import unit_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

LEAST_COSINE = 0.999
"""From this similarity on, an image is a copy of another one. Two photos of one person in LFW reach 0.982, one photo
damaged in two ways 0.992 (the sample); the same photo as PNG has 1, and as JPEG of quality 95 from 0.9990 to 0.9998."""

_ROUNDING = 1e-5
"""By how much a product in float32 may miss a similarity; what lies so near to the border is computed in float64."""

_ROWS = 1024
"""Images of a person compared at a time: 4 MB of products for every 1,024 others."""


def find_copies(embeddings: NDArray[np.floating], identities: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Tell which images are copies of an earlier one of the same person.

    Args:
        embeddings: [N, D], of any length; whoever has one of the embeddings here has all of them here.
        identities: [N]; below zero nobody is meant, and nothing is a copy.

    Returns:
        bool [N]; an image without direction (zero or not finite) is none, and none is where a recogniser gives all
        people nearly the same embedding, as one that has hardly been trained does.
    """
    copies = np.zeros(len(embeddings), np.bool_)
    units = unit_rows(embeddings)
    people = list(_people(np.where(np.isfinite(units[:, 0]), identities, -1)))
    if people and are_alike(np.stack([units[rows].mean(axis=0) for rows in people])):
        return copies
    for rows in people:
        copies[rows] = _repeat_earlier(units[rows])
    return copies


def are_alike(means: NDArray[np.float32]) -> bool:
    """Whether all people, of several, have nearly the same mean embedding; their means are [P, D], of any length."""
    if len(means) < 2:
        return False
    units = unit_rows(means)
    return bool((units @ unit_rows(units.mean(axis=0, keepdims=True))[0]).min() >= LEAST_COSINE)


def _people(identities: NDArray[np.integer]) -> Iterator[NDArray[np.intp]]:
    """The ascending rows of every person who has several."""
    order = np.argsort(identities, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(identities[order])) + 1):
        if len(rows) > 1 and identities[rows[0]] >= 0:
            yield rows


def _repeat_earlier(units: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of one person's unit embeddings [K, D] are nearly equal to an earlier one."""
    found = np.zeros(len(units), np.bool_)
    for start in range(0, len(units), _ROWS):
        block = units[start : start + _ROWS]
        products = np.tril(block @ units[: start + len(block)].T, start - 1)  # [R, start + R], earlier ones alone
        later, earlier = np.nonzero(products >= LEAST_COSINE - _ROUNDING)
        exact = np.einsum("nd,nd->n", block[later], units[earlier], dtype=np.float64)
        found[start + later[exact >= LEAST_COSINE]] = True
    return found
