"""What the template of the page needs: the survey's numbers in words, and the data of its script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from data_manifests.durations import describe_time_taken
from labelers.rules import BlurSource
from pipeline.config.parameters import option_of
from pipeline.config.settings import labels
from pipeline.label_report.command import THRESHOLDS, label_command
from pipeline.label_report.picks import Kind
from pipeline.label_report.provenance import StageLine, list_notes, list_stages
from pipeline.label_report.scores import FACTOR_TEXTS, SCORES
from pipeline.label_report.summary import RARE, image_warnings, warnings_of
from pipeline.pages.figures import BOTTOM, LEFT, TOP, WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.config.job import Job
    from pipeline.label_report.command import Command
    from pipeline.label_report.faces import FaceBook
    from pipeline.label_report.labels_table import LabelTable
    from pipeline.label_report.survey import FactorSurvey, Survey


def build_content(job: Job, table: LabelTable, survey: Survey, command: Command) -> dict[str, Any]:
    """Everything that the template needs, but for the faces.

    Args:
        job: whose labels these are.
        table: the labels.
        survey: their numbers.
        command: that makes the labels again.
    """
    settings = job.settings.labels
    values = settings.model_dump()
    stages = tuple(list_stages(job))
    warnings = warnings_of(table.frame, settings, command) + image_warnings(job, table.frame, table.rows)
    undamaged = survey.combinations.filter(pl.col("names").list.len() == 0)
    return {
        "title": f"Labels of {job.name}",
        "survey": survey,
        "tiles": tuple(_list_tiles(survey, stages)),
        "warnings": [_split_command(text, label_command(job)) for text in warnings],
        "texts": FACTOR_TEXTS,
        "one_block": settings.blur_source == BlurSource.CPBD and job.settings.blocks == "reference",
        "robust": command.robust,
        "rare": RARE,
        "kinds": [kind for kind in Kind if kind is not Kind.ALL],
        "costly": survey.costs.drop_nulls("alone").sort("alone", maintain_order=True),
        "undamaged": next(iter(undamaged["median"]), None),
        "stages": stages,
        "notes": list_notes(job),
        "fingerprint": job.stages["labels"].fingerprint,
        "finished": max((line.finished for line in stages), default=""),
        "geometry": {"left": LEFT, "width": WIDTH, "bottom": BOTTOM, "top": 1 - TOP},
        "quality": SCORES["quality"],
        "scores": table.shown,
        "data": _list_data(survey, command, values) | {"explain": command.about("explain KEY", values)},
        "again": command.with_thresholds(values),
        "export": command.about("export", values),
        "name": job.name,
        "plural": _plural,
        "duration": describe_time_taken,
    }


def show_faces(book: FaceBook) -> dict[str, Any]:
    """What the template needs to show faces."""
    return {"book": book, "has_faces": any(picture.source for picture in book.pictures.values())}


def _list_tiles(survey: Survey, stages: Sequence[StageLine]) -> Iterator[tuple[str, str, str]]:
    """The figures at a glance: number, what it is, and what more is to say."""
    images, people = survey.images, survey.people
    yield f"{images:,}", _plural(images, "image", "images"), f"{survey.status.get('ok', 0):,} with every label"
    if people.size:
        single = int((people == 1).sum())
        middle = int(people[people.size // 2])
        more = [f"median {_plural(middle, '1 image', f'{middle:,} images')} each"]
        more += [f"{single:,} {_plural(single, 'has', 'have')} only one"] if single else []
        yield f"{people.size:,}", _plural(people.size, "person", "people"), "; ".join(more)
    yield f"{survey.scored / images:.1%}" if images else "-", "have a quality", f"{survey.scored:,} images"
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
        "splits": {factor.name: _describe_split(factor) for factor in survey.factors},
    }


def _describe_split(factor: FactorSurvey) -> dict[str, Any]:
    """One split for the script: which values belong to the outer classes, and how many images that makes."""
    split = factor.split
    sides = {0: split.worst} | ({len(split.classes) - 1: split.best} if split.best is not None else {})
    images = [each.images for each in factor.classes]
    return {
        "classes": split.classes,
        "along": split.along,
        "axis": factor.axis,
        "total": sum(images),
        "counted": images,
        "sides": [
            {"place": index, "threshold": side.threshold, "rule": side.rule, "counts": factor.counts[side.threshold]}
            for index, side in sides.items()
        ],
    }


def _plural(count: int, one: str, many: str) -> str:
    """The word that fits a number."""
    return one if count == 1 else many
