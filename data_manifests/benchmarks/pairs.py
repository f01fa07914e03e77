"""Which images of a verification benchmark are compared, by the keys that its index gives them."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.benchmarks.pair_lists import NamedPairs, PairsError, parse_pairs
from data_manifests.benchmarks.templates import TemplateImages, TemplateList, read_template_images, read_templates
from data_manifests.image_folder import ImageFolder
from data_manifests.image_paths import find_among, find_shared
from data_manifests.manifest import Format, ManifestError, check_counts
from data_manifests.verification import read_bin

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from data_manifests.manifest import Manifest

__all__ = [
    "FOLDS",
    "PairList",
    "PairsError",
    "TemplateImages",
    "TemplateList",
    "contiguous_folds",
    "number_bin",
    "read_pairs",
    "read_template_images",
    "read_templates",
]

logger = logging.getLogger(__name__)

FOLDS = 10
"""LFW's protocol, and InsightFace's for every .bin: ten folds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairList:
    """The pairs of a verification benchmark.

    Attributes:
        a: int32 [P], the key of one image of every pair.
        b: int32 [P], the key of the other.
        same: bool [P], whether both show the same person.
        fold: int16 [P], the fold for cross-validation, from 0.
    """

    a: NDArray[np.int32]
    b: NDArray[np.int32]
    same: NDArray[np.bool_]
    fold: NDArray[np.int16]

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.same)


def read_pairs(manifest: Manifest, paths: Sequence[str] | None = None) -> PairList:
    """Read the pairs of a verification benchmark.

    Pair p of a .bin is of its images 2p and 2p + 1, whose keys are 2p + 1 and 2p + 2. The names of a list are looked up
    among the images of the folder by `find_among`; their keys are 1 to N in the order of their paths.

    Args:
        manifest: of format verification.
        paths: the folder's images below `image_root` in key order, where they were listed already.

    Raises:
        ManifestError: if the data are not there, are no verification benchmark, or the number of pairs is not what the
            manifest promises.
        PairsError: if the list is damaged, contradicts itself, or a pair's photo is missing.
        VerificationError: if the .bin is damaged.
    """
    if manifest.format is not Format.VERIFICATION:
        raise ManifestError(
            f"the data set {manifest.name} ({manifest.file}) has the format {manifest.format}, which has no list of "
            "pairs of images: only verification has"
        )
    manifest.require_data()
    if manifest.image_root is None:
        pairs = number_bin(read_bin(manifest.data_path)[1])
    else:
        known = ImageFolder(manifest.image_root).paths if paths is None else paths
        pairs = _look_up(parse_pairs(manifest.data_path), known, manifest.data_path, manifest.image_root)
    if difference := check_counts(manifest, pairs=len(pairs)):
        raise ManifestError(difference)
    return pairs


def number_bin(same: NDArray[np.bool_]) -> PairList:
    """The pairs of a .bin, from its flags, bool [P]."""
    a = np.arange(1, 2 * len(same), 2, dtype=np.int32)
    return PairList(a=a, b=a + np.int32(1), same=same, fold=contiguous_folds(len(same)))


def contiguous_folds(pairs: int, folds: int = FOLDS) -> NDArray[np.int16]:
    """The fold of every pair, int16 [P]: runs of equal length, of which the first are one longer where it must be.

    These are the folds of scikit-learn's KFold(10, shuffle=False), which InsightFace's `verification.py` uses. Fewer
    pairs than folds have a fold each.
    """
    folds = max(min(folds, pairs), 1)
    sizes = np.full(folds, pairs // folds)
    sizes[: pairs % folds] += 1
    return np.repeat(np.arange(folds, dtype=np.int16), sizes)


def _look_up(named: NamedPairs, paths: Sequence[str], list_path: Path, folder: Path) -> PairList:
    """Pairs by key instead of by name."""
    images = [path.rsplit(".", 1)[0] for path in paths] if named.bare else list(paths)
    find = find_among(images)
    sides = [(pair.line, name) for pair in named.pairs for name in (pair.first, pair.second)]
    places = [find(name) for _, name in sides]
    if None in places:
        line, name = sides[places.index(None)]
        raise PairsError(
            f"{list_path}, line {line}: the image {name!a:.200} is not in {folder} ({places.count(None):,} of "
            f"{len(sides):,} sides of pairs are missing), where images are called like {images[0]!a:.200}: get the "
            "images again, correct the paths, or take these pairs out of the list"
        )
    found = np.array(places, np.int32)
    _check_names(sides, found, images, list_path, folder)
    pairs = PairList(
        a=found[::2] + np.int32(1),
        b=found[1::2] + np.int32(1),
        same=np.array([pair.same for pair in named.pairs], np.bool_),
        fold=contiguous_folds(len(named.pairs), named.folds or FOLDS),
    )
    _check_repeats(pairs, named, list_path)
    return pairs


def _check_names(
    sides: Sequence[tuple[int, str]], places: NDArray[np.int32], images: Sequence[str], path: Path, folder: Path
) -> None:
    """Refuse names that stand for several images, and several names of one image: folders before it may part them."""
    count = Counter(images)
    for (line, name), place in zip(sides, places.tolist(), strict=True):
        if count[images[place]] > 1:
            raise PairsError(
                f"{path}, line {line}: several images in {folder} are called {name!a:.200} but for their suffixes: "
                "leave one"
            )
    if shared := find_shared([name for _, name in sides], places.tolist()):
        row, other = shared
        line, name = sides[row]
        raise PairsError(
            f"{path}, line {line}: {name!a:.200} and {other!a:.200} would both be the image "
            f"{images[places[row]]!a:.200} in {folder}: name it in one way"
        )


def _check_repeats(pairs: PairList, named: NamedPairs, path: Path) -> None:
    """Refuse pairs that are said to be both genuine and impostor, or are of one image; tell of repeated ones."""
    low, high = np.minimum(pairs.a, pairs.b), np.maximum(pairs.a, pairs.b)
    alone = np.flatnonzero(low == high)
    if len(alone):
        line = named.pairs[alone[0]].line
        raise PairsError(f"{path}, line {line}: a pair of an image with itself: get the list again, or correct it")
    order = np.lexsort((high, low))
    repeated = np.flatnonzero((low[order][1:] == low[order][:-1]) & (high[order][1:] == high[order][:-1]))
    before, after = order[repeated], order[repeated + 1]
    opposed = np.flatnonzero(pairs.same[before] != pairs.same[after])
    if len(opposed):
        lines = [named.pairs[place[opposed[0]]].line for place in (before, after)]
        raise PairsError(
            f"{path}, lines {lines[0]} and {lines[1]}: the same two images are genuine and impostor: get the list "
            "again, or correct it"
        )
    if len(repeated):
        logger.warning("%s: %d pairs stand more than once, and count as often", path, len(repeated))
