"""All numbers of a page, and which faces it shows: one look at each column of the labels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_manifests.tables.stages import STATUS_TEXT, Factor, Status
from pipeline.label_report.cost import ClassCost, Combination, correlate, list_combinations, list_costs
from pipeline.label_report.labels_table import NO_CLASS
from pipeline.label_report.picks import A_ROW, STRIP, Kind, draw, pick_class, pick_pool
from pipeline.label_report.plots import draw_small, draw_wide
from pipeline.label_report.ranked import Ranked, Sorted
from pipeline.label_report.scores import ABSOLUTE_YAW, SCORES, SHOWN, Score
from pipeline.label_report.splits import Side, Split, build_splits, find_axis, list_marks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.config.settings import LabelSettings
    from pipeline.label_report.labels_table import LabelTable

    Rows = NDArray[np.int64]

_BARS = 50
_LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Shares of the images for which the quality is told."""
_OUTER = 0.001
"""Share of the values at each end that stand in the outer bar, where a score has no ends of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A score: its picture, and its range in words."""

    score: Score
    figure: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorSurvey:
    """One factor.

    Attributes:
        split: how its score is cut.
        axis: the ends of picture and sliders.
        figure: the score's bars.
        marks: threshold -> the places of its slider.
        counts: threshold -> images of the class that it bounds, for every mark.
        classes: images of each class, as the labels have them.
        unknown: images without a class.
        pool: faces along the score.
        gallery: for each class, faces by how they were chosen.
    """

    split: Split
    axis: tuple[float, float]
    figure: str
    marks: Mapping[str, Sequence[float]]
    counts: Mapping[str, Sequence[int]]
    classes: tuple[int, ...]
    unknown: int
    pool: Rows
    gallery: tuple[Mapping[Kind, Rows], ...]


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
        quality: its picture, wide; nothing where no image has one.
        levels: share of the images that have a quality -> the highest of theirs.
        factors: in the order of the labels.
        strip: faces from worst to best quality.
        least: faces of the least quality.
        most: faces of the highest quality.
        costs: what every class costs.
        combinations: what damages cost together.
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
    least: Rows
    most: Rows
    costs: tuple[ClassCost, ...]
    combinations: tuple[Combination, ...]
    correlated: tuple[Score, ...]
    correlations: tuple[tuple[float | None, ...], ...]
    failures: tuple[Failure, ...]

    @property
    def faces(self) -> Rows:
        """The rows of all faces that are shown."""
        shown = [self.strip, self.least, self.most, *(failure.rows for failure in self.failures)]
        for factor in self.factors:
            shown += [factor.pool, *(rows for kinds in factor.gallery for rows in kinds.values())]
        return np.unique(np.concatenate(shown))


def survey_labels(labels: LabelTable, settings: LabelSettings) -> Survey:
    """Look at all columns, one after the other.

    Args:
        labels: the labels of N images.
        settings: thresholds and rules by which they were made.
    """
    splits = {split.score.column: split for split in build_splits(settings)}
    values = settings.model_dump()
    codes = {factor: labels.codes(factor) for factor in Factor}
    quality = Ranked.rank(labels.values("quality"))
    distributions, factors = [], {}
    for column, found in _sort_ahead(labels, quality, splits):
        split = splits.get(column)
        if SCORES[column] in SHOWN:
            distributions.append(_describe(SCORES[column], found, _list_edges(column, splits, values)))
        if split is not None and isinstance(found, Ranked):
            factors[split.factor] = _survey_factor(split, found, codes[split.factor], values)
    correlated, correlations = correlate(labels)
    return Survey(
        images=labels.rows,
        people=labels.people(),
        status=labels.status_counts,
        scored=quality.known,
        distributions=tuple(distributions),
        quality=_draw(SCORES["quality"], quality, (0.0, 1.0)) if quality.known else "",
        levels={share: quality.quantile(share) for share in _LEVELS} if quality.known else {},
        factors=tuple(factors[factor] for factor in Factor),
        strip=quality.spread(STRIP),
        least=quality.ranks[:A_ROW],
        most=quality.ranks[::-1][:A_ROW],
        costs=tuple(list_costs(codes, quality.values)),
        combinations=tuple(list_combinations(codes, quality.values)),
        correlated=correlated,
        correlations=tuple(map(tuple, correlations)),
        failures=tuple(_list_failures(labels)),
    )


def _sort_ahead(labels: LabelTable, quality: Ranked, splits: Mapping[str, Split]) -> Iterator[tuple[str, Sorted]]:
    """All scores in order; a thread reads and sorts the next one while one is looked at, so that two are held."""
    columns = list(dict.fromkeys([*(score.column for score in SHOWN), *splits]))

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


def _survey_factor(split: Split, ranked: Ranked, codes: NDArray[np.int8], values: Mapping[str, float]) -> FactorSurvey:
    """One factor."""
    axis = find_axis(split.score, ranked, [values[name] for name in split.thresholds])
    marks = {name: list_marks(axis, [values[name]]) for name in split.thresholds}
    sides = [split.worst, *filter(None, [split.best])]
    return FactorSurvey(
        split=split,
        axis=axis,
        figure=_draw(split.score, ranked, axis),
        marks=marks,
        counts={side.threshold: _count(side, split, ranked, marks[side.threshold]) for side in sides},
        classes=tuple(int((codes == place).sum()) for place in range(len(split.classes))),
        unknown=int((codes == NO_CLASS).sum()),
        pool=pick_pool(ranked, axis),
        gallery=tuple(pick_class(split, place, ranked, codes, values) for place in range(len(split.classes))),
    )


def _draw(score: Score, ranked: Ranked, axis: tuple[float, float]) -> str:
    """The wide picture of a score."""
    return draw_wide(ranked.bars(*axis, _BARS), axis, f"wide-{score.column}", logarithmic=score.logarithmic)


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
    """The picture of a score, and its range in words."""
    missing = found.images - found.known
    gap = f"none for {missing:,} images" if missing else ""
    if not found.known:
        return Distribution(score=score, figure="", text=gap or "no images")
    low, median, high = (score.show(found.quantile(share)) for share in (0.0, 0.5, 1.0))
    text = f"{low} to {high}, median {median}" + (f"; {gap}" if gap else "")
    axis = score.ends or (found.quantile(_OUTER), found.quantile(1 - _OUTER))
    if axis[0] >= axis[1]:
        axis = axis[0] - 0.5, axis[0] + 0.5
    bars = found.bars(*axis, _BARS)
    figure = draw_small(bars, axis, f"small-{score.column}", logarithmic=score.logarithmic, edges=edges)
    return Distribution(score=score, figure=figure, text=text)


def _list_failures(labels: LabelTable) -> Iterator[Failure]:
    """Every cause of nulls with some of its images, the most frequent first."""
    found = {status for text in labels.status_counts for status in text.split("+")} - {Status.OK.value}
    rows = {Status(name): labels.rows_with(Status(name)) for name in found}
    for status in sorted(rows, key=lambda status: (-rows[status].size, status)):
        yield Failure(status=status, images=rows[status].size, rows=draw(rows[status]))
