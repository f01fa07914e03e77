"""Faces and labels for measurements of speed: a data set of the user's, or the shipped sample many times over."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_manifests.image_folder import ImageFolder
from data_manifests.manifest import load_manifest
from data_manifests.recordio.record_file import RecordFile
from data_manifests.recordio.writer import write_ms1mv2
from data_manifests.sample import draw_images
from data_manifests.tables.stages import LABELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from data_manifests.sample import SampleImage

_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """What a training is given.

    Attributes:
        images: a .rec file or a folder.
        labels: a folder of the table `labels`.
        text: what they are, for the reader of the figures.
    """

    images: Path
    labels: Path
    text: str


def find_faces(folder: Path, dataset: str | None, labels: Path | None, count: int) -> Faces:
    """The data set that was named, or one that is made.

    Args:
        folder: where to write what has to be made.
        dataset: a .rec file, or the name or TOML file of a manifest; None for the sample, many times over.
        labels: the labels of the data set; None for random ones, with which a training is just as fast.
        count: images, where the sample is taken.

    Raises:
        ManifestError: if the data set is not there.
    """
    images, text = find_images(folder, dataset, count)
    if labels is None:
        labels, text = draw_labels(folder / "labels", images), f"{text}, random labels"
    return Faces(images=images, labels=labels, text=text)


def find_images(folder: Path, dataset: str | None, count: int) -> tuple[Path, str]:
    """Where the images are, as `find_faces` says, and what they are."""
    if dataset is None:
        return repeat_sample(folder / "faces", count), f"the sample's faces, repeated to {count:,} images"
    return _locate(dataset), Path(dataset).name


def repeat_sample(folder: Path, count: int) -> Path:
    """Write a RecordIO file that holds the sample's faces again and again, person by person."""
    people = [list(group) for _, group in itertools.groupby(draw_images(), key=lambda image: image.identity)]
    write_ms1mv2(folder, _repeat(people, count)).close()
    return folder / "train.rec"


def draw_labels(folder: Path, images: Path) -> Path:
    """Write random labels of all images; returns the folder."""
    found = ImageFolder(images) if images.is_dir() else RecordFile(images).index()
    random = np.random.default_rng(_SEED)
    columns = [_draw(column.categories, len(found.keys), random) for column in LABELS.written(())]
    known = {"key": pa.array(found.keys), "identity": pa.array(found.identities)}
    known["status"] = pa.array(["ok"] * len(found.keys)).dictionary_encode()
    chosen = [known.get(name, column) for name, column in zip(LABELS.names, columns, strict=True)]
    folder.mkdir(parents=True)
    pq.write_table(pa.table(chosen, schema=LABELS.schema()), folder / "shard-00000.parquet")
    return folder


def _draw(categories: tuple[str, ...], count: int, random: np.random.Generator) -> pa.Array:
    """A random column: classes, or numbers from 0 to 1."""
    if not categories:
        return pa.array(random.random(count, dtype=np.float32))
    codes: NDArray[np.int8] = random.integers(0, len(categories), count, dtype=np.int8)
    return pa.DictionaryArray.from_arrays(pa.array(codes), list(categories), ordered=True)


def _repeat(people: list[list[SampleImage]], count: int) -> Iterator[tuple[int, bytes]]:
    """Identity and bytes of `count` images, shared out evenly among the people."""
    for number, images in enumerate(people):
        share = count // len(people) + (number < count % len(people))
        for image in itertools.islice(itertools.cycle(images), share):
            yield number, image.encoded


def _locate(dataset: str) -> Path:
    """Where the images of a data set lie."""
    if Path(dataset).suffix == ".rec" or Path(dataset).is_dir():
        return Path(dataset)
    manifest = load_manifest(dataset)
    manifest.require_labelled()
    manifest.require_data()
    return manifest.data_path
