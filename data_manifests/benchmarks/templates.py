"""Reads benchmarks of templates, which are sets of images of one person, in the layout of InsightFace's IJB test suite.

`meta/` holds three lists with single spaces between the fields (insightface, `recognition/_evaluation_/ijb`):

    *_face_tid_mid.txt          image, template, medium        the frames of one video are one medium
    *_name_5pts_score.txt       image, x1 y1 .. x5 y5, score   landmarks in the loose crop; images as above
    *_template_pair_label.txt   template, template, 0 or 1     1: the same person
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv

from data_manifests.image_paths import find_among, find_shared
from data_manifests.manifest import TEMPLATE_LISTS, Format, ManifestError, check_counts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from data_manifests.manifest import Manifest

_SHOWN = 160
"""Characters of a foreign message that are repeated."""


class TemplateError(ValueError):
    """A list of templates is damaged, or two lists do not belong together; names file, row and remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateImages:
    """The images of a benchmark of templates, in the order of its lists, which is that of the index.

    Attributes:
        name: N paths below the folder of images, as the lists write them (see `locate_images`).
        key: int32 [N], the key in the index: 1 to N.
        template: int32 [N], the template that the image belongs to.
        medium: int32 [N], the photo or video that it is from.
        landmarks: float32 [N, 5, 2], x and y in pixels of the loose crop, in ArcFace's order.
        score: float32 [N], how certain the publisher's detector was of the face.
    """

    name: tuple[str, ...]
    key: NDArray[np.int32]
    template: NDArray[np.int32]
    medium: NDArray[np.int32]
    landmarks: NDArray[np.float32]
    score: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateList:
    """A benchmark of templates.

    Attributes:
        images: which image belongs to which template.
        a: int32 [P], one template of every pair.
        b: int32 [P], the other.
        same: bool [P], whether both show the same person.
    """

    images: TemplateImages
    a: NDArray[np.int32]
    b: NDArray[np.int32]
    same: NDArray[np.bool_]


def read_templates(manifest: Manifest) -> TemplateList:
    """Read all lists of a benchmark of templates.

    Raises:
        ManifestError: if the data are not there, or the counts are not those that the manifest promises.
        TemplateError: if a list is damaged, or a pair names a template without an image.
    """
    images = read_template_images(manifest)
    path = _find(manifest, TEMPLATE_LISTS[2])
    a, b, label = (column.to_numpy() for column in _read(path, dict.fromkeys("abc", pa.int32())).columns)
    _require(path, (label == 0) | (label == 1), "has a label other than 0 and 1")
    known = np.unique(images.template)
    for side in (a, b):
        _require(path, np.isin(side, known), "names a template that has no image in the other list")
    if difference := check_counts(manifest, templates=len(known), pairs=len(a)):
        raise ManifestError(difference)
    return TemplateList(images=images, a=a, b=b, same=label == 1)


def read_template_images(manifest: Manifest) -> TemplateImages:
    """Read which images a benchmark of templates has, without its pairs.

    Raises:
        ManifestError: if the data are not there, or not as many images as the manifest promises.
        TemplateError: if a list is damaged, or the two lists of images are not of the same images.
    """
    if manifest.format is not Format.TEMPLATES:
        raise ManifestError(f"the data set {manifest.name} ({manifest.file}) has the format {manifest.format}")
    manifest.require_data()
    owners, faces = (_find(manifest, pattern) for pattern in TEMPLATE_LISTS[:2])
    owner = _read(owners, {"name": pa.string(), "template": pa.int32(), "medium": pa.int32()})
    points = [f"{axis}{number}" for number in range(5) for axis in "xy"]
    face = _read(faces, {"name": pa.string(), **dict.fromkeys([*points, "score"], pa.float32())})
    _compare_names(owner["name"].to_pylist(), face["name"].to_pylist(), owners, faces)
    numbers = np.stack([face[column].to_numpy() for column in [*points, "score"]], axis=1)  # [N, 11]
    _require(faces, np.isfinite(numbers).all(axis=1), "has a number that is not finite")
    _require(owners, owner["template"].to_numpy() >= 0, "has a negative template")
    if difference := check_counts(manifest, images=len(owner)):
        raise ManifestError(difference)
    return TemplateImages(
        name=tuple(owner["name"].to_pylist()),
        key=np.arange(1, len(owner) + 1, dtype=np.int32),
        template=owner["template"].to_numpy(),
        medium=owner["medium"].to_numpy(),
        landmarks=numbers[:, :10].reshape(-1, 5, 2),
        score=numbers[:, 10],
    )


def locate_images(manifest: Manifest, names: Sequence[str], paths: Sequence[str]) -> tuple[str, ...]:
    """The images that the lists name, as `find_among` understands them.

    Args:
        manifest: for messages.
        names: N, of `TemplateImages`.
        paths: of the images below their folder.

    Returns:
        N paths; a name stays as it is where there is no such image.

    Raises:
        TemplateError: if two names would be one image.
    """
    find = find_among(paths)
    places = {name: find(name) for name in names}
    if shared := find_shared(places, places.values()):
        row, other = shared
        raise TemplateError(
            f"the lists of {manifest.name} name {list(places)[row]!r:.200} and {other!r:.200}, which would both be one "
            "image of the folder: name it in one way, or put the other image there"
        )
    return tuple(name if (place := places[name]) is None else paths[place] for name in names)


def _find(manifest: Manifest, pattern: str) -> Path:
    """The one list of that kind."""
    found = sorted(manifest.root.glob(pattern))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise ManifestError(
            f"the data set {manifest.name} has several {pattern} in {manifest.root}: leave one of {names}"
        )
    raise ManifestError(
        f"the data set {manifest.name} ({manifest.file}) has no {pattern} in {manifest.root}: "
        f"{manifest.download.strip() or 'put it there'}"
    )


def _read(path: Path, columns: dict[str, pa.DataType]) -> pa.Table:
    """A list as columns; blank lines are left out."""
    try:
        with pa.OSFile(str(path)) as file:
            table = pa.csv.read_csv(
                file,
                # one thread: only then does an error name its row
                read_options=pa.csv.ReadOptions(column_names=list(columns), use_threads=False),
                parse_options=pa.csv.ParseOptions(delimiter=" ", quote_char=False),
                convert_options=pa.csv.ConvertOptions(column_types=columns, null_values=[]),
            )
    except pa.ArrowException as error:
        raise TemplateError(
            f"{path}: not {' '.join(columns)} with single spaces in every row: {str(error)[:_SHOWN]}; get it again"
        ) from None
    if not table.num_rows:
        raise TemplateError(f"{path}: no row; get it again")
    return table.combine_chunks()


def _require(path: Path, fits: NDArray[np.bool_], problem: str) -> None:
    """Refuse a list with a row that does not fit."""
    wrong = np.flatnonzero(~fits)
    if len(wrong):
        raise TemplateError(f"{path}: row {wrong[0] + 1} {problem} ({len(wrong):,} such rows); get all lists again")


def _compare_names(ours: list[str], theirs: list[str], owners: Path, faces: Path) -> None:
    """Refuse two lists that are not of the same images in the same order."""
    if len(ours) != len(theirs):
        raise TemplateError(
            f"{owners} has {len(ours):,} rows, {faces} {len(theirs):,}: both must list the same images; get both again"
        )
    for row, (our, their) in enumerate(zip(ours, theirs, strict=True), start=1):
        if our != their:
            raise TemplateError(
                f"{owners}: row {row} is of {our!r:.80}, but that of {faces} of {their!r:.80}: both must list the same "
                "images in the same order; get both again"
            )
