"""A page of labels beside the labels that it is of, shared by the tests of the page."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from pipeline.config.job import WORKSPACE_VARIABLE, Job, resolve
from pipeline.label_report.command import find_command
from pipeline.label_report.page import render_labels
from tests.pipeline.dom import Element, read_page

if TYPE_CHECKING:
    from pathlib import Path

    from tests.pipeline.conftest import Factory


@dataclass(frozen=True)
class Shown:
    """A page with the labels that it is of."""

    text: str
    tree: Element
    data: dict[str, Any]
    labels: pl.DataFrame

    @classmethod
    def of(cls, text: str, labels: pl.DataFrame) -> Shown:
        tree = read_page(text)
        (data,) = [element.inside[0] for element in tree.all("script", id="data")]
        return cls(text, tree, json.loads(str(data)), labels)

    def section(self, name: str) -> Element:
        return self.tree.one("section", id=name)

    def table(self, name: str, place: int = 0) -> dict[str, list[str]]:
        """The rows of a table of a section, by the text of their heads."""
        rows = self.section(name).all("table")[place].all("tr")
        return {row.all("th")[0].text: [cell.text for cell in row.all("td")] for row in rows if row.all("td")}


def job_of(factory: Factory) -> Job:
    os.environ[WORKSPACE_VARIABLE] = str(factory.workspace)
    return resolve("sample", workspace=factory.workspace)


def current(factory: Factory, dataset: str = "sample") -> Path:
    return factory.workspace / dataset / "report" / "current" / "index.html"


def read_current(factory: Factory) -> Shown:
    """The page that LabelAll left of the sample."""
    labels = pl.read_parquet(factory.workspace / "sample" / "labels" / "current")
    return Shown.of(current(factory).read_text(), labels)


def render(job: Job) -> Shown:
    labels = pl.read_parquet(job.store.folder(job.stages["labels"]))
    return Shown.of(render_labels(job, find_command(job), ""), labels)


def facts_of(face: Element) -> dict[str, str]:
    return dict(line.split("\t") for line in face.attributes["title"].split("\n"))
