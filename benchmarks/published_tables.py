"""Our figures beside the tables of a data folder's README.md, which another program measured.

    python -m benchmarks.published_tables --workspace WORKSPACE --data FOLDER [--bins]

The folder holds lfw112_mixed/, lfw112_natural/, verification/ and README.md. Sets of identities have to be labelled in
the workspace; those that are not are left out, and it says so. `--bins` also embeds the verification files, which takes
minutes. Ends with exit code 1 where a figure is further off than the README allows.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from data_manifests.verification import read_bin
from data_manifests.weights.registry import load_registry
from labelers.blur.scores import sobel
from labelers.faces import decode_batch
from labelers.opening import open_labeler
from training.evaluation.error_reject import area, fixed_curves, fnmr_at, threshold
from training.evaluation.pairs.all_pairs import AllPairs
from training.evaluation.pairs.similarity import pair_similarities, unit_embeddings
from training.evaluation.verification import measure_accuracy

FMRS = (1e-2, 1e-3, 1e-4)
GRID = np.arange(100) / 100
LIMITS = (0.3, 0.95)
STAGES = ("index", "embeddings", "blur")
RECOGNISER = "fr_feature"
ALLOWED = {"random": 0.05}
CLOSE = 0.01
BATCH = 256
NUMBER = re.compile(r"\d*\.?\d+(?:e-?\d+)?")
ROWS = {
    "random": "random",
    "mean Sobel magnitude": "sobel",
    "norm of the embedding": "norm",
    "true severity": "severity",
    "true severity of the damage": "severity",
    "floor": "floor",
    "the similarity itself (unreachable floor)": "floor",
}
"""Rows of the README, and what we call them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenuinePairs:
    """What a curve of the fixed protocol needs.

    Attributes:
        name: as the README's column begins.
        similarity: of the genuine pairs [G].
        thresholds: by false match rate.
        qualities: of the genuine pairs, by method.
    """

    name: str
    similarity: np.ndarray
    thresholds: dict[float, float]
    qualities: dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bins", action="store_true", help="embed the verification files too")
    options = parser.parse_args()
    published = read_tables(options.data / "README.md")
    far = 0
    for name in ("natural", "mixed"):
        folder = options.workspace / f"lfw112_{name}"
        missing = [stage for stage in STAGES if not (folder / stage / "current").exists()]
        if missing:
            print(f"\n{name}: no {', '.join(missing)} in {folder}, left out")
            continue
        far += compare(read_identity_set(name, folder, options.data / f"lfw112_{name}" / "sources.tsv"), published)
    if options.bins:
        for name in ("lfw_clean", "lfw_hard"):
            far += compare(embed_verification(options.data / "verification" / f"{name}.bin"), published)
    sys.exit(f"{far} figures are further off than allowed" if far else 0)


def read_tables(readme: Path) -> dict[tuple[str, float, str], list[float]]:
    """The numbers of every cell, by set, FMR and our name of the row; of `fnmr` the last number is FNMR(0)."""
    found: dict[tuple[str, float, str], list[float]] = {}
    header: list[str] = []
    for line in readme.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or set(line) <= set("|- "):
            continue
        if "FMR" in line and "FNMR" not in line:
            header = cells
            continue
        row = "fnmr" if "FNMR(0)" in cells[0] else ROWS.get(cells[0])
        if row is None:
            continue
        for column, cell in zip(header[1:], cells[1:], strict=True):
            name, _, fmr = column.rpartition("FMR ")
            name = name.strip(" ,") or re.sub(r"`|\.bin", "", header[0])
            if cell:
                found[name, float(fmr), row] = [float(number) for number in NUMBER.findall(cell)]
    return found


def compare(pairs: GenuinePairs, published: dict[tuple[str, float, str], list[float]]) -> int:
    """Print our figures beside the published ones; how many are too far off."""
    print(f"\n{pairs.name}: {len(pairs.similarity):,} genuine pairs")
    print(f"{'FMR':>6}  {'':<10}{'ours':>17}{'published':>17}")
    far = 0
    for fmr, limit in pairs.thresholds.items():
        rows = {"fnmr": [limit, float((pairs.similarity < limit).mean())]}
        for method, quality in pairs.qualities.items():
            curve = fixed_curves(pairs.similarity, quality, [limit])[0]
            fnmr = fnmr_at(*curve, GRID)
            rows[method] = [area(GRID, fnmr, upto) for upto in LIMITS]
        for row, ours in rows.items():
            theirs = published.get((pairs.name, fmr, row), [])
            off = [abs(a - b) for a, b in zip(ours[-len(theirs) :], theirs, strict=True)] if theirs else []
            bad = sum(difference > ALLOWED.get(row, CLOSE) for difference in off)
            text = ["  ".join(f"{number:7.4f}" for number in numbers) for numbers in (ours, theirs)]
            print(f"{fmr:>6.0e}  {row:<10}{text[0]:>17}{text[1]:>17}{'  TOO FAR' if bad else ''}")
            far += bad
    return far


def read_identity_set(name: str, folder: Path, sources: Path) -> GenuinePairs:
    """All pairs of a labelled data set."""
    table = {stage: pl.read_parquet(folder / stage / "current", glob=False) for stage in STAGES}
    for frame in table.values():
        assert (frame["key"] == table["index"]["key"]).all()
    bits = b"".join(table["embeddings"]["embedding"].to_list())
    embeddings = np.frombuffer(bits, np.float16).reshape(len(table["index"]), -1)
    known = pl.read_csv(sources, separator="\t", quote_char=None, glob=False)
    assert (known["key"] == table["index"]["key"]).all()
    pairs = AllPairs.build(embeddings, table["index"]["identity"].to_numpy())
    print(f"\n{name}: {pairs.impostors:,} impostor pairs")
    qualities = {
        "random": np.random.default_rng(0).random(len(embeddings)),
        "sobel": table["blur"]["sobel"].to_numpy(),
        "norm": table["embeddings"]["norm"].to_numpy(),
        "severity": -severities(known["degradations"]),
    }
    return GenuinePairs(
        name=name,
        similarity=pairs.similarity,
        thresholds=pairs.thresholds(FMRS).similarity,
        qualities={m: np.minimum(q[pairs.a], q[pairs.b]) for m, q in qualities.items()} | {"floor": pairs.similarity},
    )


def embed_verification(path: Path) -> GenuinePairs:
    """The pairs of a verification file, embedded here."""
    images, same = read_bin(path)
    labeler = open_labeler(load_registry().get(RECOGNISER), "cpu")
    parts = []
    for start in range(0, len(images), BATCH):
        keys = np.arange(start, min(start + BATCH, len(images)), dtype=np.int32)
        faces, status = decode_batch(keys, keys, images[start : start + BATCH])
        assert {str(one) for one in status} == {"ok"}
        parts.append((*labeler(faces).columns.values(), np.array([sobel(image) for image in faces.images])))
    embeddings, norm, sharpness = (np.concatenate(column) for column in zip(*parts, strict=True))
    units = unit_embeddings(embeddings, np.arange(len(images)))
    similarity = pair_similarities(units, np.arange(0, len(images), 2), np.arange(1, len(images), 2))
    accuracy = measure_accuracy(similarity, same)
    print(f"\n{path.stem}: ten-fold accuracy {accuracy.mean:.4f} ± {accuracy.std:.4f} at {accuracy.threshold:.3f}")
    known = pl.read_csv(path.with_suffix(".tsv"), separator="\t", quote_char=None, glob=False)
    damage = [-severities(known[f"degradations_{side}"]) for side in "ab"]
    qualities = {
        "random": np.random.default_rng(0).random(len(same)),
        "sobel": sharpness.reshape(-1, 2).min(axis=1),
        "norm": norm.reshape(-1, 2).min(axis=1),
        "severity": np.minimum(*damage),
        "floor": similarity,
    }
    return GenuinePairs(
        name=path.stem,
        similarity=similarity[same],
        thresholds={fmr: threshold(similarity, same, fmr) for fmr in FMRS[:2]},
        qualities={method: quality[same] for method, quality in qualities.items()},
    )


def severities(damage: pl.Series) -> np.ndarray:
    """The largest severity of each image, 0 where nothing was damaged."""
    return np.array([max((severity for _, severity in json.loads(text)), default=0.0) for text in damage])


if __name__ == "__main__":
    main()
