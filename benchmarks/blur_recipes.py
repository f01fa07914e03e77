"""Which score of blur, cut at which thresholds, follows known blur: the table behind the recipe `robust`.

    python -m benchmarks.blur_recipes --data ../shared/data/lfw112_mixed [--write docs/labels.md]

The folder holds `train.rec` and `sources.tsv`: key, identity, source and a JSON list of [damage, severity]. Thresholds
are fitted to four fifths of the people and judged on the others, five times. Nothing is written into a workspace.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from benchmarks.truth import replace_section
from data_manifests.recordio.record_file import RecordFile
from data_manifests.tables.stages import CLASSES, Factor
from labelers.blur.edge_ratio import edge_ratio
from labelers.blur.scores import Blocks, cpbd, sobel
from labelers.faces import decode, grey
from labelers.levels import blur_level
from labelers.rules import LabelRecipe, LabelSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

MARKS = ("<!-- blur: made by python -m benchmarks.blur_recipes -->", "<!-- end of blur -->")
BLURS = ("gaussian", "motion", "lowres")
HALF = 0.5
"""From this severity of its blur on, an image should be hazy; below, blurry; without blur, clear."""
FOLDS = 5
NAMES = {
    "cpbd": "cpbd, `blocks = reference`",
    "cover": "cpbd, `blocks = cover`",
    "sobel": "sobel",
    "edge_ratio": "edge_ratio",
}


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is known of N images.

    Attributes:
        people: identities [N].
        kinds: the damages of each image.
        severity: of its blur [N], the largest; 0 without.
        classes: the class of blur that it should have [N], an index into CLASSES.
    """

    people: NDArray[np.int64]
    kinds: list[frozenset[str]]
    severity: NDArray[np.float64]
    classes: NDArray[np.int64]

    def having(self, rule: Callable[[frozenset[str]], bool]) -> NDArray[np.bool_]:
        """The images whose damages keep a rule, bool [N]."""
        return np.array([rule(kinds) for kinds in self.kinds])

    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """Images by what is wrong with them beside blur."""
        others = [kinds - set(BLURS) for kinds in self.kinds]
        rules: dict[str, Callable[[frozenset[str]], bool]] = {
            "nothing else": lambda kinds: not kinds,
            "dark": lambda kinds: "dark" in kinds,
            "over-exposed": lambda kinds: "over" in kinds,
            "anything else": lambda kinds: bool(kinds - {"dark", "over"}),
        }
        found = {name: np.array([rule(kinds) for kinds in others]) for name, rule in rules.items()}
        return found | {"all": np.ones(len(others), bool)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder with train.rec and sources.tsv")
    parser.add_argument("--write", type=Path, help="Markdown page whose marked section is replaced")
    options = parser.parse_args()
    truth = read_truth(options.data / "sources.tsv")
    scores, micros = measure(options.data / "train.rec")
    text = "\n\n".join([
        *correlations(truth, scores, micros),
        *accuracies(truth, scores),
        *shares(truth, scores),
    ])  # fmt: skip
    print(text)
    if options.write:
        replace_section(options.write, text, MARKS)


def read_truth(sources: Path) -> Truth:
    """The known damage, in key order."""
    table = pl.read_csv(sources, separator="\t", quote_char=None, glob=False).sort("key")
    damages = [dict(json.loads(text)) for text in table["degradations"]]
    severity = np.array([max((s for kind, s in d.items() if kind in BLURS), default=0.0) for d in damages])
    return Truth(
        people=table["identity"].to_numpy(),
        kinds=[frozenset(d) for d in damages],
        severity=severity,
        classes=np.where(severity == 0, 2, np.where(severity < HALF, 1, 0)),
    )


def measure(record_file: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
    """The scores of all images in key order, and the microseconds of each score, in turns."""
    measures: dict[str, Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]] = {
        "cpbd": lambda _, gray: cpbd(gray),
        "cover": lambda _, gray: cpbd(gray, blocks=Blocks.COVER),
        "sobel": lambda rgb, _: sobel(rgb),
        "edge_ratio": lambda _, gray: edge_ratio(gray),
    }
    found: dict[str, list[float]] = {name: [] for name in measures}
    spent = dict.fromkeys(measures, 0.0)
    with RecordFile(record_file) as records:
        for number, (_, _, stored) in enumerate(records.images()):
            rgb = decode(stored)
            gray = grey(rgb)
            for name, score in measures.items():
                started = time.perf_counter()
                found[name].append(score(rgb, gray))
                spent[name] += time.perf_counter() - started if number else 0.0  # the first call compiles
    return (
        {name: np.array(values, np.float32) for name, values in found.items()},
        {name: 1e6 * seconds / number for name, seconds in spent.items()},
    )


def correlations(truth: Truth, scores: dict[str, NDArray[np.float32]], micros: dict[str, float]) -> Iterator[str]:
    """Spearman's correlation of every score with the severity of the blur."""
    alone = {kind: truth.having(lambda kinds, kind=kind: kinds == {kind}) for kind in BLURS}
    blurred = truth.severity > 0
    columns = alone | {
        f"blurred and {name}": truth.having(lambda k, n=name: n in k) & blurred for name in ("dark", "over")
    }
    columns["all images"] = np.ones(len(blurred), bool)
    yield "Spearman's correlation with the severity of the blur, and microseconds an image:"
    lines = [row("score", *(f"{name}, {part.sum():,}" for name, part in columns.items()), "µs"), "|---" * 8 + "|"]
    for name, title in NAMES.items():
        found = [rank(scores[name][part], truth.severity[part]) for part in columns.values()]
        lines.append(row(title, *(f"{value:+.2f}" for value in found), f"{micros[name]:.0f}"))
    yield "\n".join(lines)


def rank(score: NDArray[np.float32], severity: NDArray[np.float64]) -> float:
    """Spearman's correlation of the images that have a score."""
    known = ~np.isnan(score)
    return float(spearmanr(score[known], severity[known]).statistic)


def accuracies(truth: Truth, scores: dict[str, NDArray[np.float32]]) -> Iterator[str]:
    """Balanced accuracy of the classes of every recipe, and of thresholds that were fitted to other people."""
    groups = truth.groups()
    yield "Balanced accuracy of the three classes (a third by chance), by what else is wrong with the image:"
    lines = [
        row("classes by", "thresholds", *(f"{name}, {part.sum():,}" for name, part in groups.items())),
        "|---" * 7 + "|",
    ]
    made = {recipe: classify(recipe, scores) for recipe in LabelRecipe}
    for recipe, classes in made.items():
        rules = LabelSettings.model_validate({"recipe": recipe})
        cut = f"{rules.blur_hazy:g}, {rules.blur_clear:g}"
        lines.append(row(f"recipe `{recipe}`", cut, *(judge(truth, classes, part) for part in groups.values())))
    for name, title in NAMES.items():
        classes, cut = fit_folds(truth, scores[name], groups["nothing else"])
        lines.append(row(f"{title}, fitted", cut, *(judge(truth, classes, part) for part in groups.values())))
    yield "\n".join(lines)


def shares(truth: Truth, scores: dict[str, NDArray[np.float32]]) -> Iterator[str]:
    """What each recipe calls images of one damage, by its severity."""
    made = {recipe: classify(recipe, scores) for recipe in (LabelRecipe.PAPER, LabelRecipe.ROBUST)}
    words = CLASSES[Factor.BLUR]
    yield "What images of one damage are called, `none` where they have no class:"
    lines = [row("damage alone", "images", *(f"{r}: {w}" for r in made for w in (*words, "none"))), "|---" * 10 + "|"]
    parts = {"nothing": truth.having(lambda kinds: not kinds)}
    for kind in BLURS:
        own = truth.having(lambda kinds, kind=kind: kinds == {kind})
        parts |= {
            f"{kind}, under {HALF}": own & (truth.severity < HALF),
            f"{kind}, from {HALF}": own & (truth.severity >= HALF),
        }
    parts |= {kind: truth.having(lambda kinds, kind=kind: kinds == {kind}) for kind in ("dark", "over", "side", "jpeg")}
    for name, part in parts.items():
        found = (f"{(classes[part] == code).mean():.1%}" for classes in made.values() for code in (0, 1, 2, -1))
        lines.append(row(name, f"{part.sum():,}", *found))
    yield "\n".join(lines)


def classify(recipe: LabelRecipe, scores: dict[str, NDArray[np.float32]]) -> NDArray[np.int8]:
    """The classes by a recipe [N], -1 for none."""
    rules = LabelSettings.model_validate({"recipe": recipe})
    return blur_level(scores[rules.blur_source.value], rules.blur_hazy, rules.blur_clear, rules.boundaries)


def fit_folds(truth: Truth, score: NDArray[np.float32], usable: NDArray[np.bool_]) -> tuple[NDArray[np.int8], str]:
    """The classes of everybody by thresholds that were fitted to others, and these thresholds."""
    classes = np.empty(len(score), np.int8)
    cuts = []
    for fold in range(FOLDS):
        held_out = truth.people % FOLDS == fold
        part = usable & ~held_out & ~np.isnan(score)
        cuts.append(fit(score[part], truth.classes[part]))
        classes[held_out] = blur_level(score[held_out], *cuts[-1])
    ends = [f"{min(ends):.3f} to {max(ends):.3f}" for ends in zip(*cuts, strict=True)]
    return classes, ", ".join(ends)


def fit(score: NDArray[np.float32], classes: NDArray[np.int64]) -> tuple[float, float]:
    """The thresholds of the greatest balanced accuracy: each parts two neighbouring classes best."""
    marks = np.unique(score)
    under = [np.searchsorted(np.sort(score[classes == code]), marks) / (classes == code).sum() for code in (0, 1, 2)]
    low, high = (float(marks[np.argmax(under[code] - under[code + 1])]) for code in (0, 1))
    return low, high


def judge(truth: Truth, classes: NDArray[np.int8], part: NDArray[np.bool_]) -> str:
    """Balanced accuracy of the images that have a class, and the share of those that have none."""
    known = part & (classes >= 0)
    recalls = [(classes[known & (truth.classes == code)] == code).mean() for code in (0, 1, 2)]
    none = 1 - known.sum() / part.sum()
    return f"{np.mean(recalls):.3f}" + (f" (none: {none:.1%})" if none else "")


def row(*cells: str) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
