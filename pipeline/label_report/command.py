"""The command that makes a label set again, and what its thresholds are where it names none."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from luigi.configuration import get_config

from data_manifests.manifest import Centres
from labelers.rules import BY_RECIPE, LabelRecipe
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


_Place: TypeAlias = "tuple[type[luigi.Config], str]"
"""A section and the name of a setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command without thresholds.

    Attributes:
        text: for a shell; every setting that the command line of this run gave, but for thresholds, is in it.
        bare: threshold -> its value where the command names none.
        robust: the command that makes the labels by the recipe `robust`, everything else as it is; empty where they
            are made by it.
    """

    text: str
    bare: Mapping[str, float]
    robust: str

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
    given = {
        (section, name): text
        for section in _SECTIONS
        for name, _ in section.get_params()
        if (text := given_text(section, name)) is not None
    }
    kept = {place: text for place, text in given.items() if place[1] not in THRESHOLDS}
    recipe = job.settings.labels.recipe
    bare = {name: _bare(name, parameter, recipe) for name, parameter in labels.get_params() if name in THRESHOLDS}
    robust = "" if recipe == LabelRecipe.ROBUST else _write(job, _make_robust(given))
    return Command(text=_write(job, kept), bare=bare, robust=robust)


def _write(job: Job, options: Mapping[_Place, str]) -> str:
    """The command with these settings."""
    words = [word for (section, name), text in options.items() for word in (option_of(section, name), text)]
    workspace = job.store.root.parent
    if workspace != workspace_root():
        words += ["--workspace", str(workspace)]
    return " ".join(filter(None, [label_command(job), shlex.join(words)]))


def _make_robust(given: Mapping[_Place, str]) -> dict[_Place, str]:
    """Given settings with those of the recipe `robust` in their place, named where luigi.cfg says otherwise."""
    of_blur = {name: BY_RECIPE[LabelRecipe.ROBUST][name] for name in ("blur_source", "blur_hazy", "blur_clear")}
    wanted = {(labels, "recipe"): LabelRecipe.ROBUST.value} | {(labels, name): value for name, value in of_blur.items()}
    named = {
        (section, name): str(value)
        for (section, name), value in wanted.items()
        if name == "recipe" or _configured(section, name) not in ("", str(value))
    }
    return {place: text for place, text in given.items() if place not in wanted} | named


def _configured(section: type[luigi.Config], name: str) -> str:
    """A setting as luigi.cfg has it; empty where that leaves it to the recipe or to the default."""
    return str(get_config().get(section.__name__, name, ""))


def _bare(threshold: str, parameter: luigi.Parameter, recipe: LabelRecipe) -> float:
    """A threshold as luigi.cfg has it, or else as the recipe has it, or its default."""
    text = _configured(labels, threshold)
    return float(parameter.parse(text) if text else BY_RECIPE[recipe].get(threshold, parameter._default))
