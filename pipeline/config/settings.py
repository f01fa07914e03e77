"""The settings of luigi.cfg, each a section, each overridden on the command line as `--section-name value`.

Only settings that decide an output enter fingerprints; where and how fast it is made does not.
"""

from __future__ import annotations

import inspect
import math
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import luigi
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from data_manifests.manifest import Anchor, Centres
from data_manifests.recipes import Recipe
from labelers.runtime.device import Device
from labelers.runtime.precision import Precision, check_precision
from pipeline.config.parameters import BoolParameter, FloatParameter, IntParameter, given_text
from pipeline.config.pixel_stages import PIXEL_STAGES
from pipeline.execution.workers import Cluster, check_address

GPU_STAGES = (*(stage.name for stage in PIXEL_STAGES if stage.role), "anchors")
"""The stages that can compute on a GPU."""


class SettingsError(ValueError):
    """A setting is wrong; names the section, the setting and what is allowed."""


class BlurSource(StrEnum):
    """The score that the blur classes are made of."""

    CPBD = "cpbd"
    SOBEL = "sobel"


class Normalise(StrEnum):
    """How the anchor is brought to [0, 1]."""

    MINMAX = "minmax"
    QUANTILE = "quantile"


class MissingPose(StrEnum):
    """The pose class of an image without a face."""

    NULL = "null"
    PROFILE = "profile"


class dataset(luigi.Config):  # noqa: N801 - the class name is the section's name
    """The data set that is labelled when the command names none."""

    name = luigi.Parameter(default="sample", description="name of a manifest, or path of a TOML file")


class models(luigi.Config):  # noqa: N801
    """The networks; a manifest may name others for its data set, and the command line stands above both."""

    recognition = luigi.Parameter(default="fr_feature", description="recogniser of models.toml")
    pose = luigi.Parameter(default="face_landmarker", description="pose model of models.toml")
    factors = luigi.Parameter(default="factors_mini", description="factor network of models.toml")
    precision = luigi.Parameter(
        default="float32", description="numbers of ONNX networks: float32; bfloat16 on cpu; tf32 or float16 on cuda"
    )


class blur(luigi.Config):  # noqa: N801
    """How CPBD is computed."""

    edges = luigi.Parameter(default="matlab", description="edge detector: matlab or python")
    blocks = luigi.Parameter(default="reference", description="blocks that are scored: reference or cover")


class anchors(luigi.Config):  # noqa: N801
    """The quality anchor."""

    centres = luigi.Parameter(default="mean", description="class centres: mean or head")
    head = luigi.Parameter(default="", description="file of the recogniser's last layer, for centres = head")


class labels(luigi.Config):  # noqa: N801
    """Thresholds: they decide the labels stage alone. An empty value means: as the recipe says."""

    recipe = luigi.Parameter(default="paper", description="paper or released")
    blur_source = luigi.Parameter(default="", description="cpbd (paper) or sobel (released)")
    blur_hazy = FloatParameter(default=0.35, description="below: hazy")
    blur_clear = FloatParameter(default=0.7, description="above: clear")
    yaw_frontal = FloatParameter(default=10.0, description="degrees; below: frontal")
    yaw_profile = FloatParameter(default=25.0, description="degrees; above: profile")
    worse_probability = FloatParameter(default=0.5, description="from here on: the worse class of a factor")
    missing_pose = luigi.Parameter(default="", description="class of a face that was not found: null or profile")
    anchor = luigi.Parameter(default="", description="certainty_ratio (paper) or plain_ratio (released)")
    normalise = luigi.Parameter(default="minmax", description="minmax, or quantile (0.1 % and 99.9 %, clipped)")


class execution(luigi.Config):  # noqa: N801
    """Where the work is done; never part of a fingerprint."""

    device = luigi.Parameter(default="cpu", description="cpu or cuda, for networks and class centres")
    cpu_stages = luigi.Parameter(default="", description="stages that stay on the processor beside cuda, by commas")
    gpus = IntParameter(default=1, description="GPUs over which a stage on cuda is spread")
    dask = luigi.Parameter(default="", description="a Dask cluster: tcp://host:8786, or local:N for N processes")
    dask_wait = FloatParameter(default=30.0, description="seconds to wait for a silent scheduler or a worker")


class report(luigi.Config):  # noqa: N801
    """The page of a label set; never part of a fingerprint."""

    page = BoolParameter(
        default=True,
        parsing=BoolParameter.EXPLICIT_PARSING,
        description="whether LabelAll ends with the page that LabelReport makes: true or false",
    )


def list_sections() -> tuple[type[luigi.Config], ...]:
    """The sections, in the order in which they stand above."""
    here = (value for value in globals().values() if inspect.isclass(value) and value.__module__ == __name__)
    return tuple(value for value in here if issubclass(value, luigi.Config))


class _Section(BaseModel):
    """A frozen section of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelSettings(_Section):
    """Everything that decides the labels stage beside its inputs."""

    recipe: Recipe
    blur_source: BlurSource
    blur_hazy: float = Field(ge=0)
    blur_clear: float = Field(ge=0)
    yaw_frontal: float = Field(ge=0, le=180)
    yaw_profile: float = Field(ge=0, le=180)
    worse_probability: float = Field(ge=0, le=1)
    missing_pose: MissingPose
    anchor: Anchor
    normalise: Normalise

    @model_validator(mode="after")
    def _ordered(self) -> LabelSettings:
        """Thresholds of a factor stand in their order."""
        for low, high in (("blur_hazy", "blur_clear"), ("yaw_frontal", "yaw_profile")):
            below, above = getattr(self, low), getattr(self, high)
            if not (math.isfinite(below) and math.isfinite(above) and below < above):
                raise ValueError(f"{low} = {below} must lie below {high} = {above}")
        return self


class Settings(_Section):
    """All settings of a run, checked."""

    recognition_model: str
    pose_model: str
    factors_model: str
    edges: str
    blocks: str
    centres: Centres
    head: Path | None
    labels: LabelSettings
    device: Device
    precision: Precision = Precision.FLOAT32
    cpu_stages: tuple[str, ...] = ()
    gpus: int = Field(default=1, ge=1)
    dask: str = ""
    dask_wait: float = Field(default=30.0, gt=0, allow_inf_nan=False)

    def device_of(self, stage: str) -> Device:
        """Where a stage computes."""
        return self.device if stage in GPU_STAGES and stage not in self.cpu_stages else Device.CPU

    def precision_of(self, stage: str) -> Precision:
        """In what numbers a stage's network computes: in float32 where it is kept on the processor beside cuda."""
        return self.precision if self.device_of(stage) is self.device else Precision.FLOAT32

    def cluster(self, folder: Path, *, on_gpu: bool) -> Cluster | None:
        """The Dask cluster that computes the stages of a folder; None where processes of this machine do."""
        if not self.dask:
            return None
        return Cluster(address=self.dask, folder=folder, on_gpu=on_gpu, wait_seconds=self.dask_wait)

    @field_validator("cpu_stages")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Only a stage that can use a GPU can be kept from it."""
        if unknown := [name for name in value if name not in GPU_STAGES]:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(GPU_STAGES)}")
        return value

    @field_validator("dask")
    @classmethod
    def _address(cls, value: str) -> str:
        """A cluster is named by its address."""
        return check_address(value) if value else value

    @field_validator("precision")
    @classmethod
    def _precision_fits(cls, value: Precision, info: ValidationInfo) -> Precision:
        """A precision is for one kind of device."""
        check_precision(value, info.data["device"])
        return value

    @model_validator(mode="after")
    def _head_given(self) -> Settings:
        """A head needs its file."""
        if self.centres is Centres.HEAD and self.head is None:
            raise ValueError("centres = head needs the file: set head to a .npy, .safetensors or .pt file")
        return self


_BY_RECIPE = {
    Recipe.PAPER: {"blur_source": "cpbd", "missing_pose": "null", "anchor": "certainty_ratio"},
    Recipe.RELEASED: {"blur_source": "sobel", "missing_pose": "profile", "anchor": "plain_ratio"},
}
"""What each recipe means for the settings that are left empty (docs/fidelity.md)."""


_CHOICES: dict[str, tuple[type[luigi.Config], str]] = {
    "recognition_model": (models, "recognition"),
    "pose_model": (models, "pose"),
    "factors_model": (models, "factors"),
    "centres": (anchors, "centres"),
    "head": (anchors, "head"),
    "anchor": (labels, "anchor"),
}
"""What a manifest may choose for its data set, and the setting that it then stands above."""


def read_settings(overrides: dict[str, str], gpus: int = 0) -> Settings:
    """Read the settings: the command line stands above the manifest's own choices, and these above luigi.cfg.

    Args:
        overrides: recognition_model, pose_model, factors_model, centres, head, anchor of the manifest, where given.
        gpus: compute on so many GPUs, whatever [execution] says; 0: as it says.

    Raises:
        SettingsError: names the first setting that is wrong.
    """
    overrides = {name: value for name, value in overrides.items() if given_text(*_CHOICES[name]) is None}
    label_values = {name: getattr(labels(), name) for name in LabelSettings.model_fields}
    if "anchor" in overrides:
        label_values["anchor"] = overrides["anchor"]
    try:
        by_recipe = _BY_RECIPE[_choose(Recipe, label_values["recipe"], "labels recipe")]
        label_values |= {name: value for name, value in by_recipe.items() if not label_values[name]}
        return Settings(
            recognition_model=overrides.get("recognition_model", models().recognition),
            pose_model=overrides.get("pose_model", models().pose),
            factors_model=overrides.get("factors_model", models().factors),
            edges=blur().edges,
            blocks=blur().blocks,
            centres=_choose(Centres, overrides.get("centres", anchors().centres), "anchors centres"),
            head=Path(head) if (head := overrides.get("head", anchors().head)) else None,
            labels=LabelSettings.model_validate(label_values),
            device=Device.CUDA if gpus else _choose(Device, execution().device, "execution device"),
            precision=_choose(Precision, models().precision, "models precision"),
            cpu_stages=tuple(name for name in map(str.strip, execution().cpu_stages.split(",")) if name),
            gpus=gpus or execution().gpus,
            dask=execution().dask.strip(),
            dask_wait=execution().dask_wait,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "labels"
        text = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"luigi.cfg or the command line: {where}: {text}") from error
    except ValueError as error:
        raise SettingsError(f"luigi.cfg or the command line: {error}") from error


_Choice = TypeVar("_Choice", bound=StrEnum)


def _choose(kind: type[_Choice], text: str, setting: str) -> _Choice:
    """The member of an enum that a setting names."""
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{setting} = {text!r} is none of {', '.join(kind)}") from None
