"""The command that makes a label set again, and what its thresholds are where it names none."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luigi.configuration import get_config

from data_manifests.manifest import Centres
from pipeline.config.job import WORKSPACE_VARIABLE, workspace_root
from pipeline.config.parameters import given_text, option_of
from pipeline.config.settings import anchors, blur, labels, models

if TYPE_CHECKING:
    from collections.abc import Mapping

    import luigi

    from pipeline.config.job import Job

_LABEL_ALL = ("luigi", "--module", "pipeline", "LabelAll")

THRESHOLDS = ("blur_hazy", "blur_clear", "yaw_frontal", "yaw_profile", "worse_probability")
"""The settings that a page lets its reader move."""

_SECTIONS: tuple[type[luigi.Config], ...] = (models, blur, anchors, labels)
"""The sections of luigi.cfg that decide labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command without thresholds.

    Attributes:
        text: for a shell; every setting that the command line of this run gave, but for thresholds, is in it.
        bare: threshold -> its value where the command names none.
    """

    text: str
    bare: Mapping[str, float]

    def with_thresholds(self, values: Mapping[str, float]) -> str:
        """The command that makes the labels again with these thresholds."""
        return " ".join([self.text, *self._thresholds(values)])

    def about(self, words: str, values: Mapping[str, float]) -> str:
        """The command of `python -m pipeline` that says or does something with these labels: `explain 7`, `export`."""
        given = shlex.split(self.text)[len(_LABEL_ALL) :]
        before, options = "", []
        for name, value in zip(given[::2], given[1::2], strict=True):
            if name == "--workspace":
                before = shlex.join([f"{WORKSPACE_VARIABLE}={value}"]) + " "
            elif name == "--recogniser":
                options += [option_of(models, "recognition"), value, option_of(anchors, "centres"), Centres.HEAD]
            else:
                options += [name, value]
        return " ".join([f"{before}python -m pipeline {words} {shlex.join(options)}", *self._thresholds(values)])

    def _thresholds(self, values: Mapping[str, float]) -> list[str]:
        """Those thresholds that the command has to name."""
        return [f"{option_of(labels, name)} {values[name]}" for name in THRESHOLDS if values[name] != self.bare[name]]


def label_command(job: Job) -> str:
    """The command that makes a job's labels with the settings of luigi.cfg."""
    words = [*_LABEL_ALL, "--dataset", job.asked]
    words += ["--limit", str(job.limit)] if job.limit else []
    words += ["--recogniser", job.recogniser] if job.recogniser else []
    return shlex.join(words)


def find_command(job: Job) -> Command:
    """The command that makes a job's labels, as this process was asked to make them."""
    words = []
    for section in _SECTIONS:
        for name, _ in section.get_params():
            text = given_text(section, name)
            if name not in THRESHOLDS and text is not None:
                words += [option_of(section, name), text]
    workspace = job.store.root.parent
    if workspace != workspace_root():
        words += ["--workspace", str(workspace)]
    bare = {name: _configured(name, parameter) for name, parameter in labels.get_params() if name in THRESHOLDS}
    return Command(text=" ".join(filter(None, [label_command(job), shlex.join(words)])), bare=bare)


def _configured(threshold: str, parameter: luigi.Parameter) -> float:
    """A threshold as luigi.cfg has it, or its default: what holds without the command line."""
    text = get_config().get(labels.__name__, threshold, None)
    return float(parameter._default if text is None else parameter.parse(text))
