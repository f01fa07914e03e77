"""All numbers of a page, and which faces it shows: one look at each column of the labels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.tables.stages import STATUS_TEXT, Factor, Status
from pipeline.label_report.cost import correlate, measure_costs
from pipeline.label_report.labels_table import NO_CLASS
from pipeline.label_report.picks import STRIP, Kind, draw, pick_class, pick_pool
from pipeline.label_report.ranked import Ranked, Sorted
from pipeline.label_report.scores import (
    ABSOLUTE_YAW,
    SCORES,
    Score,
    Side,
    Split,
    build_splits,
    find_axis,
    list_marks,
)
from pipeline.label_report.suspects import Suspects, find_suspects
from pipeline.pages.figures import Distribution, draw_histogram, draw_wide_histogram
from pipeline.pages.people import first_of_people

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import polars as pl
    from numpy.typing import NDArray

    from labelers.rules import LabelSettings
    from pipeline.label_report.labels_table import LabelTable

    Rows = NDArray[np.int64]

_BARS = 50
_LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Fractions of the images for which the quality is shown."""
_OUTER = 0.001
"""Fraction of the values at each end that stand in the outer bar, where a score has no ends of its own."""
_LOOKS = {2: ("worst", "best"), 3: ("worst", "middle", "best")}
"""How classes are drawn, by their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSurvey:
    """One class of a factor.

    Attributes:
        index: 0 for the worst.
        look: worst, middle or best.
        name: its name.
        range: of its score, in words.
        images: how many.
        share: of the images that have a class.
        zone: where its scores begin and end, as fractions of the axis.
        pool: row and score of those faces along the score that are in it.
        gallery: how faces were chosen -> rows.
    """

    index: int
    look: str
    name: str
    range: str
    images: int
    share: float
    zone: tuple[float, float]
    pool: tuple[tuple[int, float], ...]
    gallery: Mapping[Kind, Rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorSurvey:
    """One factor.

    Attributes:
        split: how its score is split.
        axis: the ends of figure and sliders.
        figure: the score's histogram.
        marks: threshold -> the positions of its slider.
        counts: threshold -> images of the class that it bounds, for every mark.
        classes: the worst first.
        unknown: images without a class.
    """

    split: Split
    axis: tuple[float, float]
    figure: str
    marks: Mapping[str, Sequence[float]]
    counts: Mapping[str, Sequence[int]]
    classes: tuple[ClassSurvey, ...]
    unknown: int

    @property
    def name(self) -> str:
        """The factor's name."""
        return self.split.factor.value

    @property
    def along(self) -> tuple[ClassSurvey, ...]:
        """The classes from small to large scores."""
        return tuple(self.classes[index] for index in self.split.along)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One cause of nulls: how many images it has, and some of them."""

    status: Status
    images: int
    rows: Rows

    @property
    def text(self) -> str:
        """What it means."""
        return STATUS_TEXT[self.status]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """All numbers of a page.

    Attributes:
        images: rows of the labels.
        people: images of each person, ascending.
        status: status -> images, the most frequent first.
        scored: images with a quality.
        distributions: of all scores.
        quality: its wide histogram; nothing where no image has one.
        levels: fraction of the images that have a quality -> the highest of theirs.
        factors: in the order of the labels.
        strip: faces from worst to best quality.
        lowest: faces of the lowest quality.
        highest: faces of the highest quality.
        suspects: images whose labels contradict each other.
        costs: the qualities of every class (cost.measure_costs).
        combinations: the qualities of damages together.
        correlated: the scores whose correlations stand in the next.
        correlations: of every two scores.
        failures: causes of nulls, the most frequent first.
    """

    images: int
    people: Rows
    status: Mapping[str, int]
    scored: int
    distributions: tuple[Distribution, ...]
    quality: str
    levels: Mapping[float, float]
    factors: tuple[FactorSurvey, ...]
    strip: Rows
    lowest: Rows
    highest: Rows
    suspects: tuple[Suspects, ...]
    costs: pl.DataFrame
    combinations: pl.DataFrame
    correlated: tuple[Score, ...]
    correlations: Sequence[Sequence[float | None]]
    failures: tuple[Failure, ...]

    @property
    def faces(self) -> Rows:
        """The rows of all faces that are shown."""
        shown = [self.strip, self.lowest, self.highest]
        shown += [found.rows for found in self.suspects] + [failure.rows for failure in self.failures]
        for each in (each for factor in self.factors for each in factor.classes):
            shown += [np.array([row for row, _ in each.pool], np.int64), *each.gallery.values()]
        return np.unique(np.concatenate(shown))


def survey_labels(labels: LabelTable, settings: LabelSettings) -> Survey:
    """Look at all columns, one after the other.

    Args:
        labels: the labels of N images.
        settings: thresholds and rules by which they were made.
    """
    splits = {split.score.column: split for split in build_splits(settings)}
    values = settings.model_dump()
    quality = Ranked.rank(labels.values("quality"))
    distributions, factors = [], {}
    for column, found in _sort_ahead(labels, quality, splits):
        split = splits.get(column)
        if SCORES[column] in labels.shown:
            distributions.append(_describe(SCORES[column], found, _list_edges(column, splits, values)))
        if split is not None and isinstance(found, Ranked):
            factors[split.factor] = _survey_factor(split, found, labels, values)
    costs, combinations = measure_costs(labels)
    correlated, correlations = correlate(labels)
    return Survey(
        images=labels.rows,
        people=labels.images_of_people(),
        status=labels.status_counts,
        scored=quality.known,
        distributions=tuple(distributions),
        quality=_draw(SCORES["quality"], quality, (0.0, 1.0)) if quality.known else "",
        levels={fraction: quality.quantile(fraction) for fraction in _LEVELS} if quality.known else {},
        factors=tuple(factors[factor] for factor in Factor),
        strip=quality.spread(STRIP),
        lowest=first_of_people(quality.ranks, labels.people),
        highest=first_of_people(quality.ranks[::-1], labels.people),
        suspects=tuple(find_suspects(labels, quality)),
        costs=costs,
        combinations=combinations,
        correlated=correlated,
        correlations=correlations,
        failures=tuple(_list_failures(labels)),
    )


def _sort_ahead(labels: LabelTable, quality: Ranked, splits: Mapping[str, Split]) -> Iterator[tuple[str, Sorted]]:
    """All scores in order; a thread reads and sorts the next one while one is looked at, so that two are held."""
    columns = list(dict.fromkeys([*(score.column for score in labels.shown), *splits]))

    def order(column: str) -> Sorted:
        """A score in order; one that is split with its images, of which some are shown."""
        if column == "quality":
            return quality
        return Ranked.rank(labels.values(column)) if column in splits else Sorted.sort(labels.values(column))

    with ThreadPoolExecutor(1, thread_name_prefix="sort") as thread:
        started = (thread.submit(order, column) for column in columns)
        following = next(started)
        for column in columns:
            found, following = following, next(started, following)
            yield column, found.result()


def _survey_factor(split: Split, ranked: Ranked, labels: LabelTable, values: Mapping[str, float]) -> FactorSurvey:
    """One factor."""
    codes = labels.codes(split.factor)
    axis = find_axis(split.score, ranked, [values[name] for name in split.thresholds])
    marks = {name: list_marks(axis, [values[name]]) for name in split.thresholds}
    sides = [split.worst, *filter(None, [split.best])]
    edges = [axis[0], *(values[name] for name in split.thresholds), axis[1]]
    ends = [(edge - axis[0]) / (axis[1] - axis[0]) for edge in edges]
    pool = pick_pool(ranked, axis)
    images = np.bincount(codes + 1, minlength=len(split.classes) + 1)  # the first are those without a class
    classes = tuple(
        ClassSurvey(
            index=index,
            look=_LOOKS[len(split.classes)][index],
            name=name,
            range=split.describe(index, values),
            images=int(images[index + 1]),
            share=images[index + 1] / max(1, images[1:].sum()),
            zone=(ends[split.along.index(index)], ends[split.along.index(index) + 1]),
            pool=tuple((row, float(ranked.values[row])) for row in pool[codes[pool] == index].tolist()),
            gallery=pick_class(split, index, ranked=ranked, codes=codes, people=labels.people, thresholds=values),
        )
        for index, name in enumerate(split.classes)
    )
    return FactorSurvey(
        split=split,
        axis=axis,
        figure=_draw(split.score, ranked, axis),
        marks=marks,
        counts={side.threshold: _count(side, split, ranked, marks[side.threshold]) for side in sides},
        classes=classes,
        unknown=int(images[NO_CLASS + 1]),
    )


def _draw(score: Score, ranked: Ranked, axis: tuple[float, float]) -> str:
    """The wide histogram of a score."""
    return draw_wide_histogram(ranked.bars(*axis, _BARS), axis, f"wide-{score.column}", logarithmic=score.logarithmic)


def _count(side: Side, split: Split, ranked: Ranked, marks: Sequence[float]) -> list[int]:
    """Images of the class at one side of a split, with its threshold at every mark."""
    counts = ranked.count(side.rule, marks)
    if split.missing and side is split.worst:
        counts = counts + (ranked.images - ranked.known)
    return [int(count) for count in counts]


def _list_edges(column: str, splits: Mapping[str, Split], values: Mapping[str, float]) -> list[float]:
    """The thresholds that lie on a score; those of the yaw lie on both of its sides."""
    if column == SCORES[ABSOLUTE_YAW].source:
        edges = [values[name] for name in splits[ABSOLUTE_YAW].thresholds]
        return [*(-edge for edge in edges), *edges]
    return [values[name] for name in splits[column].thresholds] if column in splits else []


def _describe(score: Score, found: Sorted, edges: Sequence[float]) -> Distribution:
    """The histogram of a score, and its range in words."""
    missing = found.images - found.known
    gap = f"none for {missing:,} images" if missing else ""
    if not found.known:
        return Distribution(title=score.title, figure="", text=gap or "no images")
    low, median, high = (score.show(found.quantile(fraction)) for fraction in (0.0, 0.5, 1.0))
    notes = [f"{low} to {high}, median {median}", gap, "logarithmic" if score.logarithmic else ""]
    axis = score.ends or (found.quantile(_OUTER), found.quantile(1 - _OUTER))
    if axis[0] >= axis[1]:
        axis = axis[0] - 0.5, axis[0] + 0.5
    bars = found.bars(*axis, _BARS)
    figure = draw_histogram(bars, axis, f"small-{score.column}", logarithmic=score.logarithmic, edges=edges)
    return Distribution(title=score.title, figure=figure, text="; ".join(filter(None, notes)))


def _list_failures(labels: LabelTable) -> Iterator[Failure]:
    """Every cause of nulls with some of its images, the most frequent first."""
    found = {status for text in labels.status_counts for status in text.split("+")} - {Status.OK.value}
    rows = {Status(name): labels.rows_with(Status(name)) for name in found}
    for status in sorted(rows, key=lambda status: (-rows[status].size, status)):
        yield Failure(status=status, images=rows[status].size, rows=draw(rows[status], labels.people))
