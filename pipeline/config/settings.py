"""The settings: each class a section of luigi.cfg, each field a line of it and an option, `--section-name value`.

Only settings that decide an output enter fingerprints; where and how fast it is made does not.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import luigi
from luigi.configuration import get_config
from luigi.task_register import Register
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from data_manifests.manifest import Centres
from data_manifests.storage.toml_file import suggest
from data_manifests.storage.values import Number, Positive, explain_first, kind_of
from data_manifests.weights.entry import POSE_KINDS, Kind
from data_manifests.weights.registry import HEAD, find_network
from labelers.anchors.head import HeadLayout  # noqa: TC001 - pydantic reads the annotation
from labelers.rules import BlurSource, LabelSettings, Section
from labelers.runtime.device import Device
from labelers.runtime.precision import Precision, check_precision
from pipeline.config.parameters import TypedParameter, file_with, given_text
from pipeline.config.pixel_stages import PIXEL_STAGES
from pipeline.execution.dask_workers import Cluster, check_address
from pipeline.logs import one_message

GPU_STAGES = (*(stage.name for stage in PIXEL_STAGES if stage.role), "anchors")
"""The stages that can compute on a GPU."""


class SettingsError(ValueError):
    """A setting is wrong; names the section, the setting and what is allowed."""


class DatasetSettings(Section):
    """The data set that is labelled when the command names none."""

    name: str = "sample"
    """name of a manifest of data_manifests/sets/, or path of a TOML file, a folder of images or a .rec"""


class ModelSettings(Section):
    """The networks, by their names in models.toml or as folders of trainings; a manifest may name others."""

    recognition: str = "fr_feature"
    """recogniser of embeddings, class centres and anchors: a name, or the folder of a run of TrainRecognition"""
    pose: str = "face_landmarker"
    """network of yaw, pitch and roll: face_landmarker, face_mesh, fr_pose or fsanet"""
    factors: str = "factors_mini"
    """network of occlusion, expression and lighting"""
    flip: bool = False
    """whether an embedding is the sum of those of the face and of its mirror image, as in InsightFace's evaluation, in
    twice the time: true or false"""
    precision: Precision = Precision.FLOAT32
    """numbers in which the networks compute, but for face_landmarker: float32; bfloat16 (device = cpu, processors with
    AVX512_BF16 or AMX); tf32 or float16 (device = cuda); docs/labels.md has gains and costs"""


class BlurSettings(Section):
    """How CPBD is computed."""

    edges: Literal["matlab", "python"] = "matlab"
    """edge detector: matlab (fixed cutoff, as the paper's authors) or python (as PyPI's cpbd)"""
    blocks: Literal["reference", "cover"] = "reference"
    """64x64 blocks that are scored: reference (full blocks only: at 112x112 the upper left one) or cover (the whole
    face)"""
    edge_ratio: bool = False
    """whether edge_ratio is measured as well, so that a change to the recipe robust makes the labels alone anew; it is
    in any case where blur_source is edge_ratio: true or false"""


class AnchorSettings(Section):
    """The quality anchor."""

    centres: Centres = Centres.MEAN
    """class centres: mean (of the other images of each person) or head (the recogniser's last layer)"""
    head: Path | None = None
    """for centres = head: a .npy, .safetensors or .pt file with one row or column a person; left out: that of the run
    that is named as recogniser"""
    head_tensor: str = ""
    """name of the matrix in that file, where it holds several that could be meant"""
    head_layout: HeadLayout | Literal[""] = ""
    """its axes, where it has as many people as values of an embedding: classes_first or dimension_first"""


class ReportSettings(Section):
    """The page of a label set; never part of a fingerprint."""

    page: bool = True
    """whether LabelAll ends with the page that LabelReport makes: true or false"""


def _read_stages(given: Any) -> tuple[str, ...]:
    """Stages that can use a GPU, and so can be kept from it; as a text they are joined by commas."""
    names = tuple(filter(None, map(str.strip, given.split(",")))) if isinstance(given, str) else given
    if unknown := [name for name in names if name not in GPU_STAGES]:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(GPU_STAGES)}")
    return names


def _read_address(text: str) -> str:
    """The address of a cluster, or nothing."""
    return check_address(text.strip()) if text.strip() else ""


class ExecutionSettings(Section):
    """Where the work is done; never part of a fingerprint."""

    device: Device = Device.CPU
    """where networks run and class centres are compared: cpu or cuda"""
    cpu_stages: Annotated[tuple[str, ...], BeforeValidator(_read_stages)] = ()
    """stages that stay on the processor though the device is cuda, by commas, such as pose: where cores are idle beside
    the GPU; of pose, factors, embeddings and anchors"""
    gpus: Positive = 1
    """GPUs over which a stage on cuda is spread; LabelAll --gpus N sets the device and this"""
    dask: Annotated[str, AfterValidator(_read_address)] = ""
    """a Dask cluster instead of --workers: tcp://host:8786, or local:N for N processes"""
    dask_wait: Number = Field(30.0, gt=0)
    """seconds that its scheduler may be silent, or have no fit worker, before the run stops"""


class Settings(ModelSettings, BlurSettings, AnchorSettings, ExecutionSettings):
    """The settings of a run, checked against each other."""

    labels: LabelSettings

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

    @model_validator(mode="before")
    @classmethod
    def _measure_source(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The score of which classes are made is measured."""
        needed = values["labels"].blur_source is BlurSource.EDGE_RATIO
        return values | ({"edge_ratio": True} if needed else {})

    @field_validator("precision")
    @classmethod
    def _precision_fits(cls, value: Precision, info: ValidationInfo) -> Precision:
        """A precision is for one kind of device, which is known: fields of the last base come first."""
        check_precision(value, info.data["device"])
        return value

    @model_validator(mode="after")
    def _head_given(self) -> Settings:
        """A head needs its file."""
        if self.centres is Centres.HEAD and self.head is None:
            raise ValueError(
                "centres = head needs the file: set head to a .npy, .safetensors or .pt file, or recognition to the "
                "folder of a run of TrainRecognition"
            )
        return self


SECTIONS: dict[str, type[Section]] = {
    "dataset": DatasetSettings,
    "models": ModelSettings,
    "blur": BlurSettings,
    "anchors": AnchorSettings,
    "labels": LabelSettings,
    "report": ReportSettings,
    "execution": ExecutionSettings,
}
"""The factory's own sections of luigi.cfg."""


class _LuigiSection(luigi.Config):
    """A section as Luigi reads it, from files and the command line."""

    @classmethod
    def get_param_values(cls, params: Any, args: Any, kwargs: Any) -> Any:
        """The values, once no name is misspelt: Luigi would warn, and take the default."""
        with one_message():
            check_files()
            check_names()
        return super().get_param_values(params, args, kwargs)


def check_files() -> None:
    """See to it that the file of settings that is named is there: Luigi would warn, and go on without it.

    Raises:
        SettingsError: if it is not.
    """
    chosen = os.environ.get("LUIGI_CONFIG_PATH")
    if chosen and not Path(chosen).is_file():
        raise SettingsError(f"LUIGI_CONFIG_PATH names {Path(chosen).absolute()}, and there is no such file: correct it")


def check_names() -> None:
    """See to it that the files of settings name nothing that there is not.

    Raises:
        SettingsError: names the section, the setting, and what may have been meant.
    """
    config = get_config()
    for name in set(config.sections()) - SECTIONS.keys() - set(Register.task_names()):
        # Any other is Luigi's: not all of its sections are registered.
        if near := difflib.get_close_matches(name, SECTIONS, n=1, cutoff=0.8):
            where = file_with(name)
            raise SettingsError(f"{where}: there is no section [{name}] (did you mean {near[0]}?): correct it")
    for name, section in SECTIONS.items():
        for option in config.options(name) if config.has_section(name) else ():
            if (field := option.replace("-", "_")) not in section.model_fields:
                where, near_field = file_with(name, option), suggest(field, section.model_fields)
                raise SettingsError(f"{where}: [{name}] has no setting {option}{near_field}: correct or remove it")


def _make_section(name: str) -> type[luigi.Config]:
    """A section for Luigi; what has no default may be left empty there."""
    parameters = {
        field: TypedParameter(
            kind_of(about),
            default="" if about.is_required() else about.default,
            description=" ".join((about.description or "").split()),
        )
        for field, about in SECTIONS[name].model_fields.items()
    }
    return type(name, (_LuigiSection,), {"__doc__": SECTIONS[name].__doc__, "__module__": __name__, **parameters})


dataset, models, blur, anchors, labels, report, execution = map(_make_section, SECTIONS)


def list_sections() -> tuple[type[luigi.Config], ...]:
    """The sections for Luigi, in the order in which they stand above."""
    return dataset, models, blur, anchors, labels, report, execution


_CHOICES: dict[str, tuple[type[luigi.Config], str]] = {
    "recognition_model": (models, "recognition"),
    "pose_model": (models, "pose"),
    "factors_model": (models, "factors"),
    "centres": (anchors, "centres"),
    "head": (anchors, "head"),
    "head_tensor": (anchors, "head_tensor"),
    "head_layout": (anchors, "head_layout"),
    "anchor": (labels, "anchor"),
}
"""What a manifest may choose for its data set, and the setting that it then stands above."""


ROLES: dict[str, tuple[Kind, ...]] = {
    "pose": POSE_KINDS,
    "factors": (Kind.FACTORS,),
    "recognition": (Kind.RECOGNITION,),
}
"""The settings that name networks, and what each may be for."""


def read_settings(overrides: dict[str, str], gpus: int = 0, recogniser: str = "") -> Settings:
    """Read the settings: the command line stands above the manifest's own choices, and these above luigi.cfg.

    Args:
        overrides: what the manifest chooses of `_CHOICES`.
        gpus: compute on so many GPUs, whatever [execution] says; 0: as it says.
        recogniser: the folder of a run of TrainRecognition, whose network and class centres are taken whatever else
            says; empty: as that says.

    Raises:
        SettingsError: names the first setting that is wrong.
        RegistryError: if a folder is named as a network, and holds none.
    """
    values = {section: dict(section().param_kwargs) for section in (models, blur, anchors, execution, labels)}
    for choice, value in overrides.items():
        section, name = _CHOICES[choice]
        if given_text(section, name) is None:
            values[section][name] = value
    if gpus:
        values[execution] |= {"device": Device.CUDA, "gpus": gpus}
    if recogniser:
        values[models]["recognition"] = recogniser
        values[anchors] |= {"centres": Centres.HEAD, "head": None}
    for role, kinds in ROLES.items():
        values[models][role], run = find_network(values[models][role], *kinds)
        if role == "recognition" and run is not None and not values[anchors]["head"] and (run / HEAD).is_file():
            values[anchors]["head"] = run / HEAD
    of_labels = _check(LabelSettings, values.pop(labels), "labels: ")
    return _check(Settings, {"labels": of_labels, **{n: v for section in values.values() for n, v in section.items()}})


_Model = TypeVar("_Model", bound=Section)


def _check(model: type[_Model], values: dict[str, Any], where: str = "") -> _Model:
    """Settings that fit together."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"luigi.cfg or the command line: {where}{explain_first(error)}") from error
