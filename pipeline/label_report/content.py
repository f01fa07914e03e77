"""What the page says: the survey's numbers in words, with the faces beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_manifests.durations import describe_time_taken
from pipeline.config.parameters import option_of
from pipeline.config.settings import labels
from pipeline.label_report.command import THRESHOLDS
from pipeline.label_report.making import StageLine, list_notes, list_stages
from pipeline.label_report.picks import Kind
from pipeline.label_report.plots import BOTTOM, LEFT, TOP, WIDTH
from pipeline.label_report.scores import FACTOR_TEXTS, SCORES
from pipeline.label_report.summary import RARE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.config.job import Job
    from pipeline.label_report.command import Command
    from pipeline.label_report.faces import FaceBook
    from pipeline.label_report.findings import Findings
    from pipeline.label_report.summary import BlurAdvice
    from pipeline.label_report.survey import FactorSurvey, Survey
    from training.pages.pictures import Picture

ABSENT = "-"
"""Stands where there is no number."""

ORDER = ("worst", "middle", "best")
"""How a class of three is drawn; of two, the first and the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassPart:
    """One class of a factor.

    Attributes:
        place: its index, 0 for the worst.
        look: worst, middle or best.
        name: its name.
        range: of its score, in words.
        images: how many.
        share: of the images that have a class.
        pool: faces of the pool that are in it, with their score.
        gallery: how faces were chosen -> faces.
    """

    place: int
    look: str
    name: str
    range: str
    images: int
    share: float
    pool: tuple[tuple[Picture, float], ...]
    gallery: Mapping[Kind, tuple[Picture, ...]]

    @property
    def rare(self) -> bool:
        """Whether the class is nearly empty."""
        return self.share < RARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Slider:
    """A threshold that can be moved.

    Attributes:
        threshold: the setting.
        label: what it bounds.
        value: now.
        place: its place among the marks.
        last: the last place.
    """

    threshold: str
    label: str
    value: float
    place: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorPart:
    """One factor.

    Attributes:
        survey: its numbers.
        text: what it is.
        classes: the worst first.
        along: the classes from small to large scores.
        zones: class index -> where it begins and ends, as shares of the axis.
        sliders: one a threshold.
        advice: thresholds that the data suggest, where they do.
    """

    survey: FactorSurvey
    text: str
    classes: tuple[ClassPart, ...]
    along: tuple[ClassPart, ...]
    zones: Mapping[int, tuple[float, float]]
    sliders: tuple[Slider, ...]
    advice: BlurAdvice | None


def build_content(job: Job, survey: Survey, book: FaceBook, command: Command, findings: Findings) -> dict[str, Any]:
    """Everything that the template needs.

    Args:
        job: whose labels these are.
        survey: the numbers.
        book: the faces.
        command: that makes the labels again.
        findings: what looks wrong with them.
    """
    values = job.settings.labels.model_dump()
    stages = tuple(list_stages(job))
    factors = tuple(_build_factor(factor, book, values, findings.advice) for factor in survey.factors)
    return {
        "title": f"Labels of {job.name}",
        "has_faces": any(picture.source for picture in book.pictures.values()),
        "survey": survey,
        "tiles": tuple(_list_tiles(survey, stages)),
        "warnings": [_split_command(text, command.text) for text in findings.warnings],
        "factors": factors,
        "kinds": list(Kind),
        "strip": book.show(survey.strip),
        "least": book.show(survey.least),
        "most": book.show(survey.most),
        "failures": [(failure, book.show(failure.rows)) for failure in survey.failures],
        "costly": sorted((cost for cost in survey.costs if cost.alone is not None), key=lambda cost: cost.alone or 0.0),
        "clean": next((entry.spread.median for entry in survey.combinations if not entry.names), None),
        "stages": stages,
        "notes": list_notes(job),
        "fingerprint": job.stages["labels"].fingerprint,
        "finished": max((line.finished for line in stages), default=""),
        "geometry": {"left": LEFT, "width": WIDTH, "bottom": BOTTOM, "top": 1 - TOP},
        "quality": SCORES["quality"],
        "data": _list_data(survey, command, values),
        "plural": _plural,
        "duration": describe_time_taken,
    }


def _build_factor(
    survey: FactorSurvey, book: FaceBook, values: Mapping[str, Any], advice: BlurAdvice | None
) -> FactorPart:
    """One factor with its faces."""
    split = survey.split
    total = sum(survey.classes)
    classes = []
    pool = _divide_pool(survey, book)
    for place, (name, images) in enumerate(zip(split.classes, survey.classes, strict=True)):
        gallery = {kind: book.show(rows, split.score.column) for kind, rows in survey.gallery[place].items()}
        part = ClassPart(
            place=place,
            look=ORDER[place if len(split.classes) == len(ORDER) else 2 * place],
            name=name,
            range=split.describe(place, values),
            images=images,
            share=images / total if total else 0.0,
            pool=tuple(pool[place]),
            gallery=gallery,
        )
        classes.append(part)
    return FactorPart(
        survey=survey,
        text=FACTOR_TEXTS[split.factor],
        classes=tuple(classes),
        along=tuple(classes[place] for place in split.along),
        zones=_find_zones(survey, values),
        sliders=tuple(_list_sliders(survey, values)),
        advice=advice if advice is not None and "blur_hazy" in split.thresholds else None,
    )


def _divide_pool(survey: FactorSurvey, book: FaceBook) -> list[list[tuple[Picture, float]]]:
    """The faces along a score by class, each with its score."""
    split = survey.split
    groups: list[list[tuple[Picture, float]]] = [[] for _ in split.classes]
    pictures = book.show(survey.pool, split.score.column)
    for row, picture in zip(survey.pool.tolist(), pictures, strict=True):
        known = book.values[row]
        groups[split.classes.index(known[split.factor.value])].append((picture, abs(known[split.score.source])))
    return groups


def _find_zones(survey: FactorSurvey, values: Mapping[str, float]) -> dict[int, tuple[float, float]]:
    """Where each class lies on the axis."""
    low, high = survey.axis
    edges = [0.0, *((values[name] - low) / (high - low) for name in survey.split.thresholds), 1.0]
    return {place: (edges[at], edges[at + 1]) for at, place in enumerate(survey.split.along)}


def _list_sliders(survey: FactorSurvey, values: Mapping[str, float]) -> Iterator[Slider]:
    """The thresholds of a factor, from small to large."""
    split = survey.split
    for name in split.thresholds:
        place = 0 if name == split.worst.threshold else len(split.classes) - 1
        words = split.describe(place, values).rsplit(" ", 1)[0]
        marks = survey.marks[name]
        yield Slider(
            threshold=name,
            label=f"{split.classes[place]} {words}",
            value=values[name],
            place=marks.index(values[name]),
            last=len(marks) - 1,
        )


def _list_tiles(survey: Survey, stages: Sequence[StageLine]) -> Iterator[tuple[str, str, str]]:
    """The figures at a glance: number, what it is, and what more is to say."""
    images, people = survey.images, survey.people
    yield f"{images:,}", _plural(images, "image", "images"), f"{survey.status.get('ok', 0):,} with every label"
    if people.size:
        single = int((people == 1).sum())
        middle = int(people[people.size // 2])
        more = [f"median {_plural(middle, '1 image', f'{middle:,} images')} each"]
        more += [f"{single:,} {_plural(single, 'has', 'have')} one alone"] if single else []
        yield f"{people.size:,}", _plural(people.size, "person", "people"), "; ".join(more)
    yield f"{survey.scored / images:.1%}" if images else ABSENT, "have a quality", f"{survey.scored:,} images"
    seconds = sum(line.seconds for line in stages)
    if seconds:
        yield describe_time_taken(seconds), "to label", f"{images / seconds:,.0f} images a second over all stages"


def _split_command(text: str, command: str) -> tuple[str, str]:
    """A warning, and the command at its end if there is one."""
    before, found, after = text.partition(command)
    return (before, found + after) if found else (text, "")


def _list_data(survey: Survey, command: Command, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's script works with."""
    thresholds: dict[str, dict[str, Any]] = {}
    for factor in survey.factors:
        names = factor.split.thresholds
        for at, name in enumerate(names):
            thresholds[name] = {
                "option": option_of(labels, name),
                "unit": factor.split.score.unit,
                "now": values[name],
                "bare": command.bare[name],
                "marks": factor.marks[name],
                "under": names[at + 1] if at + 1 < len(names) else None,
                "over": names[at - 1] if at else None,
            }
    return {
        "command": command.text,
        "order": THRESHOLDS,
        "thresholds": thresholds,
        "splits": {factor.split.factor.value: _describe_split(factor) for factor in survey.factors},
    }


def _describe_split(factor: FactorSurvey) -> dict[str, Any]:
    """One split for the script: which values belong to the outer classes, and how many images that makes."""
    split = factor.split
    sides = {0: split.worst} | ({len(split.classes) - 1: split.best} if split.best is not None else {})
    return {
        "classes": split.classes,
        "along": split.along,
        "axis": factor.axis,
        "total": sum(factor.classes),
        "counted": factor.classes,
        "sides": [
            {"place": place, "threshold": side.threshold, "rule": side.rule, "counts": factor.counts[side.threshold]}
            for place, side in sides.items()
        ],
    }


def _plural(count: int, one: str, many: str) -> str:
    """The word that fits a number."""
    return one if count == 1 else many
