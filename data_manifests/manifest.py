"""Data set manifests: what a data set is, where it lies, and what it should hold.

A manifest is a TOML file. Those beside this file are known by name; a user's own is named by its path.
"""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from data_manifests.image_folder import SUFFIXES
from data_manifests.storage.toml_file import TomlFileError, check, read_toml, suggest
from data_manifests.weights.entry import POSE_KINDS, Kind
from data_manifests.weights.registry import RegistryError, load_registry

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).resolve().parent / "sets"
"""Where the shipped manifests lie."""

_WORKSPACE = "workspace:"
_HEAD_SUFFIXES = (".npy", ".safetensors", ".pt", ".pth")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")

Count = Annotated[int, Field(gt=0, strict=True)]
PathText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class ManifestError(TomlFileError):
    """A data set is unknown, is not where its manifest says, or cannot be used so; says what to do."""


class Format(StrEnum):
    """How a data set is stored."""

    RECORDIO = "recordio"
    IMAGE_FOLDER = "image_folder"
    VERIFICATION = "verification"
    WIDER_FACE = "wider_face"
    TEMPLATES = "templates"


LABELLED_FORMATS = (Format.RECORDIO, Format.IMAGE_FOLDER)
"""The formats whose images can be labelled: an anchor compares an image with the others of its person."""

MEASURED_FORMATS = (*LABELLED_FORMATS, Format.VERIFICATION, Format.TEMPLATES)
"""The formats whose images are aligned faces, so that they can be measured."""

ALIGNED_FOLDER = "aligned_112"
"""Where the aligned images of templates lie, below the root."""

TEMPLATE_LISTS = (
    "meta/*_face_tid_mid.txt",
    "meta/*_name_5pts_score.txt",
    "meta/*_template_pair_label.txt",
)
"""The lists of InsightFace's IJB test suite, below the root: of owners, of faces, and of pairs."""


class Centres(StrEnum):
    """Where the class centres come from."""

    MEAN = "mean"
    HEAD = "head"


class Anchor(StrEnum):
    """The ratio that becomes the quality."""

    CERTAINTY_RATIO = "certainty_ratio"
    PLAIN_RATIO = "plain_ratio"


class Published(StrEnum):
    """The benchmarks of the tables of CLIB-FIQA and CR-FIQA."""

    LFW = "LFW"
    CFP_FP = "CFP-FP"
    CPLFW = "CPLFW"
    CALFW = "CALFW"
    AGEDB_30 = "AgeDB-30"
    XQLFW = "XQLFW"
    ADIENCE = "Adience"
    TINYFACE = "TinyFace"
    IJB_C = "IJB-C"


class Hint(BaseModel):
    """What a data set of another size is.

    Attributes:
        images: how many images such a set holds.
        text: what it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: Count
    text: str


_RECORD_FILE = "train.rec"
_PACKED = {".rec": Format.RECORDIO, ".bin": Format.VERIFICATION}
"""Files that hold a whole data set."""


class Manifest(BaseModel):
    """One data set.

    Attributes:
        file: the TOML file that this was read from.
        name: of the data set; names its folder in the workspace.
        format: how it is stored.
        root: its folder.
        record_file: the file in it that holds the images, for recordio (.rec) and verification (.bin).
        pairs_file: the list of pairs, for a verification set that is a folder of images.
        images_folder: the folder below the root that holds the images, for sets with lists beside them: by default the
            root itself with `pairs_file`, and `aligned_112` for templates.
        images: how many images it should hold; checked where given, like the next three.
        identities: how many people.
        pairs: how many verification pairs.
        templates: how many templates.
        recognition_model: network of models.toml, where it is not luigi.cfg's; likewise the next four.
        pose_model: network of models.toml.
        factors_model: network of models.toml.
        centres: where the class centres come from.
        head: the recogniser's last layer (.npy, .safetensors or .pt), for centres = head.
        head_tensor: name of the matrix in that file, where it holds several that could be meant.
        head_layout: its axes, where it has as many people as values of an embedding.
        anchor: the ratio that becomes the quality.
        published: the published benchmark that this is, whole and as published: an evaluation on it shows the papers'
            numbers beside its own.
        licence: its terms.
        homepage: who publishes it.
        download: what to get and where to put it.
        hints: what a set is that has another number of images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    format: Format
    root: Path
    record_file: PathText = _RECORD_FILE
    pairs_file: PathText | None = None
    images_folder: PathText | None = None
    images: Count | None = None
    identities: Count | None = None
    pairs: Count | None = None
    templates: Count | None = None
    recognition_model: str | None = None
    pose_model: str | None = None
    factors_model: str | None = None
    centres: Centres | None = None
    head: Path | None = None
    head_tensor: str | None = None
    head_layout: Literal["classes_first", "dimension_first"] | None = None
    anchor: Anchor | None = None
    published: Published | None = None
    licence: str = ""
    homepage: str = ""
    download: str = ""
    hints: tuple[Hint, ...] = ()

    @model_validator(mode="after")
    def _head_fits(self) -> Self:
        if self.centres is Centres.HEAD and self.head is None:
            raise ValueError("`centres` = head needs the recogniser's last layer: add `head`, a path")
        for name in ("head", "head_tensor", "head_layout"):
            if getattr(self, name) is not None and self.centres is not Centres.HEAD:
                raise ValueError(f"`{name}` is used with `centres` = head only: add that, or remove `{name}`")
        if self.head is not None and self.head.suffix not in _HEAD_SUFFIXES:
            raise ValueError(f"`head` must end in {', '.join(_HEAD_SUFFIXES)}, not {self.head.name}")
        return self

    @model_validator(mode="after")
    def _files_fit(self) -> Self:
        given = self.model_fields_set
        if self.format is Format.VERIFICATION:
            if ("record_file" in given) == ("pairs_file" in given):
                raise ValueError("a verification set needs either `record_file` (a .bin) or `pairs_file`: give one")
        elif "pairs_file" in given:
            raise ValueError(f"`pairs_file` belongs to verification sets, not to {self.format}: remove it")
        if "images_folder" in given and self.pairs_file is None and self.format is not Format.TEMPLATES:
            raise ValueError("`images_folder` belongs to sets with `pairs_file` or templates: set `root` instead")
        if "record_file" in given and self.format not in (Format.RECORDIO, Format.VERIFICATION):
            raise ValueError(f"`record_file` belongs to recordio and verification, not to {self.format}: remove it")
        return self

    @property
    def data_path(self) -> Path:
        """The file or folder that holds the images, or for verification with `pairs_file` the list of pairs."""
        if self.pairs_file is not None:
            return self.root / self.pairs_file
        if self.format in (Format.RECORDIO, Format.VERIFICATION):
            return self.root / self.record_file
        return self.root

    @property
    def image_root(self) -> Path | None:
        """The folder that holds the images as files; None where one file holds them all."""
        if self.format is Format.TEMPLATES:
            return self.root / (self.images_folder or ALIGNED_FOLDER)
        if self.pairs_file is not None:
            return self.root / (self.images_folder or "")
        return None if self.format in (Format.RECORDIO, Format.VERIFICATION) else self.root

    def overrides(self) -> dict[str, str]:
        """The settings that this data set chooses itself, by name, as text."""
        heads = ("head", "head_tensor", "head_layout")
        names = ("recognition_model", "pose_model", "factors_model", "centres", *heads, "anchor")
        return {name: str(value) for name in names if (value := getattr(self, name)) is not None}

    def require_data(self) -> None:
        """Make sure that the data are there.

        Raises:
            ManifestError: if they are not; says where they should be and how to get them.
        """
        if not (self.data_path.is_dir() if self.data_path == self.root else self.data_path.is_file()):
            missing = self.data_path
        elif self.image_root is not None and not self.image_root.is_dir():
            missing = self.image_root
        else:
            return
        how = self.download.strip() or "put it there, or correct `root`"
        raise ManifestError(f"the data set {self.name} ({self.file}) is not at {missing}: {how}")

    def require_images(self) -> None:
        """Make sure that this is a set whose images can be measured.

        Raises:
            ManifestError: if it is a set for training a network.
        """
        if self.format not in MEASURED_FORMATS:
            raise ManifestError(
                f"the data set {self.name} ({self.file}) has the format {self.format}, whose photos are not aligned "
                f"faces: images of {_join(MEASURED_FORMATS)} can be measured"
            )

    def require_labelled(self) -> None:
        """Make sure that this is a set whose images can be labelled.

        Raises:
            ManifestError: if it is a benchmark or a set for training a network; says what can be made of it.
        """
        if self.format in LABELLED_FORMATS:
            return
        measured = self.format in MEASURED_FORMATS
        raise ManifestError(
            f"the data set {self.name} ({self.file}) has the format {self.format}, which cannot be labelled: "
            f"labelling works with {_join(LABELLED_FORMATS)}"
            + ("; of this set, BlurAll, PoseAll, FactorsAll and EmbeddingsAll can be made" if measured else "")
        )


def _join(formats: tuple[Format, ...]) -> str:
    """Formats as one says them."""
    return f"{', '.join(formats[:-1])} and {formats[-1]}"


def shipped_names() -> tuple[str, ...]:
    """The names of the manifests that come with this project, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_manifest(name_or_path: str | Path, workspace: Path | None = None) -> Manifest:
    """Read a manifest, or make one of the data themselves.

    A relative root starts at the TOML file's folder; in a shipped manifest at FIQA_DATA, default `data` here. A root
    `workspace:NAME` is the folder NAME of the workspace. `~` and environment variables are replaced.

    Args:
        name_or_path: name of a shipped manifest; path of a TOML file; or path of the data: a folder of images, a .rec
            or a folder with a train.rec, a .bin. Such a data set is called like its folder, or like the .bin.
        workspace: where the pipeline works; default FIQA_WORKSPACE, or `workspace` here.

    Raises:
        ManifestError: if the name is unknown, or a path in the manifest cannot be made out.
        TomlFileError: if the file is wrong; names the file, the field and the remedy.
    """
    if (found := _describe_place(str(name_or_path))) is not None:
        return found
    path = _locate(str(name_or_path))
    if path.suffix.lower() in SUFFIXES:
        raise ManifestError(f"{path} is one picture: give its folder")
    values = read_toml(path)
    if "file" in values:
        raise ManifestError(f"{path} is wrong: there is no field `file`: remove it")
    for field in ("root", "head"):
        if isinstance(values.get(field), str):
            values[field] = _resolve(values[field], path, field, workspace)
    manifest = check(Manifest, {"file": path, **values}, path)
    _check_networks(manifest)
    return manifest


def check_counts(manifest: Manifest, **found: int) -> str | None:
    """Compare what a data set holds with what its manifest expects.

    Args:
        manifest: the data set's.
        found: images, identities, pairs or templates, as counted.

    Returns:
        What differs, with the remedy; None where all is as expected or nothing is.
    """
    wrong = []
    for field, number in found.items():
        expected = getattr(manifest, field)
        if expected is not None and number != expected:
            hints = [f" ({hint.text})" for hint in manifest.hints if (field, number) == ("images", hint.images)]
            wrong.append(f"expected {expected:,} {field}, found {number:,}{''.join(hints)}")
    if not wrong:
        return None
    return (
        f"the data set {manifest.name} at {manifest.data_path} is not what {manifest.file} describes: "
        f"{'; '.join(wrong)}. It is incomplete or another version: get it again, or correct or remove these fields"
    )


def _describe_place(text: str) -> Manifest | None:
    """The manifest of data that are named themselves; None where the text names something else."""
    place = Path(text).expanduser().absolute()
    if place.is_dir() and (os.sep in text or text not in shipped_names()):
        root, form, record = place, Format.IMAGE_FOLDER, None
        if (place / _RECORD_FILE).is_file():
            form, record = Format.RECORDIO, _RECORD_FILE
    elif place.is_file() and place.suffix in _PACKED:
        root, form, record = place.parent, _PACKED[place.suffix], place.name
    else:
        return None
    own = place.stem if form is Format.VERIFICATION else root.name
    name = re.sub(r"[^A-Za-z0-9._-]", "_", own).lstrip("._-")[:100] or "images"
    return Manifest(file=place, name=name, format=form, root=root, **({"record_file": record} if record else {}))


def _locate(name: str) -> Path:
    """The file of a manifest."""
    if name.endswith(".toml") or os.sep in name:
        return Path(name).expanduser().absolute()
    path = FOLDER / f"{name}.toml"
    if name in shipped_names():
        return path
    raise ManifestError(
        f"no data set is called {name!r}{suggest(name, shipped_names())}: there are {', '.join(shipped_names())}; "
        "for your own data give the path of a folder of images, a .rec, or a TOML file with name, format and root"
    )


def _resolve(text: str, file: Path, field: str, workspace: Path | None) -> str:
    """A path of a manifest made absolute."""
    if text.startswith(_WORKSPACE):
        base = workspace or Path(os.environ.get("FIQA_WORKSPACE") or "workspace")
        text = text.removeprefix(_WORKSPACE)
        if not Path(text).parts or Path(text).is_absolute() or ".." in Path(text).parts:
            raise ManifestError(f'{file}: `{field} = "{_WORKSPACE}{text}"` is no folder of the workspace: name one')
    elif file.resolve().parent == FOLDER:
        base = Path(os.environ.get("FIQA_DATA") or "data")
    else:
        base = file.parent
    expanded = Path(_VARIABLE.sub(lambda match: _variable(match, file, field), text))
    return str((base.expanduser() / expanded.expanduser()).absolute())


def _variable(match: re.Match[str], file: Path, field: str) -> str:
    """The value of an environment variable that a manifest names."""
    name = match[1] or match[2]
    value = os.environ.get(name)
    if not value:
        raise ManifestError(f"{file}: field `{field}` names the environment variable {name}, which is not set: set it")
    return value


def _check_networks(manifest: Manifest) -> None:
    """Make sure that the networks that a manifest names exist and are of the right kind."""
    kinds: Mapping[str, tuple[Kind, ...]] = {
        "recognition_model": (Kind.RECOGNITION,),
        "pose_model": POSE_KINDS,
        "factors_model": (Kind.FACTORS,),
    }
    chosen: dict[str, Any] = {field: getattr(manifest, field) for field in kinds if getattr(manifest, field)}
    if not chosen:
        return
    registry = load_registry()
    for field, name in chosen.items():
        try:
            registry.get(name, *kinds[field])
        except RegistryError as error:
            raise ManifestError(f"{manifest.file}: field `{field}`: {error}") from error
