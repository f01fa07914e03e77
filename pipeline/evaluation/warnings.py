"""What makes the numbers of an evaluation say less than they seem to: faces that were learned, scores all alike."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from data_manifests.folds import Fold, MaybeFold
from data_manifests.storage.json_files import DamagedFileError, read_json
from pipeline.evaluation.images import read_images
from pipeline.evaluation.methods import NETWORKS
from pipeline.storage.fingerprint import StageSpec
from pipeline.storage.store import Store
from training.evaluation.methods.kinds import MethodKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.evaluation.images import BenchmarkImages
    from pipeline.evaluation.methods import Method
    from pipeline.evaluation.plan import Plan
    from training.evaluation.comparison import ComparisonScores
    from training.evaluation.evaluate import Options

NARROW = 0.02
"""The middle 98 % of scores that lie closer than this share of their size are called narrow."""
ALIKE = 0.9
"""So large a share of images with one score is called nearly all."""

_CONFIG = "config.json"
"""What every training leaves (training.trainer.run_folder)."""
_MIDDLE = (0.01, 0.99)
_NAME = re.compile(r"[^\W\d_]{2,}([ _.-]+[^\W\d_]+)+")
"""A folder that is called so has the name of a person: two data sets do not share it by chance, as they do numbers."""


Caution = tuple[str, str]
"""What may be wrong, and where, each as it is shown."""
Indexes = dict[tuple["Path", str], "BenchmarkImages | None"]
"""Folder of a data set and fingerprint of its index -> its images; None where they are not there."""


def join_warnings(found: Iterable[Caution]) -> tuple[str, ...]:
    """Sentences: what may be wrong, and all places where it may."""
    places: dict[str, list[str]] = {}
    for what, where in found:
        places.setdefault(what, []).append(where)
    return tuple(f"{what}: {', '.join(where)}" for what, where in places.items())


def warn_of_twins(place: str, twins: Iterable[tuple[str, ...]]) -> Iterator[Caution]:
    """Methods that are one.

    Args:
        place: benchmark and recogniser.
        twins: the methods that reject the same pairs there.
    """
    for names in twins:
        yield f"{', '.join(names[:-1])} and {names[-1]} reject the same pairs, so their numbers are the same", place


def warn_of_people(place: str, scores: ComparisonScores, options: Options) -> Iterator[Caution]:
    """Intervals over people of whom few have a wrong pair.

    Args:
        place: benchmark and recogniser.
        scores: of the pairs there.
        options: of the evaluation; as few people as errors are called few.
    """
    if scores.person is None or not options.replicates:
        return
    counts = []
    for fmr in options.fmrs:
        wrong = scores.similarity < scores.thresholds[fmr]
        people = len(np.unique(scores.person[wrong]))
        if people < options.fewest_errors <= wrong.sum():
            counts.append(f"{people} people at FMR {fmr:g}")
    if counts:
        what = "the wrong pairs are of few people, so areas are less sure than their intervals and p-values say"
        yield what, f"{place} ({', '.join(counts)})"


def warn_of_scores(benchmark: str, qualities: Mapping[str, NDArray[np.floating[Any]]]) -> Iterator[Caution]:
    """Methods whose scores hardly differ.

    Args:
        benchmark: its name.
        qualities: method -> [N], NaN where there is none.
    """
    for method, quality in qualities.items():
        known = quality[np.isfinite(quality)].astype(np.float32)
        if len(known) < 2:
            continue
        (score, most), *_ = Counter(known.tolist()).most_common(1)
        low, high = np.quantile(known, _MIDDLE).tolist()
        if most >= ALIKE * len(known):
            what = f"{method} gives nearly all images the same score, so it hardly orders them"
            yield what, f"{benchmark} ({score:.4g} to {most:,} of {len(known):,})"
        elif high - low < NARROW * max(abs(low), abs(high)):
            what = (
                f"the scores of {method} hardly differ, so it may have learned nothing, and their order may be chance"
            )
            yield what, f"{benchmark} (98 % of them from {low:.4g} to {high:.4g})"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learned:
    """What a training of this factory learned from.

    Attributes:
        data: digest of the data set.
        fold: the people who were held out; None where nobody was.
        images: of the data set, held out or not; None where its index is not there.
    """

    data: str
    fold: Fold | None
    images: BenchmarkImages | None

    def find_seen(self, images: BenchmarkImages) -> NDArray[np.bool_]:
        """Which images [N] of the same data set were not held out."""
        kept = np.ones(len(images.keys), np.bool_) if self.fold is None else ~self.fold.holds(images.identities)
        return kept if self.images is None else kept & np.isin(images.keys, self.images.keys)


def warn_of_training(plan: Plan, images: Mapping[str, BenchmarkImages]) -> Iterator[Caution]:
    """Methods that learned from people or images of a benchmark.

    Known are the trainings of this factory, whose data set is the benchmark itself, or shares with it files (of one
    folder, name and size) or people's names.

    Args:
        plan: the evaluation.
        images: of each benchmark, by its name.
    """
    indexes: Indexes = {}  # ten models of one data set read its index once
    for method in plan.methods:
        learned = _find_learned(plan, method, indexes)
        if learned is None:
            continue
        what = f"{method.name} was trained on images or people of a benchmark, so its numbers there are no test of it"
        for benchmark in plan.benchmarks:
            own = images[benchmark.name]
            if learned.data == benchmark.job.stages["index"].data:
                seen = int(learned.find_seen(own).sum())
                if seen:
                    held = f", with fold {learned.fold} of the people held out" if learned.fold else ""
                    yield what, f"{benchmark.name} ({seen:,} of {len(own.keys):,} images{held})"
            else:
                for shared in _compare_files(learned, own):
                    yield what, f"{benchmark.name} ({shared})"


def _compare_files(learned: _Learned, own: BenchmarkImages) -> Iterator[str]:
    """What the files of another data set that was learned from and of a benchmark have in common."""
    trained = learned.images
    if trained is None or trained.paths is None or own.paths is None:
        return
    kept = learned.find_seen(trained)
    paths = [path for path, wanted in zip(trained.paths, kept.tolist(), strict=True) if wanted]
    sizes = np.asarray(trained.index["length"])[kept].tolist()
    files = set(zip(map(_name_file, paths), sizes, strict=True))
    found = zip(map(_name_file, own.paths), own.index["length"].to_pylist(), strict=True)
    if same := sum(file in files for file in found):
        yield f"{same:,} of {len(own.keys):,} images, by folder, name and size of their files"
    people = _list_people(own.paths)
    if known := people & _list_people(paths):
        yield f"{len(known):,} of {len(people):,} people, by their names"


def _name_file(path: str) -> tuple[str, ...]:
    """Folder and name."""
    return PurePosixPath(path).parts[-2:]


def _list_people(paths: Sequence[str]) -> set[str]:
    """The folders that are called as people are."""
    return {name for name in (PurePosixPath(path).parent.name for path in paths) if _NAME.fullmatch(name)}


def _find_learned(plan: Plan, method: Method, indexes: Indexes) -> _Learned | None:
    """What a method learned from, where it is a training whose data set is known."""
    if method.kind not in (*NETWORKS, MethodKind.ON_TOP) or method.path is None:
        return None
    run = (method.path if method.path.is_dir() else method.path.parent).resolve()
    try:
        config = read_json(run / _CONFIG)
        labels = config.get("data", {}).get("labels_fingerprint")
        fold = TypeAdapter(MaybeFold).validate_python(config.get("config", {}).get("held_out") or None)
    except (OSError, DamagedFileError, AttributeError, ValidationError):
        return None
    made = {run.parent.name: run.name, "anchors": config.get("anchors"), "labels": labels}
    for root in dict.fromkeys((run.parent.parent, *_list_folders(plan.request.workspace))):
        store = Store(root=root)
        for stage, fingerprint in made.items():
            found = store.recall(stage, str(fingerprint)) if fingerprint else None
            if found is not None:
                index = _find_index(store, found)
                if index is not None and (root, index.fingerprint) not in indexes:
                    indexes[root, index.fingerprint] = read_images(store, index) if store.is_complete(index) else None
                images = None if index is None else indexes[root, index.fingerprint]
                return _Learned(data=found["data"], fold=fold, images=images)
    return None


def _list_folders(workspace: Path) -> list[Path]:
    """The folders of data sets."""
    return sorted(path for path in workspace.iterdir() if path.is_dir()) if workspace.is_dir() else []


def _find_index(store: Store, made_from: Mapping[str, Any]) -> StageSpec | None:
    """The index that something made by the factory rests on; None where it is not known."""
    if made_from["stage"] == "index":
        return StageSpec(name="index", **{name: made_from[name] for name in ("version", "data", "parameters")})
    for stage, fingerprint in made_from["upstream"].items():
        found = store.recall(stage, fingerprint)
        if found is not None and (index := _find_index(store, found)):
            return index
    return None
