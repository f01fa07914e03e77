"""Writes a data set of any size in exactly the layout of MS1MV2, from the encoded images of a small one.

    python -m benchmarks.make_ms1mv2 --output FOLDER [--images 5822653] [--identities 85742] [--pool TRAIN.REC | sample]

Every image is one of the pool, drawn at random and copied as it is encoded, so the disk sets the pace. What is
drawn, and so every byte, follows from the seed and NumPy. How many images a person has is log-normal about the mean
of MS1MV2: that is an assumption, for none were at hand.

`--without-pixels` writes the .idx in full and a .rec of the true size with holes: only what an index reads is there,
which is the header, the first and the last image of every person, and the identity records. The other images read as
damaged records.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv

from data_manifests.recordio.format import encode
from data_manifests.recordio.record_file import RecordFile
from data_manifests.recordio.writer import write_ms1mv2
from data_manifests.sample import make_sample
from data_manifests.storage.atomic import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

IMAGES, PEOPLE = 5_822_653, 85_742
"""MS1MV2."""

SPREAD = 0.6
"""Standard deviation of the logarithm of a person's images: with MS1MV2's mean of 68, from a few to some 700."""

MAX_POOL = 20_000
"""Images of a pool that are used: some 100 MB in memory."""

EXACT_FLOAT32 = 1 << 24
"""Labels are float32, so keys above this could not be told apart in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Whom the data set shows, and by which images.

    Attributes:
        counts: int64 [P], the images of every person; the persons' numbers are 0 to P - 1.
        choices: int32 [N], the image of the pool that every image is.
    """

    counts: NDArray[np.int64]
    choices: NDArray[np.int32]

    @property
    def border(self) -> int:
        """The key behind the last image."""
        return len(self.choices) + 1

    @property
    def end(self) -> int:
        """The key behind the last identity record."""
        return self.border + len(self.counts)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of train.rec, train.idx and property")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--identities", type=int, default=0, help="as many to an image as in MS1MV2 by default")
    parser.add_argument("--pool", default="sample", help="a .rec whose images are used, or `sample`")
    parser.add_argument("--name", default="ms1mv2_synthetic", help="of the data set, in its manifest")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-pixels", action="store_true", help="holes in place of most images")
    options = parser.parse_args(words)
    people = options.identities or max(1, round(options.images * PEOPLE / IMAGES))
    if not 0 < people <= options.images or options.images + 1 + people > EXACT_FLOAT32:
        sys.exit(f"{options.images} images of {people} people: give at least one image a person, {EXACT_FLOAT32} keys")
    pool = read_pool(options.pool)
    plan = draw(options.images, people, len(pool), options.seed)
    started = time.monotonic()
    if options.without_pixels:
        write_without_pixels(options.output, plan, pool)
    else:
        write_ms1mv2(options.output, stream(plan, pool))
    manifest = write_manifest(options.output, options.name, plan, holes=options.without_pixels)
    seconds = time.monotonic() - started
    size = (options.output / "train.rec").stat()
    print(
        f"{options.images:,} images of {people:,} people in {seconds:.1f} s: {options.images / seconds:,.0f} images/s"
    )
    print(
        f"train.rec: {size.st_size / 1e9:.2f} GB, of which {512 * size.st_blocks / 1e9:.2f} GB on the disk; {manifest}"
    )


def read_pool(name: str) -> list[bytes]:
    """The encoded images of a .rec, or of the embedded sample."""
    if name != "sample":
        with RecordFile(name) as records:
            return [payload for _, _, payload in itertools.islice(records.images(), MAX_POOL)]
    with tempfile.TemporaryDirectory() as folder:
        make_sample(Path(folder) / "sample")
        return read_pool(str(Path(folder) / "sample" / "train.rec"))


def draw(images: int, people: int, pool: int, seed: int) -> Plan:
    """Draw how many images every person has, at least one, and which image of the pool each is."""
    chance = np.random.default_rng(seed)
    weights = chance.lognormal(sigma=SPREAD, size=people)
    shares = weights / weights.sum() * (images - people)
    counts = np.floor(shares).astype(np.int64)
    most_cut = np.argsort(counts - shares, kind="stable")[: images - people - int(counts.sum())]
    counts[most_cut] += 1
    return Plan(counts=counts + 1, choices=chance.integers(pool, size=images, dtype=np.int32))


def stream(plan: Plan, pool: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Identity and encoded image of every image, in the order of the keys."""
    start = 0
    for identity, count in enumerate(plan.counts.tolist()):
        for choice in plan.choices[start : start + count].tolist():
            yield identity, pool[choice]
        start += count


def write_without_pixels(folder: Path, plan: Plan, pool: Sequence[bytes]) -> None:
    """Write what the full data set would be, with holes for the images between the first and last of every person."""
    header = encode((float(plan.border), float(plan.end)), b"", 0)
    # Neither key nor identity can be the magic word, so that the image alone decides how long a record is.
    stored = np.array([len(encode(0.0, image, 0)) for image in pool], np.int64)
    lengths = np.full(plan.end, len(header), np.int64)
    lengths[1 : plan.border] = stored[plan.choices]
    offsets = np.append(0, np.cumsum(lengths))  # [keys + 1]
    stops = 1 + np.cumsum(plan.counts)
    starts = stops - plan.counts

    def write_records(file: IO[bytes]) -> None:
        file.truncate(int(offsets[-1]))
        os.pwrite(file.fileno(), header, 0)
        for identity, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
            for key in {start, stop - 1}:
                record = encode(float(identity), pool[plan.choices[key - 1]], key)
                os.pwrite(file.fileno(), record, int(offsets[key]))
        ranges = zip(range(plan.border, plan.end), starts.tolist(), stops.tolist(), strict=True)
        tail = b"".join(encode((float(start), float(stop)), b"", key) for key, start, stop in ranges)
        os.pwrite(file.fileno(), tail, int(offsets[plan.border]))

    def write_index(file: IO[bytes]) -> None:
        table = pa.table({"key": np.arange(plan.end), "offset": offsets[:-1]})
        pa.csv.write_csv(table, file, pa.csv.WriteOptions(include_header=False, delimiter="\t"))

    (folder / "train.idx").unlink(missing_ok=True)
    write_atomically(folder / "train.rec", write_records)
    write_atomically(folder / "train.idx", write_index)
    write_atomically(folder / "property", lambda file: file.write(b"%d,112,112" % len(plan.counts)))


def write_manifest(folder: Path, name: str, plan: Plan, *, holes: bool) -> Path:
    """Write the data set's manifest beside it."""
    text = f"""\
# Synthetic: the images of a small data set again and again{", with holes in place of most" if holes else ""}.
name = "{name}"
format = "recordio"
root = "."
images = {len(plan.choices)}
identities = {len(plan.counts)}
"""
    path = folder / f"{name}.toml"
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


if __name__ == "__main__":
    main()
