"""The command that makes a label set again, and what its thresholds are where it names none."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luigi.configuration import get_config

from pipeline.job import workspace_root
from pipeline.settings import anchors, blur, labels, models

if TYPE_CHECKING:
    from collections.abc import Mapping

    import luigi

    from pipeline.job import Job

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


def label_command(job: Job) -> str:
    """The command that makes a job's labels with the settings of luigi.cfg."""
    words = ["luigi", "--module", "pipeline", "LabelAll", "--dataset", job.asked]
    words += ["--limit", str(job.limit)] if job.limit else []
    return shlex.join(words)


def find_command(job: Job) -> Command:
    """The command that makes a job's labels, as this process was asked to make them."""
    words = []
    for section in _SECTIONS:
        used = section()
        for name, parameter in section.get_params():
            value = getattr(used, name)
            if name not in THRESHOLDS and value != _configured(section, name, parameter):
                words += [f"--{section.__name__}-{name.replace('_', '-')}", parameter.serialize(value)]
    workspace = job.store.root.parent
    if workspace != workspace_root():
        words += ["--workspace", str(workspace)]
    thresholds = {name: parameter for name, parameter in labels.get_params() if name in THRESHOLDS}
    bare = {name: float(_configured(labels, name, parameter)) for name, parameter in thresholds.items()}
    return Command(text=" ".join(filter(None, [label_command(job), shlex.join(words)])), bare=bare)


def option_of(threshold: str) -> str:
    """The option that gives a threshold on the command line.

    >>> option_of("blur_hazy")
    '--labels-blur-hazy'
    """
    return f"--{labels.__name__}-{threshold.replace('_', '-')}"


def _configured(section: type[luigi.Config], name: str, parameter: luigi.Parameter) -> Any:
    """A setting as luigi.cfg has it, or its default: what holds without the command line."""
    text = get_config().get(section.__name__, name, None)
    return parameter._default if text is None else parameter.parse(text)
