"""Stand-ins of the papers' eight benchmarks, drawn from lfw112_natural and lfw112_mixed: alike in form, not in data.

    python -m benchmarks.eight_benchmarks --data FOLDER --output FOLDER [--images 1000] [--pairs 3000]

Six are lists of so many genuine and as many impostor pairs; Adience's and TinyFace's are known people, all against all.
The command that evaluates on them is printed. Their manifests have no field `published`: nothing is compared with the
papers' numbers.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.recordio.record_file import RecordFile

if TYPE_CHECKING:
    from collections.abc import Mapping

SETS = {
    "lfw": "natural", "cfp_fp": "mixed", "cplfw": "mixed", "xqlfw": "mixed", "calfw": "natural", "agedb_30": "natural",
    "adience": "natural", "tinyface": "mixed",
}  # fmt: skip
"""Benchmark -> which data it is drawn from."""
PEOPLE = ("adience", "tinyface")
FEWEST, MOST = 4, 30
"""Images of a person: of fewer than the first none is drawn, and no more than the second."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=3000)
    options = parser.parse_args()
    manifests = []
    for seed, (name, kind) in enumerate(SETS.items()):
        random = np.random.default_rng(seed)
        folder = options.output / f"stand_in_{name}"
        with RecordFile(options.data / f"lfw112_{kind}" / "train.rec") as file:
            people = draw_people(file.identities, options.images, random)
            paths = {key: f"p{person:05d}/{key}.jpg" for person, keys in people.items() for key in keys}
            for key, path in paths.items():
                (folder / "photos" / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / "photos" / path).write_bytes(file.read(key)[1])
        if name not in PEOPLE:
            lines = draw_pairs(people, paths, options.pairs, random)
            (folder / "pairs.tsv").write_text("\n".join(lines) + "\n")
        manifests.append(write_manifest(folder, listed=name not in PEOPLE))
    names = ",".join(map(str, manifests))
    print(f"luigi --module pipeline EvaluateQuality --benchmarks {names} --protocols fixed,cr_fiqa --no-correlate")


def draw_people(identities: Mapping[int, range], images: int, random: np.random.Generator) -> dict[int, list[int]]:
    """People in random order until there are so many images: person -> keys."""
    found: dict[int, list[int]] = {}
    for person in random.permutation([person for person, keys in identities.items() if len(keys) >= FEWEST]).tolist():
        keys = list(identities[person])
        found[person] = sorted(random.permutation(keys)[:MOST].tolist())
        if sum(map(len, found.values())) >= images:
            break
    return found


def draw_pairs(
    people: Mapping[int, list[int]], paths: Mapping[int, str], count: int, random: np.random.Generator
) -> list[str]:
    """Lines of so many genuine pairs, or all there are, and as many impostor pairs, in turns."""
    genuine = [pair for keys in people.values() for pair in combinations(keys, 2)]
    chosen = [genuine[place] for place in random.permutation(len(genuine))[:count]]
    own = {key: person for person, keys in people.items() for key in keys}
    keys = np.array(list(own))
    impostors: dict[tuple[int, int], None] = {}
    while len(impostors) < len(chosen):
        a, b = sorted(random.choice(keys, 2, replace=False).tolist())
        if own[a] != own[b]:
            impostors[a, b] = None
    pairs = [pair for both in zip(chosen, impostors, strict=True) for pair in zip(both, (1, 0), strict=True)]
    return [f"{paths[a]}\t{paths[b]}\t{same}" for (a, b), same in pairs]


def write_manifest(folder: Path, *, listed: bool) -> Path:
    """The manifest of a stand-in."""
    form = 'format = "verification"\npairs_file = "pairs.tsv"\nimages_folder = "photos"\n'
    text = f'root = "{folder.name}"\n{form}' if listed else f'root = "{folder.name}/photos"\nformat = "image_folder"\n'
    path = folder.with_suffix(".toml")
    path.write_text(f'name = "{folder.name}"\npose_model = "fr_pose"\n{text}')
    return path


if __name__ == "__main__":
    main()
